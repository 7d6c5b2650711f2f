"""Calls of pools, norms, reductions, scans and elementwise operators."""

from __future__ import annotations

import torch
from case import ATEN, SPACE, Case, pos, t


def _space(rank: int, first: int = 2) -> dict[str, tuple[int, ...]]:
    axes = tuple(range(first, first + rank))
    return {"self": axes, "input": axes, "out0": axes, "out1": axes}


def _spatial(name: str, rank: int, *args: object, overload: str = "default", note: str = "") -> Case:
    op = getattr(getattr(ATEN, name), overload)
    return Case(op, (t(2, 3, *(4, 6, 5)[:rank]), *args), note=note, fixed=_space(rank), because=SPACE)


SPATIAL = [
    case
    for rank in (1, 2, 3)
    for case in (
        _spatial(f"avg_pool{rank}d", rank, [2] * rank),
        _spatial(f"max_pool{rank}d", rank, [2] * rank),
        _spatial(f"adaptive_avg_pool{rank}d", rank, [2] * rank),
        _spatial(f"reflection_pad{rank}d", rank, [1] * 2 * rank),
        _spatial(f"replication_pad{rank}d", rank, [1] * 2 * rank),
        _spatial(f"upsample_nearest{rank}d", rank, [7] * rank),
    )
] + [
    _spatial("adaptive_avg_pool2d", 2, [1, 1], note="to one"),
    _spatial("_adaptive_avg_pool2d", 2, [2, 3]),
    _spatial("_adaptive_avg_pool3d", 3, [2, 3, 2]),
    _spatial("adaptive_max_pool2d", 2, [2, 3]),
    _spatial("max_pool2d_with_indices", 2, [2, 2]),
    _spatial("max_pool3d_with_indices", 3, [2, 2, 2]),
    _spatial("upsample_linear1d", 1, [7], False),
    _spatial("upsample_bilinear2d", 2, [7, 8], False),
    _spatial("upsample_bilinear2d", 2, [7, 8], False, None, overload="vec", note="vec"),
    _spatial("upsample_nearest2d", 2, [7, 8], None, overload="vec", note="vec"),
    _spatial("upsample_bicubic2d", 2, [7, 8], False),
    _spatial("_upsample_bicubic2d_aa", 2, [7, 8], False),
    _spatial("_upsample_bilinear2d_aa", 2, [7, 8], False),
    _spatial("_upsample_nearest_exact2d", 2, [7, 8]),
    _spatial("upsample_trilinear3d", 3, [7, 8, 6], False),
    Case(ATEN.avg_pool2d.default, (t(3, 4, 6), [2, 2]), note="unbatched", fixed=_space(2, 1), because=SPACE),
    Case(ATEN.max_unpool2d.default, (t(2, 3, 1, 2), torch.tensor([[0, 6]]).expand(2, 3, 1, 2), [2, 4]),
         fixed=_space(2), because=SPACE),
    Case(ATEN.max_unpool3d.default,
         (t(2, 3, 1, 1, 2), torch.tensor([[[0, 6]]]).expand(2, 3, 1, 1, 2), [1, 2, 4], [1, 2, 2], [0, 0, 0]),
         fixed=_space(3), because=SPACE),
    Case(ATEN.grid_sampler_2d.default, (t(2, 3, 4, 5), t(2, 6, 7, 2), 0, 0, False),
         fixed={**_space(2), "grid": (1, 2)}, because=SPACE),
    Case(ATEN.channel_shuffle.default, (t(2, 6, 4, 5), 2)),
    Case(ATEN.channel_shuffle.default, (t(2, 6, 4), 3), note="three groups"),
    Case(ATEN.pixel_shuffle.default, (t(2, 12, 3, 5), 2), fixed=_space(2), because=SPACE),
    Case(ATEN.pixel_shuffle.default, (t(12, 3, 5), 2), note="unbatched", fixed=_space(2, 1), because=SPACE),
    Case(ATEN.pixel_unshuffle.default, (t(2, 3, 4, 6), 2), fixed=_space(2), because=SPACE),
    Case(ATEN.pixel_unshuffle.default, (t(2, 1, 4, 6), 2), note="one channel",
         fixed=_space(2), because=SPACE),
    Case(ATEN.im2col.default, (t(2, 1, 5, 6), [2, 3], [1, 1], [0, 0], [1, 1]), note="one channel",
         fixed=_space(2), because=SPACE),
    Case(ATEN.sum.dim_IntList, (t(), [0]), note="of a scalar"),
    Case(ATEN.cumsum.default, (t(), 0), note="of a scalar"),
    Case(ATEN.im2col.default, (t(2, 3, 5, 6), [2, 3], [1, 1], [0, 0], [1, 1]),
         fixed=_space(2), because=SPACE),
    Case(ATEN.col2im.default, (t(2, 18, 16), [5, 6], [2, 3], [1, 1], [0, 0], [1, 1]),
         fixed={"self": (2,), "out0": (2, 3)}, because=SPACE),
    Case(ATEN.affine_grid_generator.default, (t(2, 2, 3), [2, 3, 4, 5], False),
         fixed={"theta": (0, 1, 2)}, because=SPACE),
]  # fmt: skip

_stats = (t(5), pos(5))
NORM = [
    Case(ATEN.layer_norm.default, (t(2, 3, 5), [5], t(5), t(5))),
    Case(ATEN.layer_norm.default, (t(2, 3, 5), [3, 5], t(3, 5), t(3, 5)), note="two dimensions"),
    Case(ATEN.layer_norm.default, (t(2, 3, 5), [3, 5]), note="two dimensions, no weight"),
    Case(ATEN.layer_norm.default, (t(2, 3, 5), [5]), note="no weight"),
    Case(ATEN.rms_norm.default, (t(2, 3, 5), [5], t(5))),
    Case(ATEN.rms_norm.default, (t(2, 3, 5), [5]), note="no weight"),
    Case(ATEN.group_norm.default, (t(2, 6, 4, 5), 2, t(6), t(6))),
    Case(ATEN.group_norm.default, (t(2, 6, 4), 3), note="no weight"),
    Case(ATEN.group_norm.default, (t(2, 6, 4), 1, t(6), t(6)), note="one group"),
    Case(ATEN.group_norm.default, (t(2, 6, 4), 6, t(6), t(6)), note="a group each"),
    Case(ATEN._native_batch_norm_legit_no_training.default, (t(2, 5, 3, 4), t(5), t(5), *_stats, 0.1, 1e-5)),
    Case(
        ATEN._native_batch_norm_legit_no_training.default,
        (t(3, 5), None, None, *_stats, 0.1, 1e-5),
        note="bare",
    ),
    Case(ATEN._native_batch_norm_legit.no_stats, (t(2, 5, 3), t(5), t(5), True, 0.1, 1e-5)),
    Case(
        ATEN._native_batch_norm_legit.default,
        (t(2, 5, 3), t(5), t(5), *_stats, False, 0.1, 1e-5),
        note="evaluating",
    ),
    Case(ATEN.instance_norm.default, (t(2, 5, 3, 4), t(5), t(5), None, None, True, 0.1, 1e-5, False)),
    Case(ATEN._log_softmax.default, (t(3, 5), 1, False)),
    Case(ATEN._softmax.default, (t(3, 5), 0, False)),
    Case(ATEN._safe_softmax.default, (t(3, 5), -1)),
    Case(ATEN.log_softmax.int, (t(3, 5), 1)),
    Case(ATEN.softmax.int, (t(3, 5), 0)),
    Case(ATEN._weight_norm.default, (t(5, 3, 2), pos(5, 1, 1), 0)),
    Case(ATEN._weight_norm_interface.default, (t(5, 3, 2), pos(5, 1, 1), 0)),
    Case(ATEN._weight_norm_interface.default, (t(5, 3, 2), pos(1, 1, 2), 2), note="the last"),
]

_REDUCE = ["amax", "amin", "mean", "sum", "nansum", "linalg_vector_norm", "logsumexp"]
_OVERLOAD = {"mean": "dim", "sum": "dim_IntList"}


def _reduce(name: str, dims: list[int], keepdim: bool) -> Case:
    op = getattr(getattr(ATEN, name), _OVERLOAD.get(name, "default"))
    args = (t(3, 4, 5), 2, dims, keepdim) if name == "linalg_vector_norm" else (t(3, 4, 5), dims, keepdim)
    return Case(op, args, note=f"{dims}{' kept' if keepdim else ''}")


REDUCE = [_reduce(n, d, k) for n in _REDUCE for d, k in (([1], False), ([1], True), ([0, -1], False))] + [
    Case(getattr(ATEN, name).default, (t(3, 4),), note="all")
    for name in ("mean", "sum", "amax", "prod", "var", "std", "linalg_vector_norm", "any", "all",
                 "count_nonzero", "max", "min", "median", "std_mean", "var_mean")
] + [
    Case(ATEN.var.dim, (t(3, 4), [0])),
    Case(ATEN.var.correction, (t(3, 4), [0]), {"correction": 0, "keepdim": True}, note="kept"),
    Case(ATEN.std.dim, (t(3, 4), [1])),
    Case(ATEN.var_mean.correction, (t(3, 4), [1]), {"keepdim": True}),
    Case(ATEN.std_mean.correction, (t(3, 4), [1])),
    Case(ATEN.prod.dim_int, (t(3, 4), 1, True)),
    Case(ATEN.norm.Scalar, (t(3, 4), 2), note="all"),
    Case(ATEN.norm.ScalarOpt_dim, (t(3, 4), 2, [1])),
    Case(ATEN.any.dim, (t(3, 4) > 5, 1)),
    Case(ATEN.all.dim, (t(3, 4), 1)),
    Case(ATEN.any.dims, (t(3, 4), [1], True), note="kept"),
    Case(ATEN.count_nonzero.dim_IntList, (t(3, 4), [1])),
    Case(ATEN.max.other, (t(3, 4), t(4)), note="of two"),
    Case(ATEN.min.other, (t(3, 4), t(3, 4)), note="of two"),
]  # fmt: skip

SCAN = [
    Case(ATEN.cumsum.default, (t(3, 5), 1)),
    Case(ATEN.cumsum.default, (t(3, 5), -2), note="negative"),
    Case(ATEN.cumprod.default, (t(3, 5), 1)),
    Case(ATEN.logcumsumexp.default, (t(3, 5), 1)),
    Case(ATEN.cummax.default, (torch.arange(15.0).double().reshape(3, 5), 1)),
    Case(ATEN.cummin.default, (-torch.arange(15.0).double().reshape(3, 5), 1)),
    Case(ATEN.tril.default, (pos(2, 5, 5),)),
    Case(ATEN.triu.default, (pos(2, 5, 4), -1), fixed={"self": (1, 2)}, because=SPACE),
]

CONSTANT = [
    *(Case(getattr(ATEN, n).default, (t(3, 4),)) for n in ("zeros_like", "ones_like", "zero")),
    *(Case(getattr(ATEN, n).default, (t(3, 4), [2, 5])) for n in ("new_zeros", "new_ones")),
    *(Case(getattr(ATEN, n).default, ([2, 5],)) for n in ("zeros", "ones")),
    Case(ATEN.full.default, ([2, 5], 1.0)),
    Case(ATEN.full_like.default, (t(3, 4), 1.0)),
    Case(ATEN.new_full.default, (t(3, 4), [2, 5], 1.0)),
    Case(ATEN.fill.Scalar, (t(3, 4), 1.0)),
    Case(ATEN.scalar_tensor.default, (1.0,)),
    Case(ATEN.arange.default, (5,)),
    Case(ATEN.linspace.default, (0, 1, 5)),
    Case(ATEN.logspace.default, (0, 1, 5)),
    Case(ATEN.eye.default, (3,)),
    Case(ATEN.tril_indices.default, (3, 3)),
    Case(ATEN.triu_indices.default, (3, 3)),
]

_complex = torch.complex(t(3, 4), t(3, 4))
POINTWISE = [
    Case(getattr(ATEN, name).default, (t(3, 4),))
    for name in ("alias", "alias_copy", "clone", "contiguous", "detach", "detach_copy", "lift_fresh_copy",
                 "hardswish", "log_sigmoid", "_to_copy", "_neg_view", "real")
] + [
    Case(ATEN._conj.default, (_complex,)),
    Case(ATEN.imag.default, (_complex,)),
    Case(ATEN.to.dtype, (t(3, 4), torch.float64)),
    Case(ATEN.dropout.default, (t(3, 4), 0.5, False)),
    Case(ATEN.feature_dropout.default, (t(3, 4), 0.5, False)),
    Case(ATEN.native_dropout.default, (t(3, 4), 0.5, False)),
    Case(ATEN.prelu.default, (t(2, 3, 4), t(3))),
    Case(ATEN.prelu.default, (t(2, 3, 4), t(1)), note="one slope"),
    Case(ATEN.prelu.default, (t(3), t(1)), note="a vector"),
    Case(ATEN._prelu_kernel.default, (t(2, 3, 4), t(1, 3, 1))),
    Case(ATEN.glu.default, (t(3, 8),)),
    Case(ATEN.glu.default, (t(3, 6, 4), 1), note="channels"),
    Case(ATEN.relu.default, (t(3, 4),)),
    Case(ATEN.gelu.default, (t(3, 4),)),
    Case(ATEN.add.Tensor, (t(3, 4), t(4)), note="broadcast"),
    Case(ATEN.add.Tensor, (t(2, 1, 4), t(3, 1)), note="broadcast both ways"),
    Case(ATEN.mul.Tensor, (t(3, 4), t(3, 4))),
    Case(ATEN.mul.Tensor, (t(3, 4), t()), note="a number"),
    Case(ATEN.where.self, (pos(3, 1) > 5, t(3, 4), t(4))),
    Case(ATEN.addcmul.default, (t(3, 4), t(4), t(3, 1))),
    Case(ATEN.masked_fill.Scalar, (t(3, 4), torch.tensor([True, False, True, True]), 0.0),
         fixed={"self": (1,)}, because="alike under a fixed mask"),
]  # fmt: skip

CASES = [*SPATIAL, *NORM, *REDUCE, *SCAN, *CONSTANT, *POINTWISE]
