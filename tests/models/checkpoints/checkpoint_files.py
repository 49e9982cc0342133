"""Published state dicts of any size; ``test_published_keys.py`` compares their names and shapes with the real ones."""

import argparse

import torch

from ghn_pyg.models.config import GHNConfig

# Sizes that differ from one another, so that swapped axes are found; 9 spatial rows belong to kernels of 11.
TINY = GHNConfig(hidden_channels=12, max_channels=5, max_kernel_size=11, num_classes=7, layers=2, heads=3)
TINY2 = GHNConfig(
    encoder="ghn2", hidden_channels=8, max_channels=5, max_kernel_size=11, num_classes=7, layers=0, heads=0,
    kernel_crop="corner",
)  # fmt: skip


def published_shapes(config):
    """{published name: shape}, by the text of the papers."""
    d, c, s, k = config.hidden_channels, config.max_channels, config.max_kernel_size, config.num_classes
    shapes = {
        "embed.weight": [15, d],
        "shape_enc.embed_spatial.weight": [{11: 9, 16: 11}[s], d // 4],
        "shape_enc.embed_channel.weight": [392, d // 4],
        **linear("decoder.fc.0", 4 * d * s * s, d),
        **linear("decoder.conv.0", 8 * d, 4 * d),
        **linear("decoder.conv.2", c * c, 8 * d),
        **linear("decoder.class_layer_predictor.1", k, c),
        **linear("decoder_1d.fc.0", 2 * d, d),
        **linear("decoder_1d.fc.2", 2 * c, 2 * d),
        **linear("bias_class.1", k, c),
    }
    if config.final_norm:
        shapes |= norm("ln", d)
    return shapes | (graphormer(d, config) if config.encoder == "ghn3" else gated(d, config.encoder))


def linear(name, out, into):
    return {f"{name}.weight": [out, into], f"{name}.bias": [out]}


def norm(name, width):
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def graphormer(d, config):
    shapes = {
        "gnn.0.centrality_embed_in.weight": [101, d],
        "gnn.0.centrality_embed_out.weight": [101, d],
        "gnn.0.input_dist_embed.weight": [1001, d],
        "gnn.0.attn.edge_embed.embed.weight": [257, d],
        **linear("gnn.0.attn.proj_e.0", d, 2 * d),
        **linear("gnn.0.attn.proj_e.2", config.heads, d),
    }
    for layer in range(config.layers):
        shapes |= norm(f"gnn.{layer}.ln1", d) | norm(f"gnn.{layer}.ln2", d)
        shapes |= {f"gnn.{layer}.attn.to_qkv.weight": [3 * d, d], **linear(f"gnn.{layer}.attn.to_out.0", d, d)}
        shapes |= linear(f"gnn.{layer}.ff.net.0", 4 * d, d) | linear(f"gnn.{layer}.ff.net.3", d, 4 * d)
    return shapes


def gated(d, encoder):
    hidden = d // 2 if encoder == "ghn2" else d
    shapes = {}
    for block in {"ghn2": ("mlp", "mlp_ve"), "ghn1": ("mlp",), "mlp": ("mlp",)}[encoder]:
        shapes |= linear(f"gnn.{block}.fc.0", hidden, d) | linear(f"gnn.{block}.fc.2", d, hidden)
    if encoder == "mlp":
        return shapes
    gru = {"weight_ih": [3 * d, d], "weight_hh": [3 * d, d], "bias_ih": [3 * d], "bias_hh": [3 * d]}
    return shapes | {f"gnn.gru.{name}": shape for name, shape in gru.items()}


def published_state(config, seed=0):
    """Random tensors by published name, in the form of locally trained models (linear layers for GHN-2, too)."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in published_shapes(config).items()}


def hub_form(state):
    """The same with the three embeddings of the first layer at the top level."""
    moved = ("centrality_embed_in", "centrality_embed_out", "input_dist_embed")
    return {name.removeprefix("gnn.0.") if name.split(".")[-2] in moved else name: t for name, t in state.items()}


def convolutions(state):
    """The same with the decoder's linear layers as 1×1 convolutions."""
    names = ("decoder.conv.0.weight", "decoder.conv.2.weight", "decoder.class_layer_predictor.1.weight")
    return {name: t[:, :, None, None] if name in names else t for name, t in state.items()}


def training_checkpoint(state, **config):
    """The file of the published training code."""
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
