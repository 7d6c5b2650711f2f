"""Normalisation and softmax: they mix the positions of an axis, but treat all of them alike."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value

_BATCH_NORM = "n c ..., c?, c?, c?, c? -> n c ..., {a}, {b}"


@RULES.rule("aten._native_batch_norm_legit_no_training")
def batch_norm(call: Call) -> list[Value]:
    """batch_norm(input [n, c, ...], weight?, bias?, running_mean, running_var, ...) -> (out, save, save)"""
    saved = ["c" if shape != (0,) else "z" for _, shape in call.outputs[1:]]
    values = (call["input"], call["weight"], call["bias"], call["running_mean"], call["running_var"])
    return call.relate(_BATCH_NORM.format(a=saved[0], b=saved[1]) + " | z", *values)


@RULES.rule("aten._native_batch_norm_legit")
def batch_norm_without_statistics(call: Call) -> list[Value]:
    """no_stats(input [n, c, ...], weight?, bias?, bool training, ...) -> (out, save, save)"""
    saved = ["c" if shape != (0,) else "z" for _, shape in call.outputs[1:]]
    text = f"n c ..., c?, c? -> n c ..., {saved[0]}, {saved[1]} | z"
    return call.relate(text, call["input"], call["weight"], call["bias"])


@RULES.rule("aten.layer_norm", "aten.rms_norm")
def layer_norm(call: Call) -> list[Value]:
    """layer_norm(input, int[] normalized_shape, weight?, bias?): over the last dimensions"""
    axes = " ".join("abcdef"[: len(call["normalized_shape"])])
    values = [call["input"], call["weight"], call.args.get("bias")]
    return call.relate(f"... {axes}, {axes}?, {axes}? -> ... {axes}", *values)


@RULES.rule("aten.group_norm")
def group_norm(call: Call) -> list[Value]:
    """group_norm(input [n, g*c, ...], int num_groups, weight?, bias?): over each group's channels"""
    text = "n (g c) ..., (g c)?, (g c)? -> n (g c) ..."
    return call.relate(text, call["input"], call["weight"], call["bias"], g=call["num_groups"])


RULES.texts(
    {
        "aten._log_softmax": "... -> ...",
        "aten._softmax": "... -> ...",
        "aten.instance_norm": "n c ..., c?, c?, c?, c? -> n c ...",
        "aten.log_softmax": "... -> ...",
        "aten.softmax": "... -> ...",
        "aten._safe_softmax": "... -> ...",
    }
)


@RULES.rule("aten._weight_norm_interface", "aten._weight_norm")
def weight_norm(call: Call) -> list[Value]:
    """weight_norm(v, g, int dim) -> v * g / |v|, the norm over all dimensions but ``dim``"""
    v, g = call["v"], call["g"]
    letters = "abcdef"[: v.rank]
    text = f"{' '.join(letters)}, {' '.join(letters)} -> {' '.join(letters)}"
    if len(call.outputs) == 1:
        return call.relate(text, v, g)
    return call.relate(f"{text}, {' '.join(letters)}", v, g)
