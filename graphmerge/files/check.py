"""Whether a state dict fits a model: names, shapes, dtypes, ties and finite values."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphmerge.errors import InputError, listing, refusal
from graphmerge.trace.memory import ties


@dataclass(frozen=True)
class CheckedState:
    """A state dict with exactly the model's names, and what was noticed on the way."""

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def check_against_model(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], path: str | Path
) -> CheckedState:
    """Refuse a state dict that is not one of the model's; fill in tied names that the file left out.

    Parameters
    ----------
    state
        Names to tensors, as read from ``path``.
    reference
        The model's ``state_dict()``, on any device (meta too): its names, shapes, dtypes and ties.
    path
        Where ``state`` came from, for the message.

    Returns
    -------
    CheckedState
        The same tensors in the model's order, tied names as one tensor, and notes on ties filled
        in and on mixed dtypes.

    Raises
    ------
    InputError
        Names are missing or extra, a shape or kind of dtype differs, a tensor is quantised, or
        names that the model ties hold different values.
    """
    _check_plain(state, path)
    twins = ties(reference)
    filled = {name: state[found] for name in reference if (found := _source(name, twins, state))}
    _check_names(state, filled, twins, path)
    _check_shapes(filled, reference, path)
    _check_dtypes(filled, reference, path)
    _check_ties(filled, twins, path)
    notes = [f"{name!r} filled in from its tied twin" for name in filled if name not in state]
    result = OrderedDict((name, filled[twins[name][0]]) for name in filled)
    result._metadata = getattr(state, "_metadata", getattr(reference, "_metadata", OrderedDict()))  # type: ignore[attr-defined]
    return CheckedState(result, (*notes, *_mixed_dtypes(filled)))


def header_faults(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor], path: str | Path
) -> list[InputError]:
    """All that ``check_against_model`` would refuse for names, shapes or dtypes, at once.

    ``state`` may be on the meta device, as ``shapes_of`` gives it.
    """
    twins = ties(reference)
    filled = {name: state[n] for name in reference if (n := _source(name, twins, state))}
    checks: list[Callable[[], None]] = [
        lambda: _check_names(state, filled, twins, path),
        lambda: _check_shapes(filled, reference, path),
        lambda: _check_dtypes(filled, reference, path),
    ]
    found = []
    for check in checks:
        try:
            check()
        except InputError as error:
            found.append(error)
    return found


def check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse NaN and infinity in any float or complex tensor.

    Raises InputError that lists the tensors.
    """
    bad = nonfinite(state)
    if bad:
        raise InputError(
            refusal(
                f"{str(path)!r} holds NaN or infinite values.",
                expected="finite weights",
                seen=f"{len(bad)} tensors with such values: {listing(bad)}",
                means="one such value spreads through every average and every distance",
                fix="take an earlier checkpoint of this run, from before it diverged; or pass"
                " --allow-nonfinite, which copies such tensors from the first model",
            )
        )


def nonfinite(state: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that hold NaN or infinity."""
    return [name for name, tensor in state.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    wide = tensor if tensor.element_size() > 1 else tensor.float()
    return bool(torch.isfinite(wide).all())


def _source(name: str, twins: Mapping[str, tuple[str, ...]], state: Mapping[str, Tensor]) -> str | None:
    """The name in the file that gives ``name`` its value: its own, else a tied twin's."""
    return next((n for n in (name, *twins[name]) if n in state), None)


def _check_plain(state: Mapping[str, Tensor], path: str | Path) -> None:
    packed = [n for n, t in state.items() if t.is_quantized or t.layout is not torch.strided]
    if packed:
        raise InputError(
            refusal(
                f"{str(path)!r} holds quantised or sparse tensors.",
                expected="dense float weights",
                seen=listing(packed),
                means="codes cannot be averaged: the same code stands for different values in two models",
                fix="give the float originals that it was made from, and quantise the merged model",
            )
        )


def _check_names(
    state: Collection[str],
    filled: Collection[str],
    twins: Mapping[str, tuple[str, ...]],
    path: str | Path,
) -> None:
    missing = [name for name in twins if name not in filled]
    extra = [name for name in state if name not in twins]
    if not missing and not extra:
        return
    seen = [f"{len(missing)} missing: {listing(missing)}"] if missing else []
    seen += [f"{len(extra)} extra: {listing(extra)}"] if extra else []
    raise InputError(
        refusal(
            f"{str(path)!r} does not have the model's names.",
            expected=f"the {len(twins)} names of the model",
            seen="; ".join(seen),
            means="it belongs to another architecture, or wraps the model; no name is changed silently",
            fix=_renaming(state, twins) or "check that model and checkpoint belong together",
        )
    )


def _renaming(state: Collection[str], twins: Mapping[str, tuple[str, ...]]) -> str | None:
    """The prefix which, taken off or put on, gives all of the model's names or a tied twin of each."""
    for prefix in _prefixes(state, twins):
        if all(any(prefix + twin in state for twin in names) for names in twins.values()):
            copy = " (a second copy of the model, such as an EMA)" if all(n in state for n in twins) else ""
            return (
                f"the names under {prefix!r}{copy} match the model: to use them, save"
                f" {{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}"
            )
    for prefix in _prefixes(twins, state):
        if all(any(twin.removeprefix(prefix) in state for twin in names) for names in twins.values()):
            return (
                f"the model's names begin with {prefix!r}, the file's do not: save it with that prefix put on"
            )
    return None


def _prefixes(longer: Iterable[str], shorter: Collection[str]) -> list[str]:
    """Prefixes that turn a name of ``shorter`` into one of ``longer``, the commonest first."""
    counts: Counter[str] = Counter()
    for name in longer:
        parts = name.split(".")
        cuts = range(1, len(parts))
        counts.update(".".join(parts[:cut]) + "." for cut in cuts if ".".join(parts[cut:]) in shorter)
    return [prefix for prefix, _ in counts.most_common()]


def _check_shapes(state: Mapping[str, Tensor], reference: Mapping[str, Tensor], path: str | Path) -> None:
    wrong = [n for n, t in state.items() if t.shape != reference[n].shape]
    if wrong:
        name = wrong[0]
        raise InputError(
            refusal(
                f"{str(path)!r} has tensors of other shapes than the model.",
                expected=f"{name!r} of shape {tuple(reference[name].shape)}",
                seen=f"{tuple(state[name].shape)}; {len(wrong)} such tensors: {listing(wrong)}",
                means="model and checkpoint differ in width, classes or vocabulary",
                fix="build the model with the sizes that the checkpoint was trained with"
                + (HEADS if all(_as_rows(state[n], reference[n]) for n in wrong) else ""),
            )
        )


HEADS = (
    "; if it has other classes on the same trunk, cut its head to the classes that both have, or join the"
    " heads in Python (graphmerge.merge.merge_heads: keep a, b, both or union)"
)


def _as_rows(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors differ in the number of their rows alone."""
    return a.ndim == b.ndim > 0 and a.shape[1:] == b.shape[1:]


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "integer"


def _check_dtypes(state: Mapping[str, Tensor], reference: Mapping[str, Tensor], path: str | Path) -> None:
    wrong = [n for n, t in state.items() if _kind(t) != _kind(reference[n])]
    if wrong:
        name = wrong[0]
        raise InputError(
            refusal(
                f"{str(path)!r} has tensors of another kind than the model.",
                expected=f"{name!r} as {reference[name].dtype}",
                seen=f"{state[name].dtype}; {len(wrong)} such tensors: {listing(wrong)}",
                means="converting would lose data in silence: integers are codes, complex has two parts",
                fix="give the float originals if it is quantised, or build the model with this dtype",
            )
        )


def _check_ties(state: Mapping[str, Tensor], twins: Mapping[str, tuple[str, ...]], path: str | Path) -> None:
    for name, names in twins.items():
        first = state[names[0]]
        if not _same(first.to(state[name].dtype), state[name]):
            raise InputError(
                refusal(
                    f"{str(path)!r} holds different values for names that the model ties.",
                    expected=f"one value for {listing(names)}",
                    seen=f"{names[0]!r} and {name!r} differ",
                    means="the checkpoint was trained untied: either value alone would change its function",
                    fix="build the model untied (Hugging Face: tie_word_embeddings=False)",
                )
            )


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values, NaN in the same places."""
    return a is b or torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _mixed_dtypes(state: Mapping[str, Tensor]) -> list[str]:
    counts = Counter(str(t.dtype) for t in state.values() if t.is_floating_point())
    if len(counts) < 2:
        return []
    return [
        "mixed float dtypes: " + ", ".join(f"{n} tensors of {dtype}" for dtype, n in sorted(counts.items()))
    ]
