"""torch.export, decomposed to operators that have a rule and kept whole where one says more.

The keep table leaves composites such as linear, attention and LSTM as one node: their meaning is
in their name, and core ATen would unroll them into views that say less.
"""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from graphmerge.errors import TraceError, listing, out_of_memory, refusal
from graphmerge.progress import Progress, silent
from graphmerge.trace.memory import overlaps, ties, unsaved
from graphmerge.trace.program import Program, Tensor
from graphmerge.trace.source import of_torch

KEEP = (
    "linear", "scaled_dot_product_attention", "layer_norm", "group_norm", "instance_norm", "rms_norm",
    "conv1d", "conv1d.padding", "conv2d", "conv2d.padding", "conv3d", "conv3d.padding", "conv_transpose1d",
    "conv_transpose2d.input", "conv_transpose3d.input", "lstm.input", "gru.input", "rnn_tanh.input",
    "rnn_relu.input", "matmul", "einsum", "embedding", "embedding_bag.padding_idx", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "gelu", "silu", "hardswish", "hardsigmoid", "mish", "softplus",
    "elu", "leaky_relu", "glu", "softmax.int", "dropout", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d",
    "upsample_bilinear2d.vec", "upsample_nearest2d.vec", "_grouped_mm", "prelu", "roll", "flip", "bilinear",
    "select_scatter", "max_unpool2d", "max_unpool3d",
)  # fmt: skip
"""Composites that torch.export must not take apart."""


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def keep_table() -> dict[Any, Callable[..., Any]]:
    """torch's default decompositions less those of ``KEEP``."""
    table: Any = torch.export.default_decompositions()
    for name in KEEP:
        table.pop(_overload(name), None)
    return dict(table)


@contextlib.contextmanager
def quiet_eval(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode restored after; torch's chatter silenced."""
    modes = {m: m.training for m in model.modules()}
    level = logging.getLogger("torch").level
    try:
        model.eval()
        logging.getLogger("torch").setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch").setLevel(level)
        for m, mode in modes.items():
            m.training = mode


def export_program(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Program:
    """Trace ``model`` in evaluation mode on example inputs, on whatever device it lives.

    Raises TraceError with torch's reason and the source line where the model cannot be exported.
    """
    args, kwargs = tuple(args), dict(kwargs or {})
    return program_of(model, exported(model, args, kwargs, progress), (args, kwargs))


def exported(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], progress: Progress = silent
) -> ExportedProgram:
    """What torch.export makes of the model, decomposed by the keep table."""
    _require_real_weights(model)
    with quiet_eval(model):
        try:
            progress(f"exporting {type(model).__name__}")
            program = torch.export.export(model, args, kwargs, strict=False)
            progress(f"decomposing {len(program.graph.nodes)} operators")
            decomposed: ExportedProgram = program.run_decompositions(keep_table())
            return decomposed
        except Exception as error:
            if out_of_memory(error):
                raise
            raise _refusal(model, error, _why_it_does_not_run(model, args, kwargs)) from error


QUANTISED = r"torch\.ao\.nn\.(intrinsic\.)?quantized\b"
"""Where torch's quantised modules are defined."""


def _require_real_weights(model: nn.Module) -> None:
    """Raise TraceError for weights that are complex, or packed by quantisation."""
    packed = [n for n, m in model.named_modules() if re.match(QUANTISED, type(m).__module__)]
    complex_ = [n for n, p in model.named_parameters() if p.is_complex()]
    if packed or complex_:
        later = "merge before quantising, then quantise the merged model"
        parts = "hold real and imaginary part as two parameters (torch.complex joins them)"
        raise TraceError(
            refusal(
                f"{type(model).__name__} has {'quantised modules' if packed else 'complex parameters'}.",
                expected="parameters that are real floating-point tensors",
                seen=listing(packed or complex_),
                means="their average is no average of what they stand for",
                fix=later if packed else parts,
            )
        )


def _why_it_does_not_run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """What the model itself says of these inputs; nothing where it runs on them, or has no weights to run."""
    if any(p.is_meta for p in model.parameters()):
        return ""
    try:
        model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - a foreign module may raise anything
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def _refusal(model: nn.Module, error: Exception, does_not_run: str) -> TraceError:
    """torch.export's own reason, and the deepest source line that is not torch's; or the model's own."""
    if does_not_run:
        return TraceError(
            refusal(
                f"{type(model).__name__} does not run on the example inputs.",
                expected="inputs of the shapes, types and names that its forward takes",
                seen=does_not_run,
                means="there is nothing to trace",
                fix="give other example inputs (--input on the command line)",
            )
        )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not of_torch(f.filename)]
    outside = [f for f in frames if "graphmerge" not in f.filename]
    place = (
        f"{outside[-1].filename}:{outside[-1].lineno}: {outside[-1].line}"
        if outside
        else "inside torch.export"
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return TraceError(
        f"{type(model).__name__} cannot be traced by torch.export: {reason}\n"
        f"  at {place}\n"
        "  Expected: a forward pass whose control flow does not depend on tensor values, with inputs and"
        " outputs made of tensors.\n"
        "  To do: rewrite that line with torch.where or torch.cond, turn caches off (use_cache=False), or"
        " trace a submodule."
    )


def program_of(model: nn.Module, program: ExportedProgram, example: Any) -> Program:
    """The graph of an exported model, with what each of its placeholders is."""
    state = model.state_dict()
    aliases = ties(state)
    tensors: dict[str, Tensor] = {}
    constants: dict[str, torch.Tensor] = {}
    inputs: dict[str, str] = {}
    for spec in program.graph_signature.input_specs:
        name, target = spec.arg.name, spec.target
        persistent = spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent)
        if persistent and target is not None:
            t = program.state_dict[target]
            names = (target, *(a for a in aliases.get(target, ()) if a != target))
            tensors[name] = Tensor(names, tuple(t.shape), t.dtype, spec.kind is InputKind.BUFFER)
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR) and target is not None:
            constants[name] = program.constants[target]
        elif spec.kind is not InputKind.TOKEN:  # which only orders calls with effects, such as assertions
            inputs[name] = name
    _read_under_one_name(program.graph_module.graph, tensors)
    used = {n.name for n in program.graph.nodes if n.op == "placeholder" and n.users}
    read = {n for p, t in tensors.items() if p in used for n in t.names}
    unused = tuple(n for n in state if n in aliases and n not in read)
    live = {p: t for p, t in tensors.items() if p in used}
    held = {n: ("its memory is also another tensor's", b) for n, b in overlaps(state, constants).items()}
    lost = {n for t in live.values() for n in t.names} & unsaved(model, state)
    held |= {n: ("the state dict holds it in another form, or not at all", n) for n in sorted(lost)}
    return Program(program.graph_module, live, constants, inputs, unused, example, held)


def _read_under_one_name(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """Let all that reads a tensor read one placeholder of its memory: one tensor, with one set of axes."""
    first: dict[frozenset[str], fx.Node] = {}
    for node in graph.find_nodes(op="placeholder"):
        if node.name in tensors and node.users:
            one = first.setdefault(frozenset(tensors[node.name].names), node)
            if one is not node:
                node.replace_all_uses_with(one)
