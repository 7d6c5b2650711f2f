"""ONNX export: architectures that must pass, and faults that must be caught before a file appears."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from graphmerge.errors import GateError, TraceError, UsageError
from graphmerge.export import example, export_onnx
from graphmerge.export import onnx as onnx_module

Patch = pytest.MonkeyPatch
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _one_thread_fixed_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def convnet() -> nn.Sequential:
    norm = nn.BatchNorm2d(4)
    norm.load_state_dict(norm.state_dict() | {"running_var": torch.tensor([0.5, 1.0, 1.5, 2.0])})
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 5))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        states, (hidden, _) = self.lstm(series)
        return self.head(states[:, -1]), hidden


class Transformer(nn.Module):
    """Two blocks over token ids, with a mask, a dictionary of outputs and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> dict[str, Tensor]:
        states = self.blocks(self.embed(ids) * scale, src_key_padding_mask=mask)
        return {"logits": self.head(states), "pooled": states.mean(1)}


class Biased(nn.Module):
    """Attention with a bias for every sample, heads put side by side after."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(8, 24), nn.Parameter(torch.randn(1, 2, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (2, 4)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        bias = self.bias.expand(x.shape[0], -1, -1, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(x.shape)


class Passing(nn.Module):
    """A wrapper that hands over whatever it is given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer()

    def forward(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.inner(**inputs)["logits"]
        return logits


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1) * 2


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvalsh(x @ x.transpose(1, 2))
        return values


def assert_nothing_in(folder: Path) -> None:
    assert not list(folder.iterdir())


def test_convnet_runs_at_every_batch_and_stays_as_it_was(tmp_path: Path) -> None:
    model = convnet().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = export_onnx(
        model, tmp_path / "net.onnx", (torch.randn(1, 3, 6, 6),), metadata={"recipe": '{"a": 1}'}
    )
    assert report.dynamic
    assert not report.external_data
    assert report.opset >= 18
    assert report.nodes > 0
    assert list(report.max_error) == [1, 2, 7]
    assert max(report.max_error.values()) < 1e-5
    assert report.bytes == (tmp_path / "net.onnx").stat().st_size
    assert list(tmp_path.iterdir()) == [report.path]
    assert [module.training for module in model.modules()] == modes
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_file_holds_metadata_and_no_paths_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    metadata = {"recipe": '{"a": 1}', "a": "hash"}
    export_onnx(convnet(), path, (torch.randn(2, 3, 6, 6),), metadata=metadata)
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props} == metadata
    assert b".py" not in path.read_bytes()


def test_recurrent_network_becomes_an_lstm_node(tmp_path: Path) -> None:
    report = export_onnx(Recurrent(), tmp_path / "lstm.onnx", (torch.randn(3, 5, 4),), batch_sizes=(1, 4))
    assert list(report.max_error) == [1, 4]
    assert "LSTM" in {node.op_type for node in onnx.load(report.path).graph.node}


def test_transformer_keeps_its_tie_and_its_input_names(tmp_path: Path) -> None:
    model = Transformer()
    ids = torch.randint(0, 11, (3, 7))
    mask = torch.zeros(3, 7, dtype=torch.bool)
    report = export_onnx(model, tmp_path / "t.onnx", (ids,), {"mask": mask, "scale": 2.0})
    session = onnxruntime.InferenceSession(report.path)
    inputs = {value.name: value.shape[0] for value in session.get_inputs()}
    assert inputs == {"ids": "batch", "mask": "batch"}
    assert model.head.weight is model.embed.weight
    got = session.run(None, {"ids": ids[:1].numpy(), "mask": mask[:1].numpy()})
    with torch.no_grad():
        wanted = model.eval()(ids[:1], mask[:1], 2.0)
    np.testing.assert_allclose(got[0], wanted["logits"].numpy(), atol=1e-5)


def test_attention_with_a_trained_bias_is_exported_and_stays_trainable(tmp_path: Path) -> None:
    model = Biased()
    assert export_onnx(model, tmp_path / "m.onnx", (torch.randn(2, 5, 8),)).dynamic
    assert all(p.requires_grad for p in model.parameters())


def test_inputs_behind_two_stars_keep_their_names(tmp_path: Path) -> None:
    model = Passing()
    inputs = {"mask": torch.zeros(2, 5, dtype=torch.bool), "ids": torch.randint(0, 11, (2, 5))}
    report = export_onnx(model, tmp_path / "m.onnx", (), inputs)
    names = [i.name for i in onnx.load(report.path).graph.input]
    assert report.dynamic
    assert sorted(names) == ["ids", "mask"]
    assert "forward" not in vars(model), "the signature is put back"


def test_opset_can_be_chosen(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    assert export_onnx(model, tmp_path / "m.onnx", (torch.randn(2, 3),), opset=18).opset == 18


def test_weights_beyond_the_limit_go_to_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_module, "SINGLE_FILE_LIMIT", 1000)
    report = export_onnx(nn.Linear(300, 40), tmp_path / "big.onnx", (torch.randn(2, 300),))
    assert report.external_data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert report.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    (rows,) = onnxruntime.InferenceSession(report.path).run(None, {"input": np.zeros((5, 300), np.float32)})
    assert rows.shape == (5, 40)


def test_altered_weight_is_caught_and_the_old_file_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")

    def save_altered(program: ONNXProgram, staged: Path, _: int) -> None:
        program.save(staged)
        proto = onnx.load(staged)
        weight = next(value for value in proto.graph.initializer if value.name == "weight")
        changed = numpy_helper.to_array(weight).copy()
        changed[0, 0] += 0.5
        weight.CopyFrom(numpy_helper.from_array(changed, "weight"))
        onnx.save(proto, staged)

    monkeypatch.setattr(onnx_module, "_save", save_altered)
    with pytest.raises(GateError, match="does not compute") as caught:
        export_onnx(nn.Linear(3, 2), path, (torch.randn(2, 3),))
    assert caught.value.exit_code == 1
    fragments = [repr(str(path)), "output 'linear'", "batch 1", "0.0001 + 0.001", "a difference of"]
    assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_invalid_file_is_caught_by_the_checker(tmp_path: Path, monkeypatch: Patch) -> None:
    def save_broken(program: ONNXProgram, staged: Path, _: int) -> None:
        proto = program.model_proto
        proto.graph.node[0].input[0] = "nowhere"
        onnx.save(proto, staged)

    monkeypatch.setattr(onnx_module, "_save", save_broken)
    with pytest.raises(GateError, match="not be a valid ONNX file"):
        export_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", (torch.randn(2, 3),))
    assert_nothing_in(tmp_path)


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...], list[str]]] = {
    "row 39": (Unexportable(), (2, 3, 3), ["Unexportable has no ONNX form: aten._linalg_eigh.default"]),
    "row 37": (Branching(), (2, 3), ["Branching cannot be traced", "torch.where"]),
    "fixed batch": (FixedBatch(), (2, 3), ["FixedBatch fixes the batch size", "dynamic_batch=False"]),
    "bfloat16": (nn.Linear(3, 2).bfloat16(), (2, 3), ["torch.bfloat16", "model.float()"]),
    "wrong inputs": (convnet(), (2, 3), ["Sequential cannot be traced"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_cannot_be_exported_is_refused(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, shape, fragments = REFUSED[case]
    with pytest.raises(TraceError) as caught:
        export_onnx(model, tmp_path / "m.onnx", (torch.randn(shape),))
    assert caught.value.exit_code == 4
    assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)
    assert_nothing_in(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_fixed_batch_exports_when_asked_for(tmp_path: Path) -> None:
    report = export_onnx(FixedBatch(), tmp_path / "m.onnx", (torch.randn(2, 3),), dynamic_batch=False)
    assert not report.dynamic
    assert list(report.max_error) == [2]


def test_example_without_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tensor"):
        export_onnx(convnet(), tmp_path / "m.onnx", ())


def test_export_is_silent(tmp_path: Path, capfd: Captured) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(Recurrent(), tmp_path / "m.onnx", (torch.randn(2, 5, 4),))
    assert not caught
    assert capfd.readouterr() == ("", "")


def inputs(*tensors: Tensor) -> example.Example:
    return example.example_of(tensors, None)


def test_random_integers_are_the_examples_own() -> None:
    ids = torch.tensor([[1, 5, 9], [2, 4, 8]])
    drawn: Any = example.randomised(inputs(ids, torch.tensor([3, 4])), 7).args
    assert drawn[0].shape == (7, 3)
    rows = {tuple(sorted(row.tolist())) for row in drawn[0]}
    assert rows == {(1, 5, 9), (2, 4, 8)}
    assert set(drawn[1].tolist()) <= {3, 4}


def test_inputs_without_the_batch_are_kept() -> None:
    table = torch.randn(5, 3)
    drawn: Any = example.randomised(inputs(torch.randn(2, 4), table), 6).args
    assert drawn[0].shape == (6, 4)
    assert drawn[1] is table


def test_batch_of_one_is_widened() -> None:
    wide: Any = example.widened(inputs(torch.ones(1, 4), torch.ones(3)))
    assert [tuple(tensor.shape) for tensor in wide.args] == [(2, 4), (3,)]
