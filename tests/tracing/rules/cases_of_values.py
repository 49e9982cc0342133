"""Calls of functions on values: (function, args, kwargs)."""

import operator

import torch
import torch.nn.functional as F
from torch import Tensor

from ghn_pyg.tracing.rules import elementwise
from ghn_pyg.tracing.tracer import RULES
from ghn_pyg.utils import compat

A = torch.rand(2, 3, 5, 7)
B = torch.rand(5, 1)
C = torch.rand(2, 3, 7, 11)
ROW = torch.rand(7)
MATRIX = torch.rand(3, 5)
TOKENS = torch.rand(2, 3, 5)
IDS = torch.tensor([[4, 1, 0], [2, 2, 3]])
FLAGS = torch.tensor([True, False, True, True, False, False, True])
ALL, INTO = torch.arange(3).view(1, 3, 1, 1), torch.tensor([1, 0, 1])
SCALAR = torch.tensor(3.0)
ROWS, STACK, ENDS = torch.rand(6, 4), torch.rand(3, 4, 8), torch.tensor([2, 3, 6], dtype=torch.int32)

# What the functions of one operand need besides it.
FURTHER = {
    **dict.fromkeys(("alpha_dropout", "dropout", "dropout_", "feature_alpha_dropout"), (0.2, False)),
    **dict.fromkeys(("clamp", "clamp_", "clip", "threshold", "_threshold"), (0.1, 0.7)),
    **dict.fromkeys(("log_softmax", "softmin", "special_log_softmax", "clamp_min", "clamp_max"), (1,)),
    "flip": ((1, 3),),
    "local_response_norm": (3,),
    "roll": (2, 1),
}
ELEMENTWISE = (elementwise.unary, elementwise.linear_unary, elementwise.floating)
ONE_OPERAND = [function for function, rule in RULES.items() if rule in ELEMENTWISE]
UNARY = [
    (function, (A[0] if function.__name__ == "dropout1d" else A, *FURTHER.get(function.__name__, ())), {})
    for function in sorted(ONE_OPERAND, key=lambda function: (function.__name__, function.__qualname__))
]
TWO_OPERANDS = """
    add sub subtract mul multiply div divide true_divide pow maximum minimum fmod remainder atan2
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __div__ __pow__
"""
COMBINED = [
    (getattr(space, name), operands, {})
    for name in TWO_OPERANDS.split()
    for space in (torch, Tensor)
    if hasattr(space, name)
    for operands in ((A, A), (A, B), (B, A), (A, ROW), (A, SCALAR), (SCALAR, A))
]
OPERATORS = [
    (function, operands, {})
    for function in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow)
    for operands in ((A, B), (A, 2.5), (2.5, A), (A, 3), (3, A), (A, SCALAR))
]
WRITERS = (operator.iadd, Tensor.__iadd__, Tensor.__isub__, Tensor.__imul__, Tensor.add_, Tensor.sub_, Tensor.mul_)
IN_PLACE = [(function, operands, {}) for function in WRITERS for operands in ((A, B), (A, 2.5), (A, ROW))]
TYPES = [
    (operator.add, (IDS, 2), {}),
    (operator.add, (IDS, 2.5), {}),
    (operator.mul, (IDS, ROW[:3]), {}),
    (operator.mul, (FLAGS, ROW), {}),
    (operator.mul, (FLAGS, 3), {}),
    (operator.sub, (1, IDS), {}),
    (operator.mul, (A.double(), A), {}),
    (operator.mul, (A.half(), SCALAR), {}),
    (operator.add, (A.bfloat16(), A), {}),
    (torch.maximum, (IDS, IDS), {}),
    *((function, (A, A[:1]), {}) for function in (torch.max, torch.min, Tensor.max, Tensor.min)),
    *((function, (A,), {}) for function in (torch.max, Tensor.min)),
    *((function, (A, 1), {"keepdim": True}) for function in (torch.min, Tensor.max)),
    (torch.cat, ([IDS, ROW[:3].expand(2, 3)],), {}),
    (torch.cat, ([A, A.double()],), {}),
    *((operator.truediv, operands, {}) for operands in ((IDS, IDS), (IDS, 2), (FLAGS, 2))),
    *((function, (IDS,), {}) for function in (torch.sigmoid, torch.sqrt, torch.exp)),
    (Tensor.logit, (IDS, 1e-3), {}),
    (Tensor.pow, (IDS,), {"exponent": 2.5}),
    (torch.log_softmax, (A, 1), {"dtype": torch.float64}),
    (F.log_softmax, (A,), {"dim": 1, "dtype": torch.float64}),
]
STACKS = (torch.hstack, torch.vstack, torch.dstack, torch.column_stack)
JOINED = [
    (torch.cat, ([A, C[..., :7].expand(2, 3, 7, 7)], 2), {}),
    (torch.cat, ((A, A, A), -1), {}),
    (torch.cat, ([A, A],), {"axis": 1}),
    (torch.cat, ([torch.rand(0), A], 1), {}),
    (torch.concat, ([A, A], -4), {}),
    (torch.concatenate, ([A, A], 3), {}),
    *((join, (tensors,), {}) for join in STACKS for tensors in ([A, A, A], [ROW, ROW])),
    (torch.hstack, ([ROW, IDS.flatten()],), {}),
    (torch.stack, ([A, A], 2), {}),
    (torch.stack, ([A, A, A],), {"dim": -2}),
]
PAIRS = ((A, C), (A, C[0, 0]), (A, ROW), (ROW, C), (ROW, ROW), (C[0, 0].t(), A.transpose(2, 3)), (A[:, :1], C))
PRODUCTS = [
    *((function, (ROWS, STACK), {"offs": ENDS}) for function in compat.GROUPED_MM),
    *((function, pair, {}) for function in (torch.matmul, Tensor.matmul, Tensor.__matmul__) for pair in PAIRS),
    *((function, (MATRIX, torch.rand(5, 7)), {}) for function in (torch.mm, Tensor.mm)),
    *((function, (TOKENS, torch.rand(2, 5, 11)), {}) for function in (torch.bmm, Tensor.bmm)),
    (torch.sparse.mm, (MATRIX.to_sparse(), torch.rand(5, 7)), {}),
    (torch.sparse.addmm, (torch.rand(3, 7), MATRIX.to_sparse(), torch.rand(5, 7)), {"beta": 0.5}),
    (torch.mv, (MATRIX, torch.rand(5)), {}),
    (Tensor.mv, (MATRIX,), {"vec": torch.rand(5)}),
    (Tensor.addmm, (ROW, MATRIX, torch.rand(5, 7)), {}),
    (torch.addmm, (ROW, MATRIX, torch.rand(5, 7)), {"beta": 0.5, "alpha": 2}),
    (torch.baddbmm, (ROW, TOKENS, torch.rand(2, 5, 7)), {"beta": 0}),
    (Tensor.baddbmm, (ROW.expand(2, 3, 7),), {"batch1": TOKENS, "batch2": torch.rand(2, 5, 7)}),
    (torch.addbmm, (ROW, TOKENS, torch.rand(2, 5, 7)), {"alpha": 2}),
    (Tensor.addbmm, (torch.rand(3, 7), TOKENS, torch.rand(2, 5, 7)), {"beta": 0}),
    (torch.addmv, (ROW[:3], MATRIX, torch.rand(5)), {}),
    (Tensor.addmv, (ROW[:3], MATRIX), {"vec": torch.rand(5)}),
    *((torch.einsum, (equation, A, C), {}) for equation in ("bchw,bcwk->bhk", "bchw,bcwk", "...hw,...wk")),
    (torch.einsum, ("bij,bkj,bkl->bil", TOKENS, TOKENS, TOKENS), {}),
    (torch.einsum, ("bii->bi", torch.rand(2, 3, 3)), {}),
    (torch.einsum, (TOKENS, [0, 1, 2], MATRIX, [3, 2], [0, 3, 1]), {}),
    (torch.einsum, (TOKENS, [..., 2], MATRIX, [3, 2]), {}),
    (torch.einsum, ("...hw,w->h...", A, ROW), {}),
    (torch.einsum, ("bij,bkj->bik", [TOKENS, TOKENS]), {}),
    (F.bilinear, (MATRIX, torch.rand(3, 7), torch.rand(11, 5, 7)), {}),
    (torch.tensordot, (A, ROW), {"dims": ([3], [0])}),
    (torch.tensordot, (A, torch.rand(5, 7, 2)), {}),
    (torch.tensordot, (A, torch.rand(7, 2)), {"dims": 1}),
    (torch.tensordot, (torch.rand(11, 5), A, ([1], [-2])), {}),
    (torch.softmax, (A, 1, torch.float64), {}),
    (F.softmax, (A, 1, 3, torch.float64), {}),
    (Tensor.softmax, (A, -1), {}),
]
RESHAPED = [
    (torch.flatten, (A,), {"start_dim": 1, "end_dim": -2}),
    (torch.flatten, (SCALAR,), {}),
    (Tensor.flatten, (A, 2), {}),
    *((Tensor.view, (A, *sizes), {}) for sizes in ((2, -1), ([3, -1, 7],), (torch.int32,))),
    (Tensor.view, (A,), {"size": (2, 105)}),
    (Tensor.view, (torch.rand(0, 3), 3, 0), {}),
    (Tensor.reshape, (A, (-1,)), {}),
    (Tensor.reshape, (A,), {"shape": (7, 30)}),
    (torch.reshape, (A,), {"shape": [-1, 2]}),
    (Tensor.permute, (A, 0, 2, 3, 1), {}),
    (Tensor.permute, (A,), {"dims": (3, 2, 1, 0)}),
    (torch.permute, (A, (0, 3, 1, 2)), {}),
    (Tensor.transpose, (A,), {"dim0": -2, "dim1": 0}),
    (torch.transpose, (A, -2, -1), {}),
    (torch.swapaxes, (A,), {"axis0": 1, "axis1": 3}),
    (Tensor.swapaxes, (A, 0, -2), {}),
    *((function, (A, 1, -1), {}) for function in (torch.movedim, Tensor.movedim)),
    *((function, (A, 1, (3, 1)), {}) for function in (torch.unflatten, Tensor.unflatten)),
    (Tensor.unsqueeze, (A, -5), {}),
    (torch.unsqueeze, (A,), {"axis": 1}),
    (Tensor.squeeze, (A[:, :1],), {}),
    (torch.squeeze, (A[:, :1],), {"dim": 1}),
    (Tensor.chunk, (A, 2, 3), {}),
    (torch.chunk, (A,), {"chunks": 3, "dim": 2}),
    (Tensor.split, (A, [1, 4, 2], -1), {}),
    (torch.split, (A,), {"split_size_or_sections": 3, "dim": 3}),
    *((operator.getitem, (A, at), {}) for at in ((slice(None), 1), (..., slice(1, 6, 2), None), (slice(None), [2, 0]))),
    *((operator.getitem, (A, at), {}) for at in ((..., FLAGS), (slice(None), IDS % 3), IDS[:, :3] > 1)),
    (operator.getitem, (A, (slice(None), slice(1, 3), None, slice(None), FLAGS)), {}),
    (operator.getitem, (A, (slice(None), torch.tensor([2, 0]), slice(None), torch.tensor([[6], [1]]))), {}),
    *((operator.getitem, operands, {}) for operands in ((FLAGS, FLAGS), (IDS, IDS > 1))),
    *((function, (MATRIX, 0, IDS[:, :1] % 3), {}) for function in (torch.gather, Tensor.gather)),
    *((function, (A, ALL % 3, 1), {}) for function in (torch.take_along_dim, Tensor.take_along_dim)),
    (torch.take_along_dim, (MATRIX, IDS), {}),
    (torch.index_select, (A, -1, torch.tensor([3, 0, 3])), {}),
    (Tensor.index_select, (A, 1, torch.tensor(2)), {}),
]
MOVED = [
    *((Tensor.to, (A, *to), {}) for to in ((torch.float64,), ("cpu",), ("cpu", torch.float16), (IDS,))),
    (Tensor.to, (A, torch.device("cpu")), {"non_blocking": True, "dtype": torch.int32}),
    (Tensor.cpu, (A,), {}),
]
CONSTANTS = [
    *((getattr(torch, f"{name}_like"), (A,), {}) for name in ("zeros", "ones", "empty", "rand", "randn")),
    (torch.full_like, (A, 3.0), {}),
    (torch.detach, (torch.rand(3, 5),), {}),
    (Tensor.type, (torch.rand(3, 5), torch.float64), {}),
    (Tensor.type_as, (IDS, A), {}),
    (Tensor.type_as, (A, IDS), {}),
    (Tensor.expand_as, (B, A), {}),
    (Tensor.view_as, (TOKENS, torch.rand(5, 6)), {}),
    (Tensor.reshape_as, (A.mT, A), {}),
    *(
        (getattr(space, name), (A,), {})
        for space in (torch, Tensor)
        for name in ("isfinite", "isnan", "isinf", "isposinf", "isneginf")
    ),
    *((getattr(space, name), (A, B), {}) for space in (torch, Tensor) for name in ("eq", "ne", "not_equal")),
    (operator.eq, (A, A), {}),
    (Tensor.__eq__, (A, B), {}),
    (Tensor.__ne__, (A, B), {}),
    *((function, (FLAGS,), {}) for function in (*compat.IS_ALL_TRUE, *compat.IS_ANY_TRUE)),
    *((function, (torch.rand(()) >= 0, "positive"), {}) for function in compat.ASSERT_ASYNC),
    *((function, (TOKENS, torch.ones(2, 3, dtype=torch.bool)), {}) for function in compat.IS_LEFT_ALIGNED),
    (torch.randint_like, (A, 5), {}),
    (torch.zeros_like, (A,), {"dtype": torch.int64}),
    (Tensor.new_zeros, (A, 3, 2), {}),
    (Tensor.new_ones, (A, (3, 2)), {}),
    (Tensor.new_empty, (A, (3, 2)), {"dtype": torch.int64}),
    (Tensor.new_full, (A, (3, 2), 7.0), {}),
    (Tensor.new_tensor, (A, [[3.0, 2.0]]), {}),
]
SCATTERED = [
    (getattr(space, f"{name}{ending}"), (torch.rand(4, 5), 0, index, MATRIX, *reduction), {})
    for name, index, *reduction in (
        ("index_add", INTO), ("scatter_add", INTO[:, None].expand(3, 5)),
        ("scatter_reduce", INTO[:, None].expand(3, 5), "amax"), ("scatter", INTO[:, None].expand(3, 5)),
    )
    for space, ending in ((torch, ""), (Tensor, ""), (Tensor, "_"))
]  # fmt: skip
ROWS_AGAIN = [
    *((function, (A,), {}) for function in (torch.sum, Tensor.sum)),
    *((torch.sum, (A, dim, keep), {}) for dim in (None, 1, (0, -1)) for keep in (True, False)),
    (Tensor.sum, (A,), {"dim": [2, 3], "dtype": torch.float64}),
    (torch.sum, (IDS > 1, 0), {}),
    (Tensor.expand, (B, 3, -1, 7), {}),
    (Tensor.repeat, (MATRIX, 2, 1, 3), {}),
    *((function, (MATRIX, IDS[:1, :1] > 1, 0.5), {}) for function in (torch.masked_fill, Tensor.masked_fill)),
    (Tensor.masked_fill_, (MATRIX, IDS[:1, :1] > 1, 0.5), {}),
    *(
        (function, (torch.rand(4, 5), (INTO,), MATRIX, True), {})
        for function in (torch.index_put, Tensor.index_put, torch.index_put_, Tensor.index_put_)
    ),
    (torch.segment_reduce, (MATRIX, "sum"), {"lengths": torch.tensor([1, 2])}),
    *((function, (A, 2), {"dim": 1}) for function in (torch.repeat_interleave, Tensor.repeat_interleave)),
    *((torch.repeat_interleave, (MATRIX, counts, 0), {}) for counts in (torch.tensor([0, 4, 3]), torch.tensor(2))),
    (torch.repeat_interleave, (MATRIX[:, 0], torch.tensor([0, 4, 3])), {"output_size": 7}),
    (torch.repeat_interleave, (torch.tensor([0, 4, 3]),), {}),
]
# Mostly functions without a rule, which run on tensors without data.
OTHERS = [
    (torch.max, (A, 1), {}),
    (torch.gather, (IDS, 1, IDS[:, :2] % 3), {}),
    (F.interpolate, (A,), {"scale_factor": 2, "mode": "bilinear"}),
    (F.pad, (A, (1, 2, 2, 1)), {"mode": "reflect"}),
    (F.one_hot, (IDS, 7), {}),
    (torch.fft.rfft2, (A,), {}),
    (torch.cumsum, (FLAGS, 0), {}),
    (operator.floordiv, (IDS, 2), {}),
    (operator.mod, (IDS, 2.5), {}),
    (torch.div, (A, B), {"rounding_mode": "trunc"}),
    (operator.and_, (IDS > 1, IDS < 4), {}),
    (operator.neg, (IDS,), {}),
    (lambda x: x.mT, (A,), {}),
    (lambda x: x.float().half().double(), (A,), {}),
    (lambda x: F.glu(x, 3), (A[..., :6],), {}),
    (lambda x: sum([x, x * 2, x * 3]), (A,), {}),
    (torch.addcmul, (A, B, ROW), {}),
    (Tensor.addcmul, (A, A, B), {"value": 0.5}),
    (torch.addcdiv, (A, B, ROW), {}),
    (Tensor.addcdiv, (A, A, SCALAR), {}),
    (torch.lerp, (A, A, 0.5), {}),
    (Tensor.lerp, (A, A + 1, ROW), {}),
    (torch.meshgrid, (ROW, ROW[:3]), {"indexing": "ij"}),
]
# Choices of all elements, as many as a trace assumes.
CHOSEN = [
    *((function, (TOKENS + 1,), {}) for function in (torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere)),
    (torch.nonzero, (TOKENS + 1,), {"as_tuple": True}),
    (torch.where, (TOKENS > -1,), {}),
    (Tensor.where, (TOKENS, TOKENS > -1, 0.0), {}),
    (torch.masked_select, (TOKENS, TOKENS[0] > -1), {}),
    (Tensor.masked_select, (TOKENS, torch.tensor([True, False, True, True, False])), {}),
    *((Tensor.__getitem__, (TOKENS, at), {}) for at in (TOKENS > -1, TOKENS[:, :, 0] > -1)),
    (Tensor.__getitem__, (TOKENS, (slice(None), TOKENS[0, :, 0] > -1)), {}),
    *((Tensor.unbind, args, {}) for args in ((TOKENS,), ((TOKENS + 1).nonzero(), 1))),
    (torch.unbind, (TOKENS, 1), {}),
    *((function, ((TOKENS > -1).any(),), {}) for function in (Tensor.__bool__, Tensor.is_nonzero, Tensor.item)),
    (torch.is_nonzero, (TOKENS.sum(),), {}),
]
CASES = [
    *UNARY, *COMBINED, *OPERATORS, *IN_PLACE, *TYPES, *JOINED, *PRODUCTS, *RESHAPED, *MOVED, *CONSTANTS, *SCATTERED,
    *ROWS_AGAIN, *OTHERS, *CHOSEN,
]  # fmt: skip

REFUSED = [
    (torch.add, (A, C), {}),
    (torch.mul, (A, torch.rand(5)), {}),
    (operator.truediv, (A, MATRIX), {}),
    (torch.cat, ([A, C], 1), {}),
    (torch.cat, ([A, MATRIX], 1), {}),
    (torch.cat, ([A, A], 4), {}),
    (torch.stack, ([A, C],), {}),
    (torch.matmul, (A, A), {}),
    (torch.bmm, (TOKENS, TOKENS), {}),
    (torch.addmm, (ROW, MATRIX, torch.rand(3, 7)), {}),
    (torch.einsum, ("bchw,bcwk->bhk", A, A), {}),
    (Tensor.view, (A, 2, 7), {}),
    (Tensor.reshape, (A, -1, -1), {}),
    (torch.flatten, (A, 3, 1), {}),
    (Tensor.permute, (A, 0, 1, 2), {}),
    (Tensor.transpose, (A, 0, 4), {}),
    (Tensor.unsqueeze, (A, 5), {}),
    (Tensor.split, (A, [1, 2], 3), {}),
    (Tensor.chunk, (A, 0), {}),
    (Tensor.squeeze, (A, 4), {}),
    (operator.getitem, (A, (0, 0, 0, 0, 0)), {}),
]
