"""From a live module to an ONNX program, and what to say when that cannot be done."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.onnx import OnnxExporterError, ONNXProgram

from graphmerge.errors import TraceError, refusal
from graphmerge.export.example import Example, batch_spec

CHATTY = ("torch", "onnxscript", "onnx_ir")
"""Loggers that report their progress as warnings."""

TRACE_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
"""What torch.export raises, its own UserError (a RuntimeError) and what the model's code raises."""

SPECIALISED = ("Constraints violated", "specialized")
"""What torch.export's message holds when a dimension declared dynamic turned out constant."""

BATCH_NAME = "batch"
STACK_TRACE = "pkg.torch.onnx.stack_trace"


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module's own mode restored after.

    Attention takes another kernel, with other strides, where a bias is to be differentiated.
    """
    modes = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, log lines below ERROR and prints of the exporter; exceptions pass."""
    dump = io.StringIO()
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    try:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(dump), contextlib.redirect_stderr(dump):
                yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def spelled_out(model: nn.Module, example: Example) -> Iterator[None]:
    """Inside, a ``forward(**inputs)`` names the inputs of the example one by one.

    torch.export takes dynamic shapes of inputs by the names in the signature, and does not find those
    that two stars collect.
    """
    signature = inspect.signature(model.forward)
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [n for n in example.kwargs if n not in signature.parameters]
    if not more:
        yield
        return
    forward, own = model.forward, "forward" in vars(model)

    @functools.wraps(forward)
    def explicit(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    named += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in more]
    explicit.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    model.forward = explicit
    try:
        yield
    finally:
        if own:
            model.forward = forward
        else:
            del model.forward


def capture(model: nn.Module, example: Example, dynamic: bool) -> ExportedProgram:
    """Trace the module on the example; with ``dynamic`` the batch is a symbol in every batched input.

    Raises
    ------
    TraceError
        torch.export refuses; the message tells when the cause is a batch that the model fixes.
    """
    try:
        with spelled_out(model, example):
            shapes = batch_spec(model, example, Dim.DYNAMIC) if dynamic else None
            return torch.export.export(
                model, example.args, example.kwargs, dynamic_shapes=shapes, strict=False
            )
    except TRACE_ERRORS as error:
        reason = _first_line(error)
        if dynamic and any(word in str(error) for word in SPECIALISED):
            raise TraceError(_specialised(model, example, str(error))) from error
        raise TraceError(_untraceable(model, reason, dynamic)) from error


def convert(
    program: ExportedProgram, model: nn.Module, example: Example, dynamic: bool, opset: int | None
) -> ONNXProgram:
    """Translate a traced program to ONNX operators; the batch symbol is named ``batch``.

    The exporter's stack traces are taken out: they would publish the paths of this machine.

    Raises TraceError that names the operator which has no ONNX form.
    """
    tensors = [leaf for leaf in example.leaves() if isinstance(leaf, Tensor)]
    names = (
        tuple({0: BATCH_NAME} if example.is_batched(tensor) else None for tensor in tensors)
        if dynamic
        else None
    )
    try:
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=opset, dynamic_shapes=names
        )
    except OnnxExporterError as error:
        raise TraceError(_unconvertible(model, error)) from error
    if converted is None:
        raise TraceError(_unconvertible(model, OnnxExporterError("the exporter returned nothing")))
    for node in converted.model.graph.all_nodes():
        node.metadata_props.pop(STACK_TRACE, None)
    return converted


def _untraceable(model: nn.Module, reason: str, dynamic: bool) -> str:
    return refusal(
        f"{type(model).__name__} cannot be traced for ONNX.",
        expected="a forward pass whose control flow does not depend on tensor values",
        seen=reason,
        means="no ONNX file was written; merged weights are not affected",
        fix="replace the value-dependent step by torch.where or torch.cond, turn caches off (use_cache=False)"
        + (", or pass dynamic_batch=False if the batch is fixed" if dynamic else ""),
    )


def _specialised(model: nn.Module, example: Example, reason: str) -> str:
    line = next(
        (s.strip(" -") for s in reason.splitlines() if "specialized" in s), reason.strip().splitlines()[0]
    )
    return refusal(
        f"{type(model).__name__} fixes the batch size.",
        expected="a forward pass that works for any batch",
        seen=line[:300],
        means=f"the ONNX file would only run with a batch of {example.batch}; none was written",
        fix="pass dynamic_batch=False for a file of fixed batch, or use x.shape[0] and -1 in the model",
    )


def _unconvertible(model: nn.Module, error: OnnxExporterError) -> str:
    text = "\n".join(str(link) for link in _chain(error))
    found = re.search(
        r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'", text
    ) or re.search(r"torch\.ops\.([\w.]+)\.(\w+)\]?\(", text)
    operator = ".".join(found.groups()) if found else "an operator that the exporter does not name"
    causes = [_first_line(link) for link in _chain(error)]
    return refusal(
        f"{type(model).__name__} has no ONNX form: {operator}.",
        expected="operators that torch.onnx can translate",
        seen=causes[-1],
        means="no ONNX file was written; merged weights are not affected",
        fix="replace the operator by standard ones for export, or deploy the weights with the torch module",
    )


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = [error]
    while links[-1].__cause__ is not None:
        links.append(links[-1].__cause__)
    return links


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
