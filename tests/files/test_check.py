"""State dicts that do not fit a model, one fixture each."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graphmerge.errors import InputError
from graphmerge.files import check_against_model, check_finite

State = dict[str, Tensor]


class Tied(nn.Module):
    """An embedding whose table is the head too."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3, device=device)
        self.norm = nn.BatchNorm1d(3, device=device)
        self.head = nn.Linear(3, 5, bias=False, device=device)
        self.head.weight = self.embed.weight


def changed(**tensors: Tensor) -> State:
    return {**Tied().state_dict(), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def refused(state: State, reference: State | None = None) -> str:
    with pytest.raises(InputError) as caught:
        check_against_model(state, reference or Tied().state_dict(), "a.pt")
    assert caught.value.exit_code == 3
    assert "'a.pt'" in str(caught.value)
    return str(caught.value)


def prefixed(prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in Tied().state_dict().items()}


def prefixed_without(prefix: str, *names: str) -> State:
    return {prefix + name: tensor for name, tensor in without(*names).items()}


def without(*names: str) -> State:
    return {name: tensor for name, tensor in Tied().state_dict().items() if name not in names}


REFUSED: dict[str, tuple[Callable[[], State], list[str]]] = {
    "row 8": (lambda: changed(norm__bias=torch.ones(4)), ["'norm.bias' of shape (3,)", "(4,)"]),
    "row 9": (lambda: without("norm.bias"), ["1 missing: 'norm.bias'"]),
    "row 10, extra": (lambda: changed(extra=torch.ones(1)), ["1 extra: 'extra'"]),
    "row 10, module.": (
        lambda: prefixed("module."),
        ["the names under 'module.'", "removeprefix('module.')"],
    ),
    "row 10, nested": (lambda: prefixed("_orig_mod.module."), ["the names under '_orig_mod.module.'"]),
    "row 10, tied twin left out": (lambda: prefixed_without("m.", "head.weight"), ["the names under 'm.'"]),
    "row 10, EMA copy": (lambda: {**prefixed("ema."), **changed()}, ["second copy", "under 'ema.'"]),
    "row 11, untied": (
        lambda: changed(head__weight=torch.ones(5, 3)),
        ["names that the model ties", "'embed.weight' and 'head.weight' differ", "untied"],
    ),
    "row 13, integer": (
        lambda: changed(norm__bias=torch.ones(3).int()),
        ["'norm.bias' as torch.float32", "int32"],
    ),
    "row 13, complex": (lambda: changed(norm__bias=torch.ones(3) * 1j), ["complex64"]),
    "row 13, float for integer": (
        lambda: changed(norm__num_batches_tracked=torch.tensor(1.0)),
        ["torch.int64"],
    ),
    "row 41": (
        lambda: changed(norm__bias=torch.ones(3).to_sparse()),
        ["quantised or sparse", "'norm.bias'", "float originals"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_state_that_does_not_fit_is_refused(case: str) -> None:
    make, fragments = REFUSED[case]
    message = refused(make())
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_tensor_is_refused() -> None:
    coded = torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)
    assert "quantised" in refused(changed(norm__bias=coded))


def test_model_whose_names_carry_a_prefix_is_pointed_out() -> None:
    assert "names begin with 'backbone.'" in refused(Tied().state_dict(), prefixed("backbone."))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("left_out", ["head.weight", "embed.weight"])
def test_tied_name_that_the_file_leaves_out_is_filled_in(device: str, left_out: str) -> None:
    checked = check_against_model(without(left_out), Tied(device).state_dict(), "a.pt")
    assert checked.state["head.weight"] is checked.state["embed.weight"]
    assert list(checked.state) == list(Tied().state_dict())
    assert checked.notes == (f"{left_out!r} filled in from its tied twin",)


def test_equal_values_of_tied_names_become_one_tensor() -> None:
    state = Tied().state_dict()
    checked = check_against_model({**state, "head.weight": state["head.weight"].clone()}, state, "a.pt")
    assert checked.state["head.weight"] is checked.state["embed.weight"]
    assert checked.notes == ()


def test_checked_state_loads_with_the_model_versions() -> None:
    model = Tied()
    model.load_state_dict(check_against_model(dict(model.state_dict()), model.state_dict(), "a.pt").state)


def test_mixed_float_dtypes_are_reported() -> None:
    checked = check_against_model(changed(norm__bias=torch.ones(3).half()), Tied().state_dict(), "a.pt")
    assert checked.notes == ("mixed float dtypes: 1 tensors of torch.float16, 5 tensors of torch.float32",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.float8_e4m3fn])
def test_values_that_are_not_finite_are_listed(dtype: torch.dtype) -> None:
    bad = torch.tensor([1.0, float("nan")]).to(dtype)
    with pytest.raises(InputError, match="NaN or infinite") as caught:
        check_finite({"fine": torch.ones(2), "bad": bad, "count": torch.tensor(1)}, "a.pt")
    assert caught.value.exit_code == 3
    assert "1 tensors with such values: 'bad'" in str(caught.value)


def test_long_lists_are_cut() -> None:
    with pytest.raises(InputError, match="and 15 more"):
        check_finite({f"w{i}": torch.tensor(float("inf")) for i in range(20)}, "a.pt")


def test_finite_state_passes() -> None:
    check_finite(Tied().state_dict(), "a.pt")
