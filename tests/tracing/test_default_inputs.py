"""Tests of the inputs that networks are traced with when there are none given."""

import pytest
import torch
from torch import nn

from ghn_pyg import from_module
from ghn_pyg.tracing.default_inputs import default_inputs

transformers = pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 40,
}
VISION = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40,
          "image_size": 32, "patch_size": 8}  # fmt: skip


def shapes(model):
    args, kwargs = default_inputs(model)
    assert kwargs.pop("use_cache", False) is False
    return [tuple(x.shape) for x in args], {name: tuple(x.shape) for name, x in kwargs.items()}


def test_networks_of_images():
    assert shapes(nn.Conv2d(3, 5, 1)) == ([(1, 3, 224, 224)], {})
    model = nn.Conv2d(1, 5, 1)
    model.default_cfg = {"input_size": (1, 37, 41)}
    assert shapes(model) == ([(1, 1, 37, 41)], {})
    assert shapes(nn.DataParallel(model)) == ([(1, 1, 37, 41)], {})


MODELS = {
    "BERT": (
        lambda: transformers.BertModel(transformers.BertConfig(**SMALL)), {"input_ids": (1, 16)}
    ),
    "T5": (
        lambda: transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=101, d_model=24, d_kv=12, d_ff=40, num_layers=1, num_heads=2)
        ),
        {"input_ids": (1, 16), "decoder_input_ids": (1, 16)},
    ),
    "ViT": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)), {"pixel_values": (1, 3, 32, 32)}
    ),
    "CLIP": (
        lambda: transformers.CLIPModel(
            transformers.CLIPConfig(text_config={**SMALL, "eos_token_id": 7}, vision_config=VISION, projection_dim=20)
        ),
        {"input_ids": (1, 16), "pixel_values": (1, 3, 32, 32)},
    ),
    "Whisper": (
        lambda: transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(
                vocab_size=101, num_mel_bins=16, d_model=24, encoder_layers=1, decoder_layers=1,
                encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=40,
                max_source_positions=30, max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                decoder_start_token_id=1,
            )
        ),
        {"input_features": (1, 16, 60), "decoder_input_ids": (1, 16)},
    ),
    "wav2vec 2.0": (
        lambda: transformers.Wav2Vec2Model(
            transformers.Wav2Vec2Config(
                **SMALL, conv_dim=[8] * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2
            )
        ),
        {"input_values": (1, 16_000)},
    ),
    "VideoMAE": (
        lambda: transformers.VideoMAEModel(transformers.VideoMAEConfig(**VISION, num_frames=4)),
        {"pixel_values": (1, 4, 3, 32, 32)},
    ),
    "a main input that stands for several": (
        lambda: transformers.PerceiverForMaskedLM(
            transformers.PerceiverConfig(
                vocab_size=101, num_latents=7, d_latents=24, d_model=40, num_blocks=1, num_self_attends_per_block=1,
                num_self_attention_heads=2, num_cross_attention_heads=2, max_position_embeddings=32, qk_channels=24,
                v_channels=24,
            )
        ),
        {"input_ids": (1, 16)},
    ),
    "images with a text that describes them": (
        lambda: transformers.BlipForConditionalGeneration(blip()),
        {"pixel_values": (1, 3, 32, 32), "input_ids": (1, 16)},
    ),
    "images with a question and its answer": (
        lambda: transformers.BlipForQuestionAnswering(blip()),
        {"input_ids": (1, 16), "pixel_values": (1, 3, 32, 32), "decoder_input_ids": (1, 16)},
    ),
    "images of a part that declares text": (
        lambda: transformers.Idefics3VisionTransformer(transformers.Idefics3VisionConfig(**VISION)),
        {"pixel_values": (1, 3, 32, 32)},
    ),
}  # fmt: skip


def blip():
    text = {**SMALL, "encoder_hidden_size": 24, "sep_token_id": 2, "bos_token_id": 3}
    return transformers.BlipConfig(text_config=text, vision_config=VISION, projection_dim=20)


def test_required_arguments_are_given():
    class Located(transformers.BertModel):
        def forward(self, input_ids, bbox, other=None, *args, **kwargs):
            return super().forward(input_ids + bbox.sum(-1))

    model = Located(transformers.BertConfig(**SMALL))
    model.config.vision_config = None
    assert default_inputs(model)[1].keys() == {"input_ids", "bbox"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("build", "expected"), MODELS.values(), ids=MODELS)
def test_models_of_transformers(build, expected):
    model = build()
    assert shapes(model) == ([], expected)
    graph = from_module(model)
    unused = [name for name, reason in graph.kept.items() if "does not use it" in reason]
    assert set(unused) <= {"masked_spec_embed"}


def test_token_ids_end_with_the_end_of_sequence_token():
    model = transformers.BertModel(transformers.BertConfig(**SMALL, eos_token_id=7))
    assert default_inputs(model)[1]["input_ids"].tolist() == [[1] * 15 + [7]]
    assert default_inputs(model)[1]["input_ids"].dtype == torch.long
