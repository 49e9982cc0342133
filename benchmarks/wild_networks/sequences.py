"""Libraries of networks for text, sound, diffusion and spikes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .common import Made, Networks, image, tokens


def x_transformers() -> Networks:
    """One decoder or encoder for each option of the library that changes the layers."""
    import x_transformers as library

    def decoder(**options: Any) -> Made:
        layers = library.Decoder(dim=24, depth=2, heads=2, attn_dim_head=8, **options)
        return library.TransformerWrapper(num_tokens=50, max_seq_len=16, attn_layers=layers), tokens()

    options: dict[str, dict[str, Any]] = {
        "decoder": {}, "RMS norms": {"use_rmsnorm": True}, "simple RMS norms": {"use_simple_rmsnorm": True},
        "scale norms": {"use_scalenorm": True}, "gated, with SwiGLU": {"ff_glu": True, "ff_swish": True},
        "squared ReLU": {"ff_relu_squared": True}, "rotary positions": {"rotary_pos_emb": True},
        "ALiBi": {"alibi_pos_bias": True, "alibi_num_heads": 1}, "relative positions": {"rel_pos_bias": True},
        "dynamic positions": {"dynamic_pos_bias": True}, "talking heads": {"attn_pre_talking_heads": True},
        "one key head": {"attn_one_kv_head": True}, "normed queries": {"attn_qk_norm": True},
        "gated values": {"attn_gate_values": True}, "memory": {"attn_num_mem_kv": 3}, "sandwich": {"sandwich_coef": 1},
        "macaron": {"macaron": True}, "gated residuals": {"gate_residual": True}, "shifted tokens": {"shift_tokens": 1},
        "scaled residuals": {"scale_residual": True}, "sandwich norms": {"sandwich_norm": True},
        "hyper-connections": {"num_residual_streams": 2}, "value residuals": {"add_value_residual": True},
        "no biases": {"ff_no_bias": True}, "differential": {"attn_sparse_topk": 3},
    }  # fmt: skip
    networks: Networks = {name: lambda one=one: decoder(**one) for name, one in options.items()}

    def encoder_decoder() -> Made:
        model = library.XTransformer(dim=24, enc_num_tokens=50, enc_depth=1, enc_heads=2, enc_max_seq_len=16,
                                     dec_num_tokens=50, dec_depth=1, dec_heads=2, dec_max_seq_len=16,
                                     tie_token_emb=True)  # fmt: skip
        return model, (tokens(), tokens())

    def vision() -> Made:
        layers = library.Encoder(dim=24, depth=2, heads=2)
        return library.ViTransformerWrapper(image_size=32, patch_size=8, num_classes=5, attn_layers=layers), image(32)

    def continuous() -> Made:
        layers = library.Encoder(dim=24, depth=2, heads=2)
        model = library.ContinuousTransformerWrapper(dim_in=6, dim_out=5, max_seq_len=16, attn_layers=layers)
        return model, torch.rand(1, 9, 6)

    return networks | {"encoder and decoder": encoder_decoder, "vision": vision, "continuous": continuous}


def diffusers() -> Networks:
    """Small networks of several kinds of diffusion models."""
    import diffusers as library

    def make(kind: str, given: Callable[[], Any], **options: Any) -> Callable[[], Made]:
        return lambda: (getattr(library, kind)(**options), given())

    step = torch.tensor([3])
    blocks = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4}
    vae = {**blocks, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    text = torch.rand(1, 7, 24)
    tiny = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    conditional = {**blocks, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "cross_attention_dim": 24,
                   "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 8}  # fmt: skip
    noisy = {"sample": image(16, 4), "timestep": step, "encoder_hidden_states": text}
    return {
        "UNet2DModel": make("UNet2DModel", lambda: (image(16), step), **blocks, sample_size=16, attention_head_dim=8,
                            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                            up_block_types=("AttnUpBlock2D", "UpBlock2D")),
        "UNet2DConditionModel": make("UNet2DConditionModel", lambda: dict(noisy), **conditional),
        "UNet2DConditionModel with classes": make(
            "UNet2DConditionModel", lambda: {**noisy, "class_labels": torch.tensor([1])}, **conditional,
            num_class_embeds=5),
        "UNet1DModel": make("UNet1DModel", lambda: (torch.rand(1, 2, 64), step), block_out_channels=(32, 32, 64),
                            sample_size=64, in_channels=2, extra_in_channels=0),
        "ControlNetModel": make(
            "ControlNetModel", lambda: {**noisy, "controlnet_cond": image(32)}, block_out_channels=(16, 32),
            layers_per_block=1, norm_num_groups=4, cross_attention_dim=24, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), conditioning_embedding_out_channels=(8, 16)),
        "AutoencoderKL": make("AutoencoderKL", lambda: image(16), **vae),
        "VQModel": make("VQModel", lambda: image(16), **vae, num_vq_embeddings=20),
        "AutoencoderTiny": make("AutoencoderTiny", lambda: image(16), encoder_block_out_channels=(8, 8, 8, 8),
                                decoder_block_out_channels=(8, 8, 8, 8), num_encoder_blocks=(1, 1, 1, 1),
                                num_decoder_blocks=(1, 1, 1, 1)),
        "AsymmetricAutoencoderKL": make(
            "AsymmetricAutoencoderKL", lambda: image(16), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, down_block_out_channels=(16, 32),
            up_block_out_channels=(16, 32), norm_num_groups=4),
        "DiTTransformer2DModel": make(
            "DiTTransformer2DModel", lambda: {"hidden_states": image(8, 4), "timestep": step,
                                              "class_labels": torch.tensor([1])}, **tiny, sample_size=8,
            num_embeds_ada_norm=10, norm_num_groups=4),
        "PixArtTransformer2DModel": make(
            "PixArtTransformer2DModel", lambda: {"hidden_states": image(8, 4), "timestep": step,
                                                 "encoder_hidden_states": text,
                                                 "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
            **tiny, sample_size=8, caption_channels=24, cross_attention_dim=16, norm_num_groups=4,
            use_additional_conditions=False),
        "SD3Transformer2DModel": make(
            "SD3Transformer2DModel", lambda: {"hidden_states": image(8, 4), "timestep": step,
                                              "encoder_hidden_states": text, "pooled_projections": torch.rand(1, 12)},
            **tiny, sample_size=8, joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=12,
            in_channels=4, out_channels=4),
        "FluxTransformer2DModel": make(
            "FluxTransformer2DModel", lambda: {
                "hidden_states": torch.rand(1, 9, 4), "encoder_hidden_states": text, "timestep": torch.rand(1),
                "pooled_projections": torch.rand(1, 12), "img_ids": torch.zeros(9, 3), "txt_ids": torch.zeros(7, 3)},
            num_attention_heads=2, attention_head_dim=16, num_layers=1, num_single_layers=1, in_channels=4,
            joint_attention_dim=24, pooled_projection_dim=12, axes_dims_rope=(4, 4, 8)),
        "PriorTransformer": make(
            "PriorTransformer", lambda: {"hidden_states": torch.rand(1, 12), "timestep": step,
                                         "proj_embedding": torch.rand(1, 12),
                                         "encoder_hidden_states": torch.rand(1, 7, 12)},
            **tiny, embedding_dim=12, num_embeddings=7),
        "AuraFlowTransformer2DModel": make(
            "AuraFlowTransformer2DModel", lambda: {"hidden_states": image(8, 4), "encoder_hidden_states": text,
                                                   "timestep": torch.rand(1)},
            num_attention_heads=2, attention_head_dim=8, num_mmdit_layers=1, num_single_dit_layers=1, sample_size=8,
            joint_attention_dim=24, caption_projection_dim=16),
        "WanTransformer3DModel": make(
            "WanTransformer3DModel", lambda: {"hidden_states": torch.rand(1, 4, 2, 8, 8), "timestep": step,
                                              "encoder_hidden_states": text},
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=24, freq_dim=16,
            ffn_dim=32, num_layers=1, rope_max_seq_len=16),
        "AutoencoderOobleck": make("AutoencoderOobleck", lambda: torch.rand(1, 2, 64), encoder_hidden_size=8,
                                   downsampling_ratios=[2, 2], channel_multiples=[1, 2], decoder_channels=8,
                                   decoder_input_channels=4),
        "T2IAdapter": make("T2IAdapter", lambda: image(32), channels=[8, 16], num_res_blocks=1, downscale_factor=4),
    }  # fmt: skip


def torchaudio() -> Networks:
    """Its models for speech, separation and synthesis."""
    from torchaudio import models as library

    lengths = torch.tensor([20])
    wav2vec = {
        "extractor_mode": "group_norm", "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 2)],
        "extractor_conv_bias": False, "encoder_embed_dim": 24, "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 8, "encoder_pos_conv_groups": 4, "encoder_num_layers": 2, "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 32, "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.1, "aux_num_out": 11,
    }  # fmt: skip
    return {
        "Conformer": lambda: (library.Conformer(16, 2, 24, 2, 7), (torch.rand(1, 20, 16), lengths)),
        "ConvTasNet": lambda: (library.ConvTasNet(2, 16, 12, 3, 8, 12, 2, 2), torch.rand(1, 1, 400)),
        "DeepSpeech": lambda: (library.DeepSpeech(10, 16, 11), torch.rand(1, 1, 12, 10)),
        "Emformer": lambda: (library.Emformer(16, 2, 24, 2, 4, right_context_length=1),
                             (torch.rand(1, 21, 16), lengths)),
        "HDemucs": lambda: (library.HDemucs(["a", "b"], channels=8, depth=4, nfft=1024), torch.rand(1, 2, 8192)),
        "Wav2Letter": lambda: (library.Wav2Letter(11, "mfcc", 13), torch.rand(1, 13, 200)),
        "WaveRNN": lambda: (library.WaveRNN([2, 2], 16, 4, 1, 12, 12, 3, 10, 8, 8),
                            (torch.rand(1, 1, 20), torch.rand(1, 1, 10, 7))),
        "Wav2Vec2": lambda: (library.wav2vec2_model(**wav2vec), torch.rand(1, 800)),
        "Tacotron2": lambda: (
            library.Tacotron2(n_mels=8, n_symbol=20, symbol_embedding_dim=16, encoder_embedding_dim=16,
                              attention_rnn_dim=16, attention_hidden_dim=8, decoder_rnn_dim=16, prenet_dim=8,
                              postnet_embedding_dim=8),
            (tokens(9, 20), torch.tensor([9]), torch.rand(1, 8, 5), torch.tensor([5]))),
        "SquimObjective": lambda: (
            library.squim_objective_base(), torch.rand(1, 800)),
    }  # fmt: skip


def speechbrain() -> Networks:
    """Its networks for speech and speakers, and its own recurrent layers."""

    def part(path: str) -> Any:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(f"speechbrain.{module}"), name)

    sound, shape = torch.rand(2, 20, 8), (2, 20, 8)
    small = {"d_model": 16, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 1, "d_ffn": 24}
    recurrent = {
        name: lambda name=name: (part(f"nnet.RNN.{name}")(hidden_size=7, input_shape=shape, bidirectional=True), sound)
        for name in ("RNN", "LSTM", "GRU", "LiGRU", "QuasiRNN")
    }

    def asr(**options: Any) -> Made:
        model = part("lobes.models.transformer.TransformerASR.TransformerASR")(20, 8, **small, **options)
        return model, (sound, tokens(6, 20, 2))

    return recurrent | {
        "ECAPA_TDNN": lambda: (part("lobes.models.ECAPA_TDNN.ECAPA_TDNN")(
            8, channels=[16] * 5, lin_neurons=12, attention_channels=8, se_channels=8, res2net_scale=4), sound),
        "Xvector": lambda: (part("lobes.models.Xvector.Xvector")(
            tdnn_channels=[16] * 5, lin_neurons=12, in_channels=8), sound),
        "CRDNN": lambda: (part("lobes.models.CRDNN.CRDNN")(
            input_shape=shape, cnn_channels=[4, 8], rnn_layers=1, rnn_neurons=12, dnn_neurons=12), sound),
        "ContextNet": lambda: (part("lobes.models.ContextNet.ContextNet")(
            shape, out_channels=16, conv_channels=[12, 12], strides=[1, 2], num_blocks=2, num_layers=2), sound),
        "ResNet": lambda: (part("lobes.models.ResNet.ResNet")(
            8, channels=[8, 8, 12, 12], block_sizes=[1, 1, 1, 1], lin_neurons=12), sound),
        "Cnn14": lambda: (part("lobes.models.Cnn14.Cnn14")(64, 12), torch.rand(1, 64, 64)),
        "MetricGAN generator": lambda: (part("lobes.models.MetricGAN.EnhancementGenerator")(257, 200),
                                        (torch.rand(2, 20, 257), torch.tensor([1.0, 1.0]))),
        "MetricGAN discriminator": lambda: (part("lobes.models.MetricGAN.MetricDiscriminator")(),
                                            torch.rand(1, 2, 33, 33)),
        "HifiGAN": lambda: (part("lobes.models.HifiGAN.HifiganGenerator")(
            8, 1, "1", [[1, 3, 5], [1, 3, 5]], [3, 5], [4, 4], 16, [2, 2]), torch.rand(1, 8, 9)),
        "DiffWave": lambda: (part("lobes.models.DiffWave.DiffWave")(8, 2, 8, 2, 5, unconditional=True),
                             (torch.rand(1, 64), torch.tensor([3]))),
        "RNNLM": lambda: (part("lobes.models.RNNLM.RNNLM")(20, 12, rnn_neurons=12, dnn_neurons=12), tokens(6, 20)),
        "TransformerASR": asr,
        "TransformerASR with Conformer": lambda: asr(normalize_before=True, encoder_module="conformer",
            attention_type="RelPosMHAXL",
                                                     kernel_size=7),
        "TransformerASR with Branchformer": lambda: asr(normalize_before=True, encoder_module="branchformer",
            attention_type="RelPosMHAXL",
                                                        kernel_size=7, csgu_linear_units=24),
        "TransformerLM": lambda: (part("lobes.models.transformer.TransformerLM.TransformerLM")(20, **{**small,
            "num_decoder_layers": 0}),
                                  tokens(6, 20)),
        "ConvTasNet mask": lambda: (part("lobes.models.conv_tasnet.MaskNet")(8, 6, 10, 3, 2, 2, 2),
                                    torch.rand(1, 8, 30)),
        "VanillaNN": lambda: (part("lobes.models.VanillaNN.VanillaNN")(shape, dnn_neurons=12), sound),
        "GatedNN": lambda: (part("lobes.models.GatedNN.GatedNN")(shape, neurons=12), sound),
    }  # fmt: skip


def snntorch() -> Networks:
    """Each of its neurons between two layers, over several steps."""
    import snntorch as library

    class Spiking(nn.Module):
        def __init__(self, neuron: nn.Module, width: int = 7) -> None:
            super().__init__()
            self.first, self.neuron, self.last = nn.Linear(6, width), neuron, nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.last(self.spikes(self.neuron(self.first(step)))) for step in x])

        def spikes(self, result: Any) -> Tensor:
            return result[0] if isinstance(result, tuple) else result

    def make(kind: str, *args: Any, **options: Any) -> Callable[[], Made]:
        return lambda: (Spiking(getattr(library, kind)(*args, init_hidden=True, **options)), torch.rand(4, 2, 6))

    return {
        "Leaky": make("Leaky", 0.9), "Leaky, learned": make("Leaky", 0.9, learn_beta=True, learn_threshold=True),
        "Synaptic": make("Synaptic", 0.9, 0.8), "Alpha": make("Alpha", 0.9, 0.8), "Lapicque": make("Lapicque",
        beta=0.9),
        "RLeaky": make("RLeaky", 0.9, linear_features=7), "RSynaptic": make("RSynaptic", 0.9, 0.8, linear_features=7),
        "RLeaky, one to one": make("RLeaky", 0.9, all_to_all=False), "SLSTM": make("SLSTM", 7, 7),
    }  # fmt: skip


def ncps() -> Networks:
    """Liquid and closed-form recurrent networks."""
    from ncps import torch as library
    from ncps.wirings import AutoNCP

    x = torch.rand(2, 5, 6)
    return {
        "CfC": lambda: (library.CfC(6, 9), x), "CfC, wired": lambda: (library.CfC(6, AutoNCP(12, 3)), x),
        "CfC, pure": lambda: (library.CfC(6, 9, mode="pure"), x), "CfC with memory": lambda: (
            library.CfC(6, 9, mixed_memory=True), x),
        "LTC": lambda: (library.LTC(6, 9), x), "LTC, wired": lambda: (library.LTC(6, AutoNCP(12, 3)), x),
    }  # fmt: skip


def zuko() -> Networks:
    """The log-likelihood of each of its flows."""
    from zuko import flows as library

    class Likelihood(nn.Module):
        def __init__(self, flow: nn.Module) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            return self.flow(context).log_prob(x)

    options = {"hidden_features": (11, 11)}
    kinds = {"MAF": options, "NSF": {**options, "bins": 4}, "NICE": options, "RealNVP": options, "SOSPF": options,
             "BPF": options, "NCSF": options, "CNF": options, "GF": {}, "GMM": {}, "NAF": {}, "UNAF": {}}  # fmt: skip
    return {
        kind: lambda kind=kind, own=own: (
            Likelihood(getattr(library, kind)(3, context=4, **own)), (torch.rand(5, 3), torch.rand(5, 4)))
        for kind, own in kinds.items()
    }  # fmt: skip


def nflows() -> Networks:
    """The log-likelihood of a flow with each of its transformations."""
    from nflows import transforms as library
    from nflows.distributions.normal import StandardNormal
    from nflows.flows import Flow
    from nflows.nn.nets import ResidualNet

    class Likelihood(nn.Module):
        def __init__(self, transform: nn.Module) -> None:
            super().__init__()
            self.flow = Flow(library.CompositeTransform([transform, library.ReversePermutation(6)]),
                             StandardNormal([6]))  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return self.flow.log_prob(x)

    mask = torch.tensor([1, -1, 1, -1, 1, -1])

    def coupled(kind: str, **options: Any) -> nn.Module:
        def network(into: int, out: int) -> nn.Module:
            return ResidualNet(into, out, hidden_features=11)

        return getattr(library, kind)(mask, network, **options)

    kinds: dict[str, Callable[[], nn.Module]] = {
        "MaskedAffineAutoregressive": lambda: library.MaskedAffineAutoregressiveTransform(6, 11),
        "MaskedPiecewiseRationalQuadratic": lambda: library.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            6, 11, num_bins=4, tails="linear", tail_bound=3.0),
        "AffineCoupling": lambda: coupled("AffineCouplingTransform"),
        "AdditiveCoupling": lambda: coupled("AdditiveCouplingTransform"),
        "PiecewiseRationalQuadraticCoupling": lambda: coupled(
            "PiecewiseRationalQuadraticCouplingTransform", num_bins=4, tails="linear"),
        "LULinear": lambda: library.LULinear(6), "QRLinear": lambda: library.QRLinear(6, 3),
        "SVDLinear": lambda: library.SVDLinear(6, 2),
        "HouseholderSequence": lambda: library.HouseholderSequence(6, 3), "ActNorm": lambda: library.ActNorm(6),
        "BatchNorm": lambda: library.BatchNorm(6),
    }  # fmt: skip
    return {name: lambda make=make: (Likelihood(make()), torch.rand(5, 6)) for name, make in kinds.items()}


def monai() -> Networks:
    """Networks for volumes and medical images, most of them in two dimensions."""
    from monai.networks import nets as library

    plane = image(32, 1)
    stages = {"channels": (4, 8, 16), "strides": (2, 2)}
    flat = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}

    def make(kind: str, given: Any = plane, **options: Any) -> Callable[[], Made]:
        return lambda: (getattr(library, kind)(**options), given)

    label = torch.zeros(1, 3, 32, 32)
    diffusion = {**flat, "out_channels": 1, "channels": (8, 16), "num_res_blocks": 1, "norm_num_groups": 4,
                 "attention_levels": (False, True), "num_head_channels": 8}  # fmt: skip
    step = torch.tensor([3])
    vae = {**flat, "out_channels": 1, "channels": (8, 16), "latent_channels": 3, "num_res_blocks": (1, 1),
           "norm_num_groups": 4, "attention_levels": (False, True)}  # fmt: skip
    return {
        "UNet": make("UNet", **flat, **stages, num_res_units=1), "AttentionUnet": make("AttentionUnet", **flat,
        **stages),
        "BasicUNet": make("BasicUNet", **flat, features=(4, 4, 8, 8, 8, 4)),
        "BasicUNetPlusPlus": make("BasicUNetPlusPlus", **flat, features=(4, 4, 8, 8, 8, 4)),
        "AutoEncoder": make("AutoEncoder", **flat, channels=(4, 8), strides=(2, 2)),
        "DenseNet121": make("DenseNet121", **flat),
        "VarAutoEncoder": make("VarAutoEncoder", spatial_dims=2, in_shape=(1, 32, 32), out_channels=1, latent_size=5,
                               channels=(4, 8), strides=(2, 2)),
        "DynUNet": make("DynUNet", **flat, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2],
                        filters=[4, 8, 8]),
        "SegResNet": make("SegResNet", **flat, init_filters=8), "SegResNetDS": make("SegResNetDS", **flat,
        init_filters=8),
        "SegResNetVAE": make("SegResNetVAE", **flat, init_filters=8, input_image_size=(32, 32)),
        "VNet": make("VNet", image(32, 1), spatial_dims=2), "HighResNet": make("HighResNet", **flat),
        "EfficientNetBN": make("EfficientNetBN", model_name="efficientnet-b0", spatial_dims=2, in_channels=1,
                               num_classes=3, pretrained=False),
        "SEResNet50": make("SEResNet50", spatial_dims=2, in_channels=1, num_classes=3),
        "UNETR": make("UNETR", **flat, img_size=32, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2),
        "SwinUNETR": make("SwinUNETR", image(64, 1), **flat, feature_size=12, depths=(1, 1, 1, 1),
                          num_heads=(1, 1, 2, 2)),
        "ViT": make("ViT", in_channels=1, img_size=32, patch_size=8, hidden_size=24, mlp_dim=32, num_layers=2,
                    num_heads=2, classification=True, spatial_dims=2),
        "ViTAutoEnc": make("ViTAutoEnc", in_channels=1, img_size=32, patch_size=4, hidden_size=24, mlp_dim=32,
                           num_layers=2, num_heads=2, spatial_dims=2),
        "Regressor": make("Regressor", in_shape=(1, 32, 32), out_shape=(2,), **stages),
        "Classifier": make("Classifier", in_shape=(1, 32, 32), classes=3, **stages),
        "Generator": make("Generator", torch.rand(1, 5), latent_shape=(5,), start_shape=(4, 4, 4), channels=(4, 4),
                          strides=(2, 2)),
        "AutoencoderKL": make("AutoencoderKL", **vae),
        "SPADEAutoencoderKL": make("SPADEAutoencoderKL", (plane, label), label_nc=3, **vae),
        "DiffusionModelUNet": make("DiffusionModelUNet", (plane, step), **diffusion),
        "SPADEDiffusionModelUNet": make("SPADEDiffusionModelUNet", (plane, step, label), label_nc=3, **diffusion),
        "VQVAE": make("VQVAE", **{**flat, "out_channels": 1}, channels=(8, 8), num_res_channels=(8, 8),
        num_res_layers=1,
                      downsample_parameters=((2, 4, 1, 1),) * 2, upsample_parameters=((2, 4, 1, 1, 0),) * 2,
                      num_embeddings=9, embedding_dim=8),
        "PatchDiscriminator": make("PatchDiscriminator", spatial_dims=2, channels=8, in_channels=1),
        "MedNeXt": make("MedNeXt", spatial_dims=2, init_filters=4, in_channels=1, out_channels=2,
                        blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1, 1)),
        "DecoderOnlyTransformer": make("DecoderOnlyTransformer", tokens(), num_tokens=50, max_seq_len=16,
                                       attn_layers_dim=24, attn_layers_depth=2, attn_layers_heads=2),
        "VoxelMorph": lambda: (library.VoxelMorph(), (torch.rand(1, 1, 32, 32, 32), torch.rand(1, 1, 32, 32, 32))),
        "FullyConnectedNet": make("FullyConnectedNet", torch.rand(3, 6), in_channels=6, out_channels=2,
                                  hidden_channels=[8, 8]),
        "HoVerNet": make("HoVerNet", image(256, 3), out_classes=3),
    }  # fmt: skip
