"""The comparison itself, against a stand-in for onnxruntime."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail  # type: ignore[import-untyped]
from torch import Tensor, nn

from graphmerge.errors import GateError
from graphmerge.export.example import example_of
from graphmerge.export.parity import Parity, Tolerance

NAN, INF = float("nan"), float("inf")


class StandIn:
    """A session with one input ``x`` that returns what it was given at the start."""

    def __init__(self, *outputs: Any) -> None:
        self.outputs = outputs

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="x")]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=f"y{i}") for i in range(len(self.outputs))]

    def run(self, _: None, feeds: dict[str, Any]) -> list[Any]:
        assert list(feeds) == ["x"]
        if isinstance(self.outputs[0], Exception):
            raise self.outputs[0]
        return list(self.outputs)


class Fixed(nn.Module):
    """Returns a given tensor, and spoils its input in place."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        x.zero_()
        return self.output


def max_error(torch_output: list[float], *onnx_outputs: Any) -> float:
    parity = Parity(
        StandIn(*onnx_outputs),
        Fixed(torch.tensor(torch_output)),
        ["x"],
        Tolerance(1e-3, 1e-2),
        Path("m.onnx"),
    )
    return parity.max_error(example_of((torch.ones(2, 3),), None))


@pytest.mark.parametrize(
    ("wanted", "got", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0.0),
        ([100.0, 0.0], [100.5, 0.0], 0.5),
    ],
)
def test_agreeing_outputs_pass(wanted: list[float], got: list[float], error: float) -> None:
    assert max_error(wanted, np.array(got, np.float32)) == error


@pytest.mark.parametrize(
    ("wanted", "got", "fragment"),
    [
        ([0.0, 1.0], [0.002, 1.0], "a difference of 0.002"),
        ([NAN, 1.0], [1.0, 1.0], "a difference of inf"),
        ([1.0, 1.0], [NAN, 1.0], "a difference of inf"),
        ([INF, 1.0], [5.0, 1.0], "a difference of inf"),
        ([INF, 1.0], [-INF, 1.0], "a difference of inf"),
        ([1.0, 1.0], [1.0], r"shape \(2,\)"),
    ],
)
def test_differing_outputs_are_refused(wanted: list[float], got: list[float], fragment: str) -> None:
    with pytest.raises(GateError, match=fragment) as caught:
        max_error(wanted, np.array(got, np.float32))
    assert "output 'y0' at batch 2" in str(caught.value)


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(GateError, match="1 tensors"):
        max_error([1.0], np.ones(1), np.ones(1))


def test_failure_of_onnxruntime_is_passed_on_with_its_reason() -> None:
    with pytest.raises(GateError, match="cannot run a batch of 2") as caught:
        max_error([1.0], Fail("bad shape"))
    assert "bad shape" in str(caught.value)
