import operator

import torch
import torch.nn.functional as F
from torch import Tensor

from ghn_pyg.tracing.rules import attention, constants, elementwise, joins, linear_and_matmul, shapes
from ghn_pyg.tracing.tracer import RULES
from tests.tracing.helpers import assert_refused, assert_same_shapes, calls, rules_without_case

A = torch.rand(2, 3, 5, 7)
ROWS, STACK, ENDS = torch.rand(6, 4), torch.rand(3, 4, 8), torch.tensor([2, 3, 6], dtype=torch.int32)
B = torch.rand(5, 1)
C = torch.rand(2, 3, 7, 11)
ROW = torch.rand(7)
MATRIX = torch.rand(3, 5)
TOKENS = torch.rand(2, 3, 5)
IDS = torch.tensor([[4, 1, 0], [2, 2, 3]])
FLAGS = torch.tensor([True, False, True, True, False, False, True])
SCALAR = torch.tensor(3.0)

# What the functions of one operand need besides it.
FURTHER = {
    "alpha_dropout": (0.2, False),
    "clamp": (0.1, 0.7),
    "clamp_": (0.1, 0.7),
    "clamp_max": (0.7,),
    "clamp_min": (0.1,),
    "clip": (0.1, 0.7),
    "cumsum": (2,),
    "dropout": (0.2, False),
    "dropout_": (0.2, False),
    "feature_alpha_dropout": (0.2, False),
    "flip": ((1, 3),),
    "local_response_norm": (3,),
    "log_softmax": (1,),
    "roll": (2, 1),
    "softmin": (1,),
    "special_log_softmax": (1,),
    "_threshold": (0.1, 0.2),
    "threshold": (0.1, 0.2),
}
ONE_OPERAND = (elementwise.unary, elementwise.floating, elementwise.unary)
UNARY = [
    (function, (A[0] if function.__name__ == "dropout1d" else A, *FURTHER.get(function.__name__, ())), {})
    for function in sorted(
        (f for f, rule in RULES.items() if rule in ONE_OPERAND), key=lambda f: (f.__name__, f.__qualname__)
    )
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
IN_PLACE = [
    (function, operands, {})
    for function in (
        operator.iadd,
        Tensor.__iadd__,
        Tensor.__isub__,
        Tensor.__imul__,
        Tensor.add_,
        Tensor.sub_,
        Tensor.mul_,
    )
    for operands in ((A, B), (A, 2.5), (A, ROW))
]
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
    (torch.masked_fill, (A, FLAGS, 2.5), {}),
    (Tensor.masked_fill, (A, FLAGS, -3), {}),
    (torch.cat, ([IDS, ROW[:3].expand(2, 3)],), {}),
    (torch.cat, ([A, A.double()],), {}),
    (operator.truediv, (IDS, IDS), {}),
    (operator.truediv, (IDS, 2), {}),
    (operator.truediv, (FLAGS, 2), {}),
    (torch.sigmoid, (IDS,), {}),
    (torch.sqrt, (IDS,), {}),
    (torch.exp, (IDS,), {}),
    (torch.logit, (A, 1e-3), {}),
    (Tensor.logit, (IDS, 1e-3), {}),
    (torch.pow, (A,), {"exponent": 2}),
    (Tensor.pow, (IDS,), {"exponent": 2.5}),
    (torch.cumsum, (FLAGS, 0), {}),
    (torch.log_softmax, (A, 1), {"dtype": torch.float64}),
    (torch.cumsum, (A, 1), {"dtype": torch.float64}),
]
JOINED = [
    (torch.cat, ([A, C[..., :7].expand(2, 3, 7, 7)], 2), {}),
    (torch.cat, ((A, A, A), -1), {}),
    (torch.cat, ([A, A],), {"dim": 1}),
    (torch.cat, ([torch.rand(0), A], 1), {}),
    (torch.concat, ([A, A], -4), {}),
    (torch.concatenate, ([A, A], 3), {}),
    (torch.cat, ([A, A],), {"axis": 1}),
    *((join, ([A, A, A],), {}) for join in (torch.hstack, torch.vstack, torch.dstack, torch.column_stack)),
    *((join, ([ROW, ROW],), {}) for join in (torch.hstack, torch.vstack, torch.dstack, torch.column_stack)),
    *((join, ([ROW, IDS.flatten()],), {}) for join in (torch.hstack, torch.cat)),
    (torch.column_stack, ([ROW, torch.rand(7, 3)],), {}),
    (torch.stack, ([A, A, A],), {}),
    (torch.stack, ([A, A], 2), {}),
    (torch.stack, ([A, A], -1), {}),
    (torch.stack, ([A, A, A],), {"dim": -2}),
]
PRODUCTS = [
    (torch._grouped_mm, (ROWS, STACK), {"offs": ENDS}),
    (F.grouped_mm, (ROWS, STACK), {"offs": ENDS}),
    (torch.matmul, (A, C), {}),
    (operator.matmul, (A, C), {}),
    (Tensor.__matmul__, (A, C), {}),
    (Tensor.matmul, (A, C), {}),
    (torch.matmul, (A, C[0, 0]), {}),
    (torch.matmul, (A, ROW), {}),
    (torch.matmul, (ROW, C), {}),
    (torch.matmul, (ROW, ROW), {}),
    (torch.matmul, (C[0, 0].t(), A.transpose(2, 3)), {}),
    (torch.matmul, (A[:, :1], C), {}),
    (torch.mm, (MATRIX, torch.rand(5, 7)), {}),
    (Tensor.mm, (MATRIX, torch.rand(5, 7)), {}),
    (torch.bmm, (TOKENS, torch.rand(2, 5, 11)), {}),
    (Tensor.bmm, (TOKENS, torch.rand(2, 5, 11)), {}),
    (torch.addmm, (ROW, MATRIX, torch.rand(5, 7)), {}),
    (torch.mv, (MATRIX, torch.rand(5)), {}),
    (Tensor.mv, (MATRIX,), {"vec": torch.rand(5)}),
    (Tensor.addmm, (ROW, MATRIX, torch.rand(5, 7)), {}),
    (torch.addmm, (ROW, MATRIX, torch.rand(5, 7)), {"beta": 0.5, "alpha": 2}),
    (torch.baddbmm, (ROW, TOKENS, torch.rand(2, 5, 7)), {}),
    (Tensor.baddbmm, (torch.rand(2, 3, 7), TOKENS, torch.rand(2, 5, 7)), {}),
    (torch.baddbmm, (ROW, TOKENS, torch.rand(2, 5, 7)), {"beta": 0}),
    (Tensor.baddbmm, (ROW.expand(2, 3, 7),), {"batch1": TOKENS, "batch2": torch.rand(2, 5, 7)}),
    (torch.addbmm, (ROW, TOKENS, torch.rand(2, 5, 7)), {"alpha": 2}),
    (Tensor.addbmm, (torch.rand(3, 7), TOKENS, torch.rand(2, 5, 7)), {"beta": 0}),
    (torch.addmv, (ROW[:3], MATRIX, torch.rand(5)), {}),
    (Tensor.addmv, (ROW[:3], MATRIX), {"vec": torch.rand(5)}),
    (torch.einsum, ("bchw,bcwk->bhk", A, C), {}),
    (torch.einsum, ("bchw,bcwk", A, C), {}),
    (torch.einsum, ("...hw,...wk", A, C), {}),
    (torch.einsum, ("bij,bkj,bkl->bil", TOKENS, TOKENS, TOKENS), {}),
    (torch.einsum, ("bii->bi", torch.rand(2, 3, 3)), {}),
    (torch.einsum, (TOKENS, [0, 1, 2], MATRIX, [3, 2], [0, 3, 1]), {}),
    (torch.einsum, (TOKENS, [..., 2], MATRIX, [3, 2]), {}),
    (torch.einsum, ("...hw,w->h...", A, ROW), {}),
    (torch.einsum, ("bij,bkj->bik", [TOKENS, TOKENS]), {}),
    (F.bilinear, (MATRIX, torch.rand(3, 7), torch.rand(11, 5, 7)), {}),
    (F.softmax, (A, 1), {}),
    (F.softmax, (A,), {"dim": -1}),
    (torch.softmax, (A, 1), {"dtype": torch.float64}),
    (torch.softmax, (A, 1, torch.float64), {}),
    (F.softmax, (A, 1, 3, torch.float64), {}),
    (Tensor.softmax, (A, -1), {}),
]
RESHAPED = [
    (torch.flatten, (A,), {}),
    (torch.flatten, (A, 1), {}),
    (torch.flatten, (A, 1, 2), {}),
    (torch.flatten, (A, -2), {}),
    (torch.flatten, (A, -3, -2), {}),
    (torch.flatten, (A, 2, 2), {}),
    (torch.flatten, (A,), {"start_dim": 1, "end_dim": -2}),
    (torch.flatten, (SCALAR,), {}),
    (Tensor.flatten, (A, 2), {}),
    (Tensor.view, (A, -1), {}),
    (Tensor.view, (A, 2, -1), {}),
    (Tensor.view, (A, (6, 35)), {}),
    (Tensor.view, (A, [3, -1, 7]), {}),
    (Tensor.view, (A, torch.Size([2, 105])), {}),
    (Tensor.view, (A,), {"size": (2, 105)}),
    (Tensor.view, (A, torch.int32), {}),
    (Tensor.view, (torch.rand(0, 3), 3, 0), {}),
    (Tensor.view, (torch.rand(1), ()), {}),
    (Tensor.reshape, (A, 5, -1, 3), {}),
    (Tensor.reshape, (A, (-1,)), {}),
    (Tensor.reshape, (A,), {"shape": (7, 30)}),
    (torch.reshape, (A, (21, 10)), {}),
    (torch.reshape, (A,), {"shape": [-1, 2]}),
    (torch.reshape, (SCALAR, (1, 1)), {}),
    (Tensor.permute, (A, 0, 2, 3, 1), {}),
    (Tensor.permute, (A, (0, -1, 1, 2)), {}),
    (Tensor.permute, (A,), {"dims": (3, 2, 1, 0)}),
    (torch.permute, (A, (0, 3, 1, 2)), {}),
    (torch.permute, (A,), {"dims": [1, 0, 2, 3]}),
    (Tensor.transpose, (A, 1, -1), {}),
    (Tensor.transpose, (A,), {"dim0": -2, "dim1": 0}),
    (torch.transpose, (A, -2, -1), {}),
    (torch.swapaxes, (A, 0, 3), {}),
    (Tensor.swapaxes, (A, 0, -2), {}),
    (Tensor.unsqueeze, (A, 0), {}),
    (Tensor.unsqueeze, (A, -1), {}),
    (Tensor.unsqueeze, (A, 4), {}),
    (Tensor.unsqueeze, (A, -5), {}),
    (torch.unsqueeze, (A, 2), {}),
    (torch.unsqueeze, (A,), {"dim": -2}),
    (torch.unsqueeze, (A,), {"axis": 1}),
    (torch.swapaxes, (A,), {"axis0": 1, "axis1": 3}),
    (Tensor.unsqueeze, (SCALAR, 0), {}),
    (Tensor.chunk, (A, 2, 3), {}),
    (Tensor.chunk, (A, 3, -1), {}),
    (Tensor.chunk, (A, 5, 3), {}),
    (Tensor.chunk, (A, 11, 1), {}),
    (torch.chunk, (A, 2), {}),
    (torch.chunk, (A,), {"chunks": 3, "dim": 2}),
    (Tensor.split, (A, 2, 2), {}),
    (Tensor.split, (A, 2), {"dim": 3}),
    (Tensor.split, (A, [1, 4, 2], -1), {}),
    (Tensor.split, (A, (1, 2)), {"dim": 1}),
    (Tensor.split, (A, 11, 1), {}),
    (torch.split, (A, 1), {}),
    (torch.split, (A, [3, 2], 2), {}),
    (torch.split, (A,), {"split_size_or_sections": 3, "dim": 3}),
]
MOVED = [
    (Tensor.to, (A, torch.float64), {}),
    (Tensor.to, (A, "cpu"), {}),
    (Tensor.to, (A, "cpu", torch.float16), {}),
    (Tensor.to, (A,), {"dtype": torch.int32}),
    (Tensor.to, (A, IDS), {}),
    (Tensor.to, (A, torch.device("cpu")), {"non_blocking": True}),
    (Tensor.cpu, (A,), {}),
]
CONSTANTS = [
    *((getattr(torch, f"{name}_like"), (A,), {}) for name in ("zeros", "ones", "empty", "rand", "randn")),
    (torch.full_like, (A, 3.0), {}),
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
    (torch._is_all_true, (FLAGS,), {}),
    (Tensor._is_all_true, (FLAGS,), {}),
    (Tensor._is_any_true, (FLAGS,), {}),
    (torch._is_any_true, (FLAGS,), {}),
    (torch._assert_async, (torch.rand(()) >= 0, "positive"), {}),
    (torch.randint_like, (A, 5), {}),
    (torch.zeros_like, (A,), {"dtype": torch.int64}),
    (Tensor.new_zeros, (A, 3, 2), {}),
    (Tensor.new_ones, (A, (3, 2)), {}),
    (Tensor.new_empty, (A, (3, 2)), {"dtype": torch.int64}),
    (Tensor.new_full, (A, (3, 2), 7.0), {}),
    (Tensor.new_tensor, (A, [[3.0, 2.0]]), {}),
]
# Functions without a rule of their own, which run on tensors without data.
OTHERS = [
    (Tensor.squeeze, (A[:, :1],), {}),
    (torch.squeeze, (A[:, :1],), {"dim": 1}),
    (Tensor.squeeze, (A[:, :1], 1), {}),
    (Tensor.expand, (B, 3, -1, 7), {}),
    (Tensor.repeat, (A, 1, 1, 2, 3), {}),
    (torch.repeat_interleave, (A, 2), {"dim": 1}),
    (Tensor.unbind, (A, 1), {}),
    (Tensor.unfold, (A, 2, 3, 1), {}),
    (Tensor.narrow, (A, 2, 1, 3), {}),
    (Tensor.movedim, (A, 1, -1), {}),
    (Tensor.unflatten, (A, 1, (3, 1)), {}),
    (torch.sum, (A, (1, 3)), {}),
    (Tensor.sum, (A,), {"dim": -1, "keepdim": True}),
    (Tensor.amax, (A, (2, 3)), {}),
    (torch.max, (A, 1), {}),
    (Tensor.topk, (A, 2), {"dim": 2}),
    (torch.var_mean, (A, (1, 2)), {}),
    (torch.where, (FLAGS, A, 0.0), {}),
    (torch.gather, (IDS, 1, IDS[:, :2] % 3), {}),
    (F.interpolate, (A,), {"scale_factor": 2, "mode": "bilinear"}),
    (F.interpolate, (A,), {"size": (3, 11)}),
    (F.pad, (A, (1, 2, 3, 4)), {}),
    (F.pad, (A, (1, 2, 2, 1)), {"mode": "reflect"}),
    (F.pixel_shuffle, (torch.rand(2, 12, 5, 7), 2), {}),
    (F.unfold, (A, 3), {}),
    (F.one_hot, (IDS, 7), {}),
    (torch.fft.rfft2, (A,), {}),
    (operator.getitem, (A, (slice(None), 1)), {}),
    (operator.getitem, (A, (..., FLAGS)), {}),
    (operator.getitem, (A, (slice(None), slice(1, 3), None, slice(None), FLAGS)), {}),
    (operator.getitem, (A, torch.tensor([[True, False, True], [False, True, True]])), {}),
    (operator.getitem, (A, (slice(None), IDS % 3)), {}),
    (operator.getitem, (A, (slice(None), torch.tensor([2, 0]), slice(None), torch.tensor([[6], [1]]))), {}),
    (operator.getitem, (A, 1), {}),
    (torch.index_select, (A, -1, torch.tensor([3, 0, 3])), {}),
    (Tensor.index_select, (A, 1, torch.tensor(2)), {}),
    (operator.getitem, (FLAGS, FLAGS), {}),
    (operator.getitem, (IDS, IDS > 1), {}),
    (operator.floordiv, (IDS, 2), {}),
    (operator.floordiv, (A, 2), {}),
    (operator.mod, (A, 2), {}),
    (operator.mod, (IDS, 2.5), {}),
    (torch.div, (IDS, 2), {"rounding_mode": "floor"}),
    (torch.div, (A, B), {"rounding_mode": "trunc"}),
    (operator.and_, (IDS > 1, IDS < 4), {}),
    (operator.invert, (IDS > 1,), {}),
    (operator.eq, (IDS, 2), {}),
    (operator.lt, (A, B), {}),
    (operator.neg, (IDS,), {}),
    (torch.sum, (IDS > 1,), {}),
    (torch.clamp, (IDS,), {"min": 1}),
    (operator.getitem, (A, (..., slice(1, 6, 2), None)), {}),
    (operator.getitem, (A, (slice(None), [2, 0])), {}),
    (lambda x: x.T, (MATRIX,), {}),
    (lambda x: x.mT, (A,), {}),
    (lambda x: x.real, (A,), {}),
    (lambda x: x.float().half().double(), (A,), {}),
    (lambda x: x.type_as(IDS), (A,), {}),
    (lambda x: F.glu(x, 3), (A[..., :6],), {}),
    (lambda x: F.cosine_similarity(x, x), (A,), {}),
    (lambda x: sum([x, x * 2, x * 3]), (A,), {}),
    (torch.tensordot, (A, ROW), {"dims": ([3], [0])}),
    (torch.tensordot, (A, torch.rand(5, 7, 2)), {}),
    (torch.tensordot, (A, torch.rand(7, 2)), {"dims": 1}),
    (torch.tensordot, (torch.rand(11, 5), A, ([1], [-2])), {}),
    (F.log_softmax, (A,), {"dim": 1, "dtype": torch.float64}),
    (torch._nested_tensor_from_mask_left_aligned, (TOKENS, torch.ones(2, 3, dtype=torch.bool)), {}),
    (torch.meshgrid, (ROW, ROW[:3]), {"indexing": "ij"}),
    (torch.addcmul, (A, B, ROW), {}),
    (Tensor.addcmul, (A, A, B), {"value": 0.5}),
    (torch.addcdiv, (A, B, ROW), {}),
    (Tensor.addcdiv, (A, A, SCALAR), {}),
    (torch.lerp, (A, A, 0.5), {}),
    (Tensor.lerp, (A, A + 1, ROW), {}),
    (torch.cdist, (TOKENS, TOKENS), {}),
    (torch.outer, (ROW, ROW[:3]), {}),
    (F.embedding, (IDS, MATRIX.repeat(2, 1)), {}),
]

REFUSED = [
    (torch.add, (A, C), {}),
    (torch.mul, (A, torch.rand(5)), {}),
    (operator.truediv, (A, MATRIX), {}),
    (operator.iadd, (ROW, A), {}),
    (torch.cat, ([A, C], 1), {}),
    (torch.cat, ([A, MATRIX], 1), {}),
    (torch.cat, ([A, A], 4), {}),
    (torch.stack, ([A, C],), {}),
    (torch.stack, ([A, A], 5), {}),
    (torch.matmul, (A, A), {}),
    (torch.mm, (MATRIX, MATRIX), {}),
    (torch.bmm, (TOKENS, TOKENS), {}),
    (torch.addmm, (ROW, MATRIX, torch.rand(3, 7)), {}),
    (torch.einsum, ("bchw,bcwk->bhk", A, A), {}),
    (Tensor.view, (A, 2, 7), {}),
    (Tensor.view, (A, -1, 11), {}),
    (Tensor.reshape, (A, -1, -1), {}),
    (torch.flatten, (A, 3, 1), {}),
    (torch.flatten, (A, 4), {}),
    (Tensor.permute, (A, 0, 1, 2), {}),
    (Tensor.permute, (A, 0, 1, 2, 2), {}),
    (Tensor.transpose, (A, 0, 4), {}),
    (Tensor.unsqueeze, (A, 5), {}),
    (Tensor.unsqueeze, (A, -6), {}),
    (Tensor.split, (A, [1, 2], 3), {}),
    (Tensor.split, (A, 2, 4), {}),
    (Tensor.chunk, (A, 0), {}),
    (torch.softmax, (A, 4), {}),
    (Tensor.squeeze, (A, 4), {}),
    (operator.getitem, (A, (0, 0, 0, 0, 0)), {}),
]

CASES = [*UNARY, *COMBINED, *OPERATORS, *IN_PLACE, *TYPES, *PRODUCTS, *JOINED, *RESHAPED, *MOVED, *CONSTANTS, *OTHERS]


@calls(CASES)
def test_the_shape_is_what_pytorch_computes(function, args, kwargs):
    assert_same_shapes(function, args, kwargs)


def test_every_rule_has_a_case():
    modules = (attention, constants, elementwise, joins, linear_and_matmul, shapes)
    assert rules_without_case(modules, CASES) == {Tensor.cuda}


@calls(REFUSED)
def test_what_pytorch_refuses_fails(function, args, kwargs):
    assert_refused(function, args, kwargs)
