"""Calls of the functions of layers, pools, means and norms: (function, args, kwargs)."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tracing.helpers import weight

A = torch.rand(2, 3, 5, 7)
IDS = torch.tensor([[4, 1, 0], [2, 2, 3]])
TOKENS = torch.rand(2, 7, 5)
LINE, MAP, VOLUME = torch.rand(2, 3, 23), torch.rand(2, 3, 17, 13), torch.rand(2, 3, 7, 11, 13)
QUERY, KEY, VALUE = torch.rand(2, 3, 7, 5), torch.rand(2, 3, 11, 5), torch.rand(2, 3, 11, 13)

BY_RANK = (
    (LINE, F.conv1d, F.conv_transpose1d),
    (MAP, F.conv2d, F.conv_transpose2d),
    (VOLUME, F.conv3d, F.conv_transpose3d),
)
CONVOLUTIONS = [
    *(
        (conv, (x, weight(5, 3, *(kernel,) * (x.dim() - 2))), {"stride": stride, "padding": padding})
        for x, conv, _ in BY_RANK
        for kernel, stride, padding in itertools.product((1, 2, 3), (1, 2, 3), (0, 1, 2))
    ),
    *(
        (conv, (x, weight(5, 3, *(kernel,) * (x.dim() - 2))), {"dilation": dilation, "padding": padding})
        for x, conv, _ in BY_RANK
        for kernel, dilation, padding in itertools.product((2, 3), (2, 3), (2, "same", "valid"))
    ),
    *((conv, (x, weight(6, 1, *(3,) * (x.dim() - 2)), weight(6)), {"groups": 3}) for x, conv, _ in BY_RANK),
    *((conv, (x[0], weight(5, 3, *(3,) * (x.dim() - 2))), {}) for x, conv, _ in BY_RANK),
    (F.conv2d, (MAP, weight(5, 3, 3, 2), weight(5), (2, 1), (0, 3), (1, 5), 1), {}),
    (F.conv2d, (MAP, weight(5, 3, 3, 3)), {"stride": (2,), "padding": [1]}),
    (F.conv2d, (MAP, torch.rand(5, 3, 3, 3)), {}),
    (F.conv3d, (VOLUME, weight(5, 3, 1, 2, 3)), {"stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": (3, 2, 1)}),
    (F.conv1d, (LINE, weight(5, 3, 3)), {"stride": (2,), "padding": (1,), "dilation": (2,)}),
]
TRANSPOSED = [
    *((conv, (x, weight(3, 5, *(3,) * (x.dim() - 2))), {"stride": 3, "output_padding": 2}) for x, _, conv in BY_RANK),
    *((conv, (x, weight(3, 2, *(3,) * (x.dim() - 2)), weight(6)), {"groups": 3}) for x, _, conv in BY_RANK),
    *((conv, (x[0], weight(3, 5, *(3,) * (x.dim() - 2))), {}) for x, _, conv in BY_RANK),
    (F.conv_transpose2d, (MAP, weight(3, 5, 2, 3), None, (3, 2), (1, 0), (2, 1), 1, (1, 2)), {}),
]
LINEAR = [
    (F.linear, (TOKENS, weight(11, 5)), {}),
    (F.linear, (TOKENS, weight(11, 5), weight(11)), {}),
    (F.linear, (TOKENS[0, 0], weight(11, 5)), {}),
    (F.linear, (TOKENS, weight(5)), {}),
    (F.linear, (TOKENS, torch.rand(11, 5)), {}),
    (F.embedding, (IDS, weight(5, 7)), {}),
    (F.embedding, (IDS, weight(5, 7)), {"padding_idx": 0, "max_norm": 1.0}),
    (F.embedding_bag, (IDS[0], weight(5, 7), torch.tensor([0, 2])), {}),
    (F.embedding_bag, (IDS[0], weight(5, 7)), {"offsets": torch.tensor([0, 2, 3]), "include_last_offset": True}),
]
FUSED = [
    *((F.scaled_dot_product_attention, (QUERY[at], KEY[at], VALUE[at]), {}) for at in ((), 0, (0, 0))),
    (F.scaled_dot_product_attention, (QUERY, KEY, VALUE, torch.rand(7, 11)), {}),
    (F.scaled_dot_product_attention, (QUERY, KEY, VALUE), {"attn_mask": torch.rand(2, 1, 7, 11) > 0.1, "scale": 2.0}),
    (F.scaled_dot_product_attention, (QUERY[:1], KEY, VALUE), {}),
    (F.scaled_dot_product_attention, (QUERY, KEY[:, :1], VALUE[:, :1]), {"enable_gqa": True}),
    (F.scaled_dot_product_attention, (), {"query": QUERY, "key": KEY, "value": VALUE}),
]
POOLS = [
    *((pool, (x, 3), {}) for x in (LINE, LINE[0]) for pool in (F.max_pool1d, F.avg_pool1d, torch.max_pool1d)),
    *((pool, (x, 3), {}) for x in (MAP, MAP[0]) for pool in (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)),
    *((pool, (x, 3), {}) for x in (VOLUME, VOLUME[0]) for pool in (F.max_pool3d, F.avg_pool3d, torch.max_pool3d)),
    (F.max_pool1d, (LINE, (3,), (2,)), {}),
    (F.max_pool2d, (MAP, 3, 2, 1, 1, True), {}),
    (F.max_pool2d, (MAP,), {"kernel_size": [3, 2], "stride": [], "padding": [1], "dilation": 2, "ceil_mode": True}),
    (F.max_pool3d, (VOLUME, (2, 3, 5), (1, 2, 3), (1, 1, 2)), {}),
    (F.avg_pool2d, (MAP, 3, 2, 1, True, False), {}),
    (F.avg_pool2d, (MAP, 3), {"count_include_pad": False, "divisor_override": 2}),
    *((pool, (MAP, 3), {"return_indices": True}) for pool in (F.max_pool2d, F.adaptive_max_pool2d)),
    *((pool, (LINE, 3), {"return_indices": True}) for pool in (F.max_pool1d, F.adaptive_max_pool1d)),
    *((pool, (VOLUME, 3), {"return_indices": True}) for pool in (F.max_pool3d, F.adaptive_max_pool3d)),
    (torch.max_pool1d_with_indices, (LINE, 3), {}),
    (F.lp_pool1d, (LINE, 2, 3), {}),
    (F.lp_pool2d, (MAP, 2.0, (2, 3)), {"stride": 2, "ceil_mode": True}),
    (F.lp_pool3d, (VOLUME, 3, 2), {}),
    (F.fractional_max_pool2d, (MAP, 3, (5, 7)), {}),
    *((pool, (LINE, size), {}) for pool in (F.adaptive_avg_pool1d, F.adaptive_max_pool1d) for size in (1, (7,))),
    *(
        (pool, (MAP, size), {})
        for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
        for size in (1, (3, 7), (None, 5), [2, 3])
    ),
    *((pool, (VOLUME, (None, 2, 3)), {}) for pool in (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)),
    (F.adaptive_avg_pool2d, (MAP[0],), {"output_size": 1}),
    (torch.adaptive_max_pool1d, (LINE, 5), {}),
]
MEANS = [
    *((torch.mean, (A, dim), {}) for dim in (1, -1, (2, 3), (-1, -2), [0, 2], (3, 1, 2), (), None)),
    *((Tensor.mean, (A,), options) for options in ({}, {"dim": (2, 3)}, {"dim": -1, "dtype": torch.float64})),
    (Tensor.mean, (A, (2, 3), True), {}),
    (torch.mean, (A,), {"axis": (2, 3), "keepdims": True}),
    (torch.mean, (A[0, 0, 0, 0],), {}),
    *((getattr(space, name), (A, (1, 3)), {}) for space in (torch, Tensor) for name in ("var", "std")),
    *((function, (A,), {}) for function in (torch.var, Tensor.std, torch.norm, Tensor.norm)),
    (torch.var, (A, -1), {"correction": 0, "keepdim": True}),
    (Tensor.std, (A, False), {}),
    (torch.var_mean, (A, (2, 3)), {"keepdim": True}),
    (torch.std_mean, (A, 1), {}),
    (torch.norm, (A, 2, -1), {}),
    (Tensor.norm, (A,), {"dim": 1, "keepdim": True}),
    (torch.linalg.norm, (A,), {"dim": -1, "keepdim": True}),
    (torch.linalg.vector_norm, (A, 2, (2, 3)), {}),
    (F.normalize, (A, 1.0, 2), {}),
]
NORMS = [
    (F.batch_norm, (MAP, torch.zeros(3), torch.ones(3), weight(3), weight(3)), {}),
    (F.batch_norm, (MAP, None, None, weight(3)), {"training": True}),
    (F.batch_norm, (MAP[:, :, 0, 0], None, None), {"training": True}),
    (F.instance_norm, (MAP,), {}),
    (F.instance_norm, (MAP,), {"weight": weight(3), "bias": weight(3)}),
    (F.layer_norm, (TOKENS, (5,), weight(5), weight(5)), {}),
    (F.layer_norm, (TOKENS, [7, 5]), {"weight": weight(7, 5), "eps": 1e-3}),
    (torch.layer_norm, (TOKENS, (5,), weight(5)), {}),
    (F.rms_norm, (TOKENS, (5,), weight(5)), {}),
    (F.rms_norm, (TOKENS, (7, 5)), {"eps": 1e-3}),
    (torch.rms_norm, (TOKENS, (5,), weight(5)), {}),
    (F.group_norm, (MAP.repeat(1, 2, 1, 1), 3, weight(6), weight(6)), {}),
    (torch.group_norm, (MAP, 3, weight(3)), {}),
]


CASES = [*CONVOLUTIONS, *TRANSPOSED, *LINEAR, *FUSED, *POOLS, *MEANS, *NORMS]

REFUSED = [
    (F.conv2d, (MAP, weight(5, 7, 3, 3)), {}),
    (F.conv2d, (MAP, weight(5, 3, 19, 3)), {}),
    (F.conv2d, (LINE[0, 0], weight(5, 3, 3, 3)), {}),
    (F.conv2d, (MAP, weight(5, 3, 3, 3)), {"groups": 3}),
    (F.conv1d, (MAP, weight(5, 3, 3)), {}),
    (F.conv_transpose2d, (MAP, weight(5, 3, 3, 3)), {}),
    (F.conv_transpose1d, (MAP, weight(3, 5, 3)), {}),
    (F.linear, (TOKENS, weight(11, 7)), {}),
    (F.embedding, (TOKENS, weight(5, 7)), {}),
    (F.embedding_bag, (IDS[0], weight(5, 7)), {}),
    (F.scaled_dot_product_attention, (QUERY, VALUE, VALUE), {}),
    (F.max_pool2d, (MAP[:, :, :2], 3), {}),
    (F.avg_pool2d, (MAP, 19), {}),
    (F.max_pool2d, (LINE[0, 0], 3), {}),
    (F.adaptive_avg_pool2d, (LINE[0], (1, 1)), {}),
    (F.batch_norm, (MAP, torch.zeros(5), torch.ones(5)), {}),
    (F.batch_norm, (MAP, None, None, weight(5)), {"training": True}),
    (F.layer_norm, (TOKENS, (7,), weight(7)), {}),
    (Tensor.mean, (A, 4), {}),
    (Tensor.var, (A, 4), {}),
    (F.normalize, (A,), {"dim": 4}),
]
