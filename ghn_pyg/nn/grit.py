"""Attention with states of pairs of nodes, which begin as relative random walks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Blocks
from .transformer_layer import LayerOptions, TransformerLayer


class RelativeWalkEncoding(nn.Module):
    r"""Embeds the random-walk probabilities of nodes and of pairs of nodes (GRIT, arXiv 2305.17589).

    Args:
        steps: Number :math:`K` of steps.
        channels: Width :math:`d`.

    Shapes:
        - **input:** probabilities :math:`(\sum_g N_g^2, K)` as :class:`~ghn_pyg.transforms.AddRelativeWalks` adds them,
          and the ``batch`` :math:`(N,)` of the nodes, or its blocks
        - **output:** encodings of nodes :math:`(N, d)`, to be added to them, and the states of the pairs of each block,
          :math:`(G, n, n, d)`

    Example:
        >>> walks = torch.eye(2).flatten()[:, None]
        >>> nodes, pairs = RelativeWalkEncoding(steps=1, channels=8)(walks, Blocks.of(None, 2))
        >>> nodes.shape, [part.shape for part in pairs]
        (torch.Size([2, 8]), [torch.Size([1, 2, 2, 8])])
    """

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        self.nodes = nn.Linear(steps, channels, bias=False)
        self.pairs = nn.Linear(steps, channels, bias=False)

    def reset_parameters(self) -> None:
        """Draws all weights anew."""
        self.nodes.reset_parameters()
        self.pairs.reset_parameters()

    def forward(
        self, walks: Tensor, batch: Tensor | Blocks, batch_size: int | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Embeds the probabilities of a batch."""
        blocks = Blocks.of_batch(batch, batch_size)
        parts = blocks.split_pairs(walks)
        loops = blocks.join([part.diagonal(dim1=1, dim2=2).mT for part in parts])
        return self.nodes(loops), [self.pairs(part) for part in parts]


class GRITLayer(TransformerLayer):
    r"""A layer of GRIT (arXiv 2305.17589): attention from states of pairs of nodes, which are updated too.

    .. math::
        \hat e_{uv} &= \mathrm{ReLU}(\rho((W_Q x_u + W_K x_v) \odot W_{Ew} e_{uv}) + W_{Eb} e_{uv}), \qquad
        \rho(a) = \sqrt{\mathrm{ReLU}(a)} - \sqrt{\mathrm{ReLU}(-a)} \\
        \alpha_{uv} &= \mathrm{softmax}_v(w_A^\top \hat e_{uv}), \qquad
        \hat x_u = \sum_v \alpha_{uv} (W_V x_v + W_{Ev} \hat e_{uv}) \\
        x_u &\leftarrow W_O (\theta_1 \odot \hat x_u + \log(1 + \deg u)\, \theta_2 \odot \hat x_u), \qquad
        e_{uv} \leftarrow W_{Eo} \hat e_{uv}

    for each head, with residual connections and norms after each update, and a feed-forward network. The norm of pairs
    is a layer norm. Memory grows with :math:`N^2 d`.

    Args:
        channels: Width :math:`d`, of nodes and pairs.
        heads: Attention heads :math:`H`.
        dropout: Dropout probability of updates, and of attention weights by default.
        options: Options of :class:`~ghn_pyg.nn.TransformerLayer`; the paper's are post-norm with batch norms, a
            feed-forward network of width :math:`2d` with ReLU, and biases of queries, keys and values.

    Shapes:
        - **input:** nodes :math:`(N, d)`, states of the pairs of each block :math:`(G, n, n, d)`, degrees
          :math:`(N,)`, and the graph ``batch`` of each node (one graph by default)
        - **output:** nodes and states of pairs, as they came

    Example:
        >>> layer, encoding = GRITLayer(channels=8, heads=2), RelativeWalkEncoding(steps=1, channels=8)
        >>> nodes, pairs = encoding(torch.eye(2).flatten()[:, None], Blocks.of(None, 2))
        >>> x, pairs = layer(nodes, pairs, torch.ones(2))
        >>> x.shape, pairs[0].shape
        (torch.Size([2, 8]), torch.Size([1, 2, 2, 8]))
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0, **options: Unpack[LayerOptions]) -> None:
        paper: LayerOptions = {
            "ff_channels": 2 * channels,
            "activation": "relu",
            "qkv_bias": True,
            "norm": "batch",
            "norm_first": False,
        }
        with_options: LayerOptions = {**paper, **options}
        super().__init__(channels, heads, dropout, **with_options)
        width = channels // heads
        self.pair_in = nn.Linear(channels, 2 * channels)
        self.pair_out = nn.Linear(channels, channels)
        self.pair_norm = nn.LayerNorm(channels)
        self.score = nn.Parameter(torch.empty(heads, width))
        self.pair_value = nn.Parameter(torch.empty(heads, width, width))
        self.degree = nn.Parameter(torch.empty(2, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights anew; at first degrees count as much as their absence."""
        super().reset_parameters()
        nn.init.xavier_normal_(self.score)
        nn.init.xavier_normal_(self.pair_value)
        nn.init.ones_(self.degree)

    def forward(
        self, x: Tensor, pairs: Sequence[Tensor], degree: Tensor, batch: Tensor | Blocks | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Applies the layer."""
        blocks, states = Blocks.of(batch, x.size(0)), list[Tensor]()
        scale = torch.log1p(degree.to(x.dtype))[:, None]

        def attend(x: Tensor) -> Tensor:
            attended, pair_updates = self._attend(x, pairs, blocks)
            states.extend(
                self.pair_norm(pair + F.dropout(update, self.dropout, self.training))
                for pair, update in zip(pairs, pair_updates, strict=True)
            )
            return self.out(attended * self.degree[0] + attended * scale * self.degree[1])

        return self.update(x, blocks, attend), states

    def _attend(self, x: Tensor, pairs: Sequence[Tensor], blocks: Blocks) -> tuple[Tensor, list[Tensor]]:
        outputs, updates = [], []
        query, key, value = self.heads_of(x)
        for block, pair in zip(blocks, pairs, strict=True):
            q, k, v = (block.split(part) for part in (query, key, value))
            factor, summand = self.pair_in(pair).unflatten(-1, (2, self.heads, -1)).unbind(-3)
            product = (q[:, :, None] + k[:, None]) * factor
            # The root's slope at 0 is infinite: it begins a little above.
            root = (product.relu() + 1e-12).sqrt() - ((-product).relu() + 1e-12).sqrt()
            state = (root + summand).relu()
            score = torch.einsum("gijhc,hc->hgij", state, self.score)
            weight = block.fill_padding(score, -torch.inf).softmax(-1)
            weight = F.dropout(weight, self.dropout_of_attention())
            attended = torch.einsum("hgij,gjhc->gihc", weight, v)
            along = torch.einsum("hgij,gijhc->gihc", weight, state)
            outputs.append((attended + torch.einsum("gihc,hcd->gihd", along, self.pair_value)).flatten(2))
            updates.append(self.pair_out(state.flatten(-2)))
        return blocks.join(outputs), updates
