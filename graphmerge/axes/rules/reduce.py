"""Reductions, scans, factories and what returns nothing."""

from __future__ import annotations

import torch

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import ANY, Value, holds

_LETTERS = "abcdefgh"


def dims_of(call: Call, rank: int) -> list[int]:
    dims = call.args.get("dim")
    if dims is None or dims == []:
        return list(range(rank))
    return [d % rank for d in ([dims] if isinstance(dims, int) else dims)]


@RULES.rule(
    "aten.amax", "aten.amin", "aten.mean", "aten.sum", "aten.prod", "aten.var", "aten.std", "aten.logsumexp",
    "aten.linalg_vector_norm", "aten.norm", "aten.any", "aten.all", "aten.var_mean", "aten.std_mean",
    "aten.count_nonzero", "aten.nansum",
)  # fmt: skip
def reduction(call: Call) -> list[Value]:
    """mean.dim(self, int[]? dim, bool keepdim): the same whatever the order along ``dim``"""
    x = call.tensors()[0]
    letters = list(_LETTERS[: x.rank])
    gone = dims_of(call, x.rank)
    keep = len(call.outputs[0][1]) == x.rank
    out = ["1" if k in gone else c for k, c in enumerate(letters) if keep or k not in gone]
    return call.relate(" ".join(letters) + " -> " + ", ".join([" ".join(out)] * len(call.outputs)), x)


def along(call: Call, reason: str) -> list[Value]:
    """Fix the dimension that the operator runs along; all outputs keep the others."""
    x = call.tensors()[0]
    axes = dims_of(call, x.rank) if "dim" in call.args else [x.rank - 1]
    letters = list(_LETTERS[: x.rank])
    fixed = " ".join(letters[k] for k in axes)
    outs = []
    for _, shape in call.outputs:
        kept = len(shape) == x.rank
        out = [("z" if k in axes else c) for k, c in enumerate(letters) if kept or k not in axes]
        outs.append(" ".join(out))
    if len(call.tensors()) > 1:
        return call.fix_all(reason)
    return call.relate(f"{' '.join(letters)} -> {', '.join(outs)} | {fixed} z", x)


@RULES.rule("aten.cumprod", "aten.cummax", "aten.cummin", "aten.logcumsumexp")
def scan(call: Call) -> list[Value]:
    """cumprod(self, int dim): each position depends on those before it"""
    return along(call, "accumulated along it")


@RULES.rule("aten.tril", "aten.triu")
def triangle(call: Call) -> list[Value]:
    """tril(self, SymInt diagonal): keeps a part told by position"""
    return call.relate("... s t -> ... s t | s t", call["self"])


@RULES.rule(
    "aten.full", "aten.zeros", "aten.ones", "aten.scalar_tensor", "aten.full_like", "aten.zeros_like",
    "aten.ones_like", "aten.new_zeros", "aten.new_ones", "aten.new_full", "aten.empty", "aten.empty_like",
    "aten.empty_permuted", "aten.new_empty", "aten.fill", "aten.empty_strided", "aten.zero",
    "aten.new_empty_strided",
)  # fmt: skip
def uniform(call: Call) -> list[Value]:
    """full(SymInt[] size, Scalar fill_value): the same value everywhere"""
    return [Value(name, shape, [ANY] * len(shape)) for name, shape in call.outputs]


@RULES.rule(
    "aten.arange", "aten.linspace", "aten.logspace", "aten.eye", "aten.tril_indices", "aten.triu_indices",
    "aten.rand", "aten.randn", "aten.randint", "aten.randperm", "aten.rand_like", "aten.randn_like",
    "aten.bernoulli", "aten.affine_grid_generator",
)  # fmt: skip
def numbered(call: Call) -> list[Value]:
    """arange(Scalar end): every position has a value of its own"""
    for value in call.tensors():
        for axis in range(value.rank):
            call.fix(value, axis, "positions are numbered")
    results = call.fixed("positions are numbered")
    if call.op == "aten.arange" and not call.args.get("start") and call.args.get("step") in (None, 1):
        exact = holds(call.args.get("dtype"), torch.arange(results[0].shape[0]))
        results[0].counted = 0 if exact else None
    return results


@RULES.rule(
    "aten._assert_tensor_metadata", "aten._assert_async", "aten._assert_scalar", "aten.sym_size",
    integers="read",
)  # fmt: skip
def nothing(_: Call) -> list[Value]:
    """A check that returns no tensor."""
    return []
