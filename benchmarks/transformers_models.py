"""Small models of Transformers, made from their configurations."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from torch import nn

_LAYERS: Final = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
_TEXT: Final = {**_LAYERS, "vocab_size": 101}
_POSITIONS: Final = {**_TEXT, "max_position_embeddings": 64}
_ENDS: Final = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_IMAGES: Final = {**_LAYERS, "image_size": 32, "patch_size": 8}


def _model(cls: str, config: str, **settings: Any) -> tuple[Callable[[], nn.Module], None]:
    """What makes the model, which is traced with default inputs."""

    def make() -> nn.Module:
        library = importlib.import_module("transformers")
        model: nn.Module = getattr(library, cls)(getattr(library, config)(**settings))
        return model

    return make, None


MODELS: Final = {
    "BERT": _model("BertForSequenceClassification", "BertConfig", **_POSITIONS),
    "RoBERTa": _model("RobertaForMaskedLM", "RobertaConfig", **_POSITIONS),
    "GPT-2": _model("GPT2LMHeadModel", "GPT2Config", vocab_size=101, n_embd=48, n_layer=2, n_head=4, n_positions=64,
                    **_ENDS),
    "Llama": _model("LlamaForCausalLM", "LlamaConfig", **_TEXT, num_key_value_heads=2),
    "Mistral": _model("MistralForCausalLM", "MistralConfig", **_TEXT, num_key_value_heads=2),
    "Mixtral": _model("MixtralForCausalLM", "MixtralConfig", **_TEXT, num_key_value_heads=2, num_local_experts=4),
    "T5": _model("T5ForConditionalGeneration", "T5Config", vocab_size=101, d_model=48, d_ff=96, d_kv=12, num_layers=2,
                 num_heads=4),
    "ViT": _model("ViTForImageClassification", "ViTConfig", **_IMAGES),
    "Swin": _model("SwinForImageClassification", "SwinConfig", image_size=32, patch_size=2, embed_dim=12, depths=[1, 1],
                   num_heads=[2, 2], window_size=4),
    "ConvNeXt": _model("ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[8, 16, 24, 32],
                       depths=[1, 1, 2, 1], image_size=64),
    "CLIP": _model("CLIPModel", "CLIPConfig", text_config={**_POSITIONS, **_ENDS}, vision_config=_IMAGES,
                   projection_dim=40),
    "Whisper": _model("WhisperForConditionalGeneration", "WhisperConfig", vocab_size=101, num_mel_bins=16, d_model=48,
                      encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                      encoder_ffn_dim=96, decoder_ffn_dim=96, max_source_positions=30, max_target_positions=32,
                      decoder_start_token_id=1, **_ENDS),
    "Mamba": _model("MambaForCausalLM", "MambaConfig", vocab_size=101, hidden_size=48, num_hidden_layers=2,
                    state_size=8, **_ENDS),
}  # fmt: skip
