"""Normalisation and softmax: they mix the positions of an axis, but treat all of them alike."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value


@RULES.rule("aten._native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> list[Value]:
    """batch_norm(input [n, c, ...], weight?, bias?, running_mean, running_var, ...) -> (out, save, save)"""
    values = [call["input"], call["weight"], call["bias"], call["running_mean"], call["running_var"]]
    return call.relate(f"n c ..., c?, c?, c?, c? -> n c ..., {_saved(call)} | z", *values)


def _saved(call: Call) -> str:
    """The terms of the two saved statistics, which may be empty."""
    return ", ".join("c" if shape != (0,) else "z" for _, shape in call.outputs[1:])


@RULES.rule("aten._native_batch_norm_legit")
def batch_norm_of_batch(call: Call) -> list[Value]:
    """As above, or no_stats(input [n, c, ...], weight?, bias?, bool training, ...)"""
    values = [call.args.get(k) for k in ("input", "weight", "bias", "running_mean", "running_var")]
    text = f"n c ..., c?, c?, c?, c? -> n c ..., {_saved(call)} | z"
    return call.mixing(text, "c", call["input"].shape[1:2], *values)


@RULES.rule("aten.layer_norm", "aten.rms_norm")
def layer_norm(call: Call) -> list[Value]:
    """layer_norm(input, int[] normalized_shape, weight?, bias?): over the last dimensions"""
    count = len(call["normalized_shape"])
    axes = " ".join("abcdef"[:count])
    x: Value = call["input"]
    text = f"... {axes}, {axes}?, {axes}? -> ... {axes}"
    return call.mixing(text, "...", x.shape[: x.rank - count], x, call["weight"], call.args.get("bias"))


@RULES.rule("aten.group_norm")
def group_norm(call: Call) -> list[Value]:
    """group_norm(input [n, g*c, ...], int num_groups, weight?, bias?): over each group's channels"""
    text = "n (g c) ..., (g c)?, (g c)? -> n (g c) ..."
    x, groups = call["input"], call["num_groups"]
    return call.mixing(text, "n g", (x.shape[0], groups), x, call["weight"], call["bias"], g=groups)


@RULES.rule("aten.instance_norm")
def instance_norm(call: Call) -> list[Value]:
    """instance_norm(input [n, c, ...], weight?, bias?, running_mean?, running_var?, ...)"""
    values = [call[k] for k in ("input", "weight", "bias", "running_mean", "running_var")]
    return call.mixing("n c ..., c?, c?, c?, c? -> n c ...", "n c", call["input"].shape[:2], *values)


@RULES.rule("aten._log_softmax", "aten._softmax", "aten._safe_softmax", "aten.log_softmax", "aten.softmax")
def softmax(call: Call) -> list[Value]:
    """softmax.int(self, int dim): each number divided by a sum over ``dim``"""
    x: Value = call["self"]
    if x.rank == 0:
        return call.relate("->", x)
    axis = call["dim"] % x.rank
    letters = list("abcdefgh"[: x.rank])
    sums = [c for k, c in enumerate(letters) if k != axis]
    sizes = tuple(n for k, n in enumerate(x.shape) if k != axis)
    return call.mixing(f"{' '.join(letters)} -> {' '.join(letters)}", " ".join(sums), sizes, x)


@RULES.rule("aten._weight_norm_interface", "aten._weight_norm")
def weight_norm(call: Call) -> list[Value]:
    """weight_norm(v, g, int dim) -> v * g / |v|, the norm over all dimensions but ``dim``"""
    v, g = call["v"], call["g"]
    letters = "abcdef"[: v.rank]
    text = f"{' '.join(letters)}, {' '.join(letters)} -> {' '.join(letters)}"
    if len(call.outputs) == 1:
        return call.relate(text, v, g)
    return call.relate(f"{text}, {' '.join(letters)}", v, g)
