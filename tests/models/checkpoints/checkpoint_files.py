"""Published state dicts of any size, and where they are checked against the real ones."""

import argparse
import json
from pathlib import Path

import torch

from ghn_pyg.models.config import GHNConfig

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "state_dict_shapes.json").read_text())

# Sizes that differ from one another, so that no swapped axis passes; 9 spatial rows belong to kernels of 11.
TINY = GHNConfig(hidden_channels=12, max_channels=5, max_kernel_size=11, num_classes=7, layers=2, heads=3)
TINY2 = GHNConfig(
    "ghn2",
    hidden_channels=8,
    max_channels=5,
    max_kernel_size=11,
    num_classes=7,
    layers=0,
    heads=0,
    kernel_crop="corner",
)


def published_shapes(config):
    """{published name: shape}, by the text of the papers."""
    d, c, s, k = config.hidden_channels, config.max_channels, config.max_kernel_size, config.num_classes
    shapes = {"ln.weight": [d], "ln.bias": [d]} if config.final_norm else {}
    shapes |= {
        "embed.weight": [15, d],
        "shape_enc.embed_spatial.weight": [{11: 9, 16: 11}[s], d // 4],
        "shape_enc.embed_channel.weight": [392, d // 4],
    }
    shapes |= _graphormer(d, config) if config.encoder == "ghn3" else _gated(d, config)
    return shapes | {
        "decoder.fc.0.weight": [4 * d * s * s, d],
        "decoder.fc.0.bias": [4 * d * s * s],
        "decoder.conv.0.weight": [8 * d, 4 * d],
        "decoder.conv.0.bias": [8 * d],
        "decoder.conv.2.weight": [c * c, 8 * d],
        "decoder.conv.2.bias": [c * c],
        "decoder.class_layer_predictor.1.weight": [k, c],
        "decoder.class_layer_predictor.1.bias": [k],
        "decoder_1d.fc.0.weight": [2 * d, d],
        "decoder_1d.fc.0.bias": [2 * d],
        "decoder_1d.fc.2.weight": [2 * c, 2 * d],
        "decoder_1d.fc.2.bias": [2 * c],
        "bias_class.1.weight": [k, c],
        "bias_class.1.bias": [k],
    }


def _graphormer(d, config):
    shapes = {
        "gnn.0.centrality_embed_in.weight": [101, d],
        "gnn.0.centrality_embed_out.weight": [101, d],
        "gnn.0.input_dist_embed.weight": [1001, d],
        "gnn.0.attn.edge_embed.embed.weight": [257, d],
        "gnn.0.attn.proj_e.0.weight": [d, 2 * d],
        "gnn.0.attn.proj_e.0.bias": [d],
        "gnn.0.attn.proj_e.2.weight": [config.heads, d],
        "gnn.0.attn.proj_e.2.bias": [config.heads],
    }
    for layer in range(config.layers):
        shapes |= {
            f"gnn.{layer}.ln1.weight": [d],
            f"gnn.{layer}.ln1.bias": [d],
            f"gnn.{layer}.attn.to_qkv.weight": [3 * d, d],
            f"gnn.{layer}.attn.to_out.0.weight": [d, d],
            f"gnn.{layer}.attn.to_out.0.bias": [d],
            f"gnn.{layer}.ln2.weight": [d],
            f"gnn.{layer}.ln2.bias": [d],
            f"gnn.{layer}.ff.net.0.weight": [4 * d, d],
            f"gnn.{layer}.ff.net.0.bias": [4 * d],
            f"gnn.{layer}.ff.net.3.weight": [d, 4 * d],
            f"gnn.{layer}.ff.net.3.bias": [d],
        }
    return shapes


def _gated(d, config):
    hidden = d // 2 if config.encoder == "ghn2" else d
    blocks = {"ghn2": ("mlp", "mlp_ve"), "ghn1": ("mlp",), "mlp": ("mlp",)}[config.encoder]
    shapes = {}
    for block in blocks:
        shapes |= {
            f"gnn.{block}.fc.0.weight": [hidden, d],
            f"gnn.{block}.fc.0.bias": [hidden],
            f"gnn.{block}.fc.2.weight": [d, hidden],
            f"gnn.{block}.fc.2.bias": [d],
        }
    if config.encoder != "mlp":
        shapes |= {f"gnn.gru.{name}": shape for name, shape in _gru(d).items()}
    return shapes


def _gru(d):
    return {"weight_ih": [3 * d, d], "weight_hh": [3 * d, d], "bias_ih": [3 * d], "bias_hh": [3 * d]}


def published_state(config, seed=0):
    """Random tensors by published name, in the form of locally trained models (linear layers for GHN-2, too)."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in published_shapes(config).items()}


def hub_form(state):
    """The same with the three embeddings of the first layer on top."""
    moved = ("centrality_embed_in", "centrality_embed_out", "input_dist_embed")
    return {name.removeprefix("gnn.0.") if name.split(".")[-2] in moved else name: t for name, t in state.items()}


def convolutions(state):
    """The same with the decoder's linear layers as 1x1 convolutions."""
    names = ("decoder.conv.0.weight", "decoder.conv.2.weight", "decoder.class_layer_predictor.1.weight")
    return {name: t[:, :, None, None] if name in names else t for name, t in state.items()}


def training_checkpoint(state, **config):
    """What published training code saves."""
    return {
        "state_dict": state,
        "config": config,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "epoch": 4,
        "step": 5,
        "args": argparse.Namespace(heads=8, name="ghn3tm8", ckpt=None, nested=argparse.Namespace(lr=0.1)),
    }


def same(first, second):
    """Whether two state dicts hold the same names and numbers."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
