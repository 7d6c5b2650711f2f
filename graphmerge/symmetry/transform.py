"""Symmetries as values: named, invertible, composable, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from graphmerge.axes.units import IntArray
from graphmerge.errors import InputError
from graphmerge.symmetry.structure import Structure, reorder


@dataclass(frozen=True)
class Transform:
    """A symmetry of a model's parameters.

    ``phi`` [class] is where each class of units goes. ``names`` maps every state dict name to the
    tensor of the structure that it is (tied weights have several), ``groups`` group names to atoms.
    """

    structure: Structure
    names: Mapping[str, str]
    groups: Mapping[str, int]
    phi: IntArray

    @cached_property
    def _found(self) -> dict[str, dict[int, IntArray]]:
        return {}

    def _sources(self, name: str) -> dict[int, IntArray]:
        """Where each dimension of a tensor is filled from; worked out when a tensor is first moved."""
        if name not in self._found:
            known = name in self.structure.labels
            self._found[name] = self.structure.sources(name, self.phi) if known else {}
        return self._found[name]

    def apply(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Move the units of a state dict; tensors that do not move are returned as they are.

        The result keeps the order of the keys and the ``_metadata`` that ``load_state_dict`` reads.
        """
        moved: dict[str, torch.Tensor] = type(state)() if hasattr(state, "_metadata") else {}  # type: ignore[assignment]
        stacked = self._stacked(state)
        for name, t in state.items():
            own = self.names.get(name, "")
            sources = self._sources(own)
            moved[name] = stacked[own] if own in stacked else reorder(t, sources) if sources else t
        if hasattr(state, "_metadata"):
            moved._metadata = state._metadata  # type: ignore[attr-defined]
        return moved

    def _stacked(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of parallel branches, moved as stacks."""
        parts = {self.names[n]: t for n, t in state.items() if n in self.names}
        stacks = {n: t for n, t in self.structure.gather(parts).items() if n in self.structure.stacks}
        return self.structure.spread({n: self.apply_to(n, t) for n, t in stacks.items()})

    def sources(self, name: str) -> dict[int, IntArray]:
        """For each dimension of a tensor that moves, where its places are filled from (see ``Structure``)."""
        return dict(self._sources(self.names.get(name, name)))

    def apply_to(self, name: str, t: torch.Tensor, skip: int | None = None) -> torch.Tensor:
        """Move the units of one tensor, all dimensions but ``skip``."""
        sources = self._sources(self.names.get(name, name))
        return reorder(t, {d: s for d, s in sources.items() if d != skip})

    def apply_first(self, name: str, t: torch.Tensor) -> torch.Tensor:
        """Move only the first position of every unit along each dimension: no symmetry, but a control."""
        return reorder(t, self.structure.first_sources(self.names.get(name, name), self.phi))

    def side(
        self, name: str, state: Mapping[str, torch.Tensor], first: bool = False
    ) -> dict[str, torch.Tensor]:
        """One tensor of the structure moved alone, by state dict names; ``first`` as in ``apply_first``."""
        parts = self.structure.stacks.get(name, (name,))
        t = self.structure.gather({n: state[n] for n in parts})[name]
        return self.structure.spread({name: (self.apply_first if first else self.apply_to)(name, t)})

    def inverse(self) -> Transform:
        """The symmetry that undoes this one."""
        return self._with(np.argsort(self.phi))

    def __matmul__(self, first: Transform) -> Transform:
        """``(t @ u).apply(s) == t.apply(u.apply(s))``."""
        return self._with(self.phi[first.phi])

    def _with(self, phi: IntArray) -> Transform:
        return Transform(self.structure, self.names, self.groups, phi)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and np.array_equal(self.phi, other.phi)

    def __hash__(self) -> int:
        return hash(self.phi.tobytes())

    @property
    def is_identity(self) -> bool:
        """Nothing moves."""
        return bool((self.phi == np.arange(len(self.phi))).all())

    def moved_units(self) -> dict[str, int]:
        """How many units of each group change places."""
        counts = {}
        for name, k in self.groups.items():
            units = self.structure.sorts[k].units
            counts[name] = int((self.phi[units] != units).sum())
        return counts

    def targets(self) -> dict[str, torch.Tensor]:
        """For each group the place [copies, size] (int64) to which each of its units goes."""
        found = {}
        for name, k in self.groups.items():
            sort = self.structure.sorts[k]
            found[name] = torch.from_numpy(self.structure.targets(k, self.phi).reshape(sort.order, sort.size))
        return found

    def with_targets(self, targets: Mapping[str, torch.Tensor]) -> Transform:
        """The transform that sends the units of every named group to ``targets`` (see ``targets``)."""
        inner: dict[int, IntArray] = {}
        for name, t in targets.items():
            sort = self.structure.sorts[self.groups[name]] if name in self.groups else None
            if sort is None or tuple(t.shape) != (sort.order, sort.size):
                expected = "no such group" if sort is None else f"expected shape {(sort.order, sort.size)}"
                raise InputError(f"group {name!r} of a saved transform, shape {tuple(t.shape)}: {expected}")
            if t.is_floating_point() or t.is_complex() or t.dtype is torch.bool:
                raise InputError(f"group {name!r} of a saved transform is {t.dtype}, expected whole numbers")
            rows = t.cpu().long().numpy() % sort.size
            if (np.sort(rows, axis=1) != np.arange(sort.size)).any():
                raise InputError(
                    f"group {name!r} of a saved transform is not a permutation of {sort.size} units"
                )
            inner[self.groups[name]] = rows
        return self._with(self.structure.extend(inner))


def identity(structure: Structure, names: Mapping[str, str], groups: Mapping[str, int]) -> Transform:
    """The transform that moves nothing."""
    return Transform(structure, names, groups, np.arange(len(structure.sort_of)))
