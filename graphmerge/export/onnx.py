"""Export a module as an ONNX file that was checked against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from graphmerge.errors import GateError, TraceError, refusal
from graphmerge.export.capture import BATCH_NAME, capture, convert, evaluating, quiet
from graphmerge.export.example import example_of, randomised, widened
from graphmerge.export.parity import Parity, Tolerance, open_session
from graphmerge.files.staging import publish_file, refuse_unless_file, staging, system_faults

SINGLE_FILE_LIMIT = 3 << 29
"""Bytes of weights in one file, where torch's exporter draws the line; protobuf ends at 2 GiB."""

CHECKABLE = (torch.float16, torch.float32, torch.float64)
"""Float dtypes that onnxruntime computes on the CPU."""


@dataclass(frozen=True)
class OnnxReport:
    """What was written. ``max_error`` is the largest absolute output difference by batch size."""

    path: Path
    opset: int
    nodes: int
    bytes: int
    max_error: Mapping[int, float]
    external_data: bool
    dynamic: bool


def export_onnx(
    model: nn.Module,
    path: str | Path,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    batch_sizes: Sequence[int] = (1, 2, 7),
    metadata: Mapping[str, str] | None = None,
    atol: float = 1e-4,
    rtol: float = 1e-3,
    opset: int | None = None,
) -> OnnxReport:
    """Write ``model`` as ONNX, once onnxruntime has given the module's outputs from it.

    The module runs in evaluation mode, restored after; its weights and ties are not touched.

    Parameters
    ----------
    path
        The file to write. Weights too large for one file go to ``path`` + ``.data`` beside it.
    args, kwargs
        Example inputs of ``forward``. Dimension 0 of the first tensor, and of every other tensor
        of that size there, is the batch.
    dynamic_batch
        Whether the file takes any batch size; otherwise only that of the example.
    batch_sizes
        The sizes at which outputs are compared, on random inputs (see ``randomised``).
    metadata
        Entries for the file's ``metadata_props``.
    atol, rtol
        Outputs agree when ``|onnx - torch| <= atol + rtol * |torch|``.
    opset
        The ONNX operator set, the exporter's default when None.

    Raises
    ------
    TraceError
        The module cannot be traced or translated, or fixes its batch.
    GateError
        The file is invalid or computes something else.
    UsageError
        The inputs hold no tensor, or ``path`` is a link, a folder or a device.
    SystemFault
        The file cannot be written. In every case an earlier file is as it was.
    """
    target = Path(path)
    refuse_unless_file(target)
    _refuse_unchecked_dtypes(model)
    example = widened(example_of(args, kwargs)) if dynamic_batch else example_of(args, kwargs)
    sizes = batch_sizes if dynamic_batch else (example.batch,)
    with evaluating(model), quiet(), staging(target, _weight_bytes(model)) as part:
        traced = capture(model, example, dynamic_batch)
        program = convert(traced, model, example, dynamic_batch, opset)
        program.model.metadata_props.update(metadata or {})
        staged = part / target.name
        _save(program, staged, _weight_bytes(model))
        _check(staged, target)
        names = traced.graph_signature.user_inputs
        parity = Parity(open_session(staged, target), model, names, Tolerance(atol, rtol), target)
        errors = {size: parity.max_error(randomised(example, size)) for size in sizes}
        report = _report(staged, target, errors)
        _publish(staged, target)
    return report


def _save(program: ONNXProgram, path: Path, weight_bytes: int) -> None:
    with system_faults("write", path):
        program.save(path, external_data=weight_bytes > SINGLE_FILE_LIMIT)


def _check(staged: Path, target: Path) -> None:
    try:
        onnx.checker.check_model(str(staged))
    except onnx.checker.ValidationError as error:
        raise GateError(
            refusal(
                f"{str(target)!r} would not be a valid ONNX file.",
                expected="a file that onnx.checker accepts",
                seen=str(error).strip()[:300],
                means="the exporter wrote something wrong; the file was not kept",
                fix="try another opset, and report the model as an exporter's defect",
            )
        ) from error


def _report(staged: Path, target: Path, errors: Mapping[int, float]) -> OnnxReport:
    model = onnx.load(staged, load_external_data=False)
    first_dims = [i.type.tensor_type.shape.dim[:1] for i in model.graph.input]
    return OnnxReport(
        path=target,
        opset=next(entry.version for entry in model.opset_import if not entry.domain),
        nodes=len(model.graph.node),
        bytes=sum(file.stat().st_size for file in staged.parent.iterdir()),
        max_error=errors,
        external_data=_data_of(staged).exists(),
        dynamic=any(dim.dim_param == BATCH_NAME for dims in first_dims for dim in dims),
    )


def _publish(staged: Path, target: Path) -> None:
    """The weights first, so that the model file never names weights that are not there."""
    if _data_of(staged).exists():
        publish_file(_data_of(staged), _data_of(target))
    publish_file(staged, target)


def _data_of(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _weight_bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(model))


def _refuse_unchecked_dtypes(model: nn.Module) -> None:
    odd = sorted(
        {str(t.dtype) for t in _tensors(model) if t.is_floating_point() and t.dtype not in CHECKABLE}
    )
    if odd:
        raise TraceError(
            refusal(
                f"{type(model).__name__} holds weights that onnxruntime cannot compute with on the CPU.",
                expected="float16, float32 or float64",
                seen=", ".join(odd),
                means="the exported file could not be checked against the model",
                fix="export model.float()",
            )
        )
