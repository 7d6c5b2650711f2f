"""Tracing: what comes back, what is restored, what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from graphmerge.errors import TraceError
from graphmerge.trace import export_program
from graphmerge.trace.run import run_together


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(3, 5)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, *, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": self.a(x) + self.b(y), "a": self.a(x)}


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_tied_weights_are_one_tensor_with_both_names() -> None:
    program = export_program(Tied(), (torch.zeros(2, 3, dtype=torch.long),))
    assert [set(t.names) for t in program.tensors.values()] == [{"embed.weight", "head.weight"}]
    assert program.unused == ()


def test_keyword_inputs_several_outputs_and_unused_parameters() -> None:
    program = export_program(TwoInputs(), (torch.randn(2, 4),), {"y": torch.randn(2, 3)})
    assert len(program.inputs) == 2
    assert program.unused == ("idle.weight", "idle.bias")


def test_tracing_works_without_weights() -> None:
    with torch.device("meta"):
        model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)
    assert len(export_program(model, (x,)).tensors) == 4


def test_every_modules_mode_is_restored() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model.train()
    model[1].eval()
    export_program(model, (torch.randn(3, 4),))
    assert [m.training for m in model] == [True, False, True]
    assert model.training


def test_attention_and_recurrence_stay_whole() -> None:
    lstm = export_program(nn.LSTM(4, 5, batch_first=True), (torch.randn(2, 3, 4),))
    assert "aten.lstm.input" in str(lstm.graph.graph)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    graph = str(export_program(layer, (torch.randn(2, 3, 8),)).graph.graph)
    assert "scaled_dot_product_attention" in graph
    assert "aten.addmm" not in graph


def test_a_branch_on_data_is_refused_with_its_source_line() -> None:
    with pytest.raises(TraceError, match=r"if x.sum\(\) > 0") as refusal:
        export_program(Branches(), (torch.randn(3),))
    assert refusal.value.exit_code == 4
    assert "test_export.py" in str(refusal.value)
    assert "torch.cond" in str(refusal.value)


def test_inputs_that_the_model_does_not_take_are_told_as_that(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TraceError, match=r"(?s)does not run on the example inputs.*shapes cannot be mult"):
        export_program(nn.Linear(4, 3), (torch.randn(2, 5),))
    assert not [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]


def test_complex_parameters_are_refused_and_complex_buffers_are_not() -> None:
    with pytest.raises(TraceError, match=r"(?s)complex parameters.*'weight', 'bias'.*torch.complex joins"):
        export_program(nn.Linear(4, 3, dtype=torch.complex64), (torch.randn(2, 4, dtype=torch.complex64),))

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.turn = nn.Linear(4, 6), nn.Buffer(torch.randn(3, dtype=torch.complex64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pairs = torch.view_as_complex(self.linear(x).unflatten(-1, (3, 2)))
            return torch.view_as_real(pairs * self.turn).flatten(-2)

    assert export_program(Turned(), (torch.randn(2, 4),)).tensors


def test_quantised_modules_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with pytest.raises(TraceError, match=r"(?s)quantised modules.*'0'.*merge before quantising"):
        export_program(quantised, (torch.randn(2, 4),))


class Inverted(nn.Module):
    """The inverse asserts that there is one: a call with effects, which a token of torch.export orders."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.square = nn.Linear(4, 6), nn.Parameter(torch.eye(6) + 0.1 * torch.randn(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) @ torch.linalg.inv(self.square)


def test_the_token_of_calls_with_effects_is_no_input() -> None:
    model, x = Inverted(), torch.randn(2, 4)
    program = export_program(model, (x,))
    assert list(program.inputs) == ["x"]
    seen: list[torch.Tensor] = []
    last = [n.name for n in program.graph.graph.nodes if n.op == "call_function"][-1]
    run_together(
        program, [(model.state_dict(), ((x,), {}))], {last}, lambda visits: seen.append(visits[0].value)
    )
    torch.testing.assert_close(seen[0], model(x).detach())
