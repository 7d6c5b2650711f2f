"""Does an ONNX file compute what the torch module computes? Ask onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphmerge.errors import GateError, listing, refusal
from graphmerge.export.example import Example

RUNTIME_ERRORS = (
    ort_state.Fail, ort_state.InvalidArgument, ort_state.InvalidGraph, ort_state.InvalidProtobuf,
    ort_state.NotImplemented, ort_state.RuntimeException,
)  # fmt: skip

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Two values agree when ``|onnx - torch| <= atol + rtol * |torch|``."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class Parity:
    """A comparison to be run: an onnxruntime session against the module it came from.

    ``names`` holds the ONNX input name of each leaf of the example, ``path`` is the file as the
    user knows it.
    """

    session: onnxruntime.InferenceSession
    model: nn.Module
    names: Sequence[object]
    tolerance: Tolerance
    path: Path

    def max_error(self, example: Example) -> float:
        """The largest absolute difference of any output on these inputs.

        Raises
        ------
        GateError
            An output differs beyond the tolerance or in shape, or onnxruntime fails; it names the
            output, the batch, the difference and the tolerance.
        """
        with torch.no_grad():
            leaves = pytree.tree_leaves(_run_torch(self.model, example))
        wanted = [_array(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
        got = self._run_onnx(example)
        names = [value.name for value in self.session.get_outputs()]
        if len(got) != len(wanted):
            expected, seen = f"{len(wanted)} tensors", f"{len(got)}: {listing(names)}"
            raise GateError(_mismatch(self.path, "the outputs", example.batch, expected, seen))
        compared = zip(names, got, wanted, strict=True)
        return max((self._difference(*output, example.batch) for output in compared), default=0.0)

    def _run_onnx(self, example: Example) -> list[Array]:
        taken = {value.name for value in self.session.get_inputs()}
        given = zip(self.names, example.leaves(), strict=True)
        feeds = {name: _array(leaf) for name, leaf in given if name in taken}
        try:
            outputs: list[Array] = self.session.run(None, feeds)
        except RUNTIME_ERRORS as error:
            raise GateError(_runtime_refusal(self.path, f"run a batch of {example.batch}", error)) from error
        return outputs

    def _difference(self, name: str, got: Array, wanted: Array, batch: int) -> float:
        what = f"output {name!r}"
        if got.shape != wanted.shape:
            raise GateError(_mismatch(self.path, what, batch, f"shape {wanted.shape}", f"shape {got.shape}"))
        a, b = got.astype(np.float64), wanted.astype(np.float64)
        alike = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            difference = np.where(alike, 0.0, np.abs(a - b))
            difference[np.isnan(difference)] = np.inf
            allowed = np.where(np.isfinite(b), self.tolerance.atol + self.tolerance.rtol * np.abs(b), 0.0)
        worst = float(difference.max(initial=0.0))
        if not (difference <= allowed).all():
            within = f"differences within {self.tolerance.atol:g} + {self.tolerance.rtol:g} * |torch|"
            raise GateError(_mismatch(self.path, what, batch, within, f"a difference of {worst:.3g}"))
        return worst


def open_session(staged: Path, path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU, silent, with torch's number of threads.

    Raises GateError with onnxruntime's reason when it does not accept the file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(staged, options, providers=["CPUExecutionProvider"])
    except RUNTIME_ERRORS as error:
        raise GateError(_runtime_refusal(path, "load the file", error)) from error


def _run_torch(model: nn.Module, example: Example) -> Any:
    """The model on copies of the inputs, lest an in-place operator changes what onnxruntime reads."""
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (example.args, example.kwargs))
    return model(*args, **kwargs)


def _array(tensor: Tensor) -> Array:
    """As numpy; complex numbers as the exporter lays them out, ``[..., 2]`` of real and imaginary."""
    plain = tensor.detach().cpu().resolve_conj()
    array: Array = (torch.view_as_real(plain) if plain.is_complex() else plain).numpy()
    return array


def _mismatch(path: Path, what: str, batch: int, expected: str, seen: str) -> str:
    return refusal(
        f"{str(path)!r} does not compute what the model computes: {what} at batch {batch}.",
        expected=expected,
        seen=seen,
        means="the exported file would behave otherwise than the merged model; it was not written",
        fix="if the model computes at low precision raise atol and rtol, if its batch is fixed pass"
        " dynamic_batch=False; otherwise report the model as an exporter's defect",
    )


def _runtime_refusal(path: Path, doing: str, error: BaseException) -> str:
    return refusal(
        f"onnxruntime cannot {doing}: {str(path)!r}.",
        expected="a file that onnxruntime runs on the CPU at every batch size asked for",
        seen=str(error).strip()[:300],
        means="the exported file is of no use as it is; it was not written",
        fix="pass dynamic_batch=False if the batch is fixed, another opset, or export model.float()",
    )
