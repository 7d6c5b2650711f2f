"""Example inputs of a model, and the same inputs at other batch sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphmerge.errors import UsageError, refusal


@dataclass(frozen=True)
class Example:
    """Arguments of one forward pass; ``batch`` is dimension 0 of the first tensor among them.

    A tensor whose dimension 0 has that size is batched, every other input is kept as it is.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batch: int

    def leaves(self) -> list[Any]:
        """All inputs in the order in which torch.export lists them."""
        return pytree.tree_leaves((self.args, self.kwargs))

    def with_batch(self, batch: int, change: Callable[[Tensor], Tensor]) -> Example:
        """The example with ``change``, which must give dimension 0 size ``batch``, on batched tensors."""
        args, kwargs = pytree.tree_map_only(Tensor, self._on_batched(change), (self.args, self.kwargs))
        return Example(args, kwargs, batch)

    def _on_batched(self, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda tensor: change(tensor) if self.is_batched(tensor) else tensor

    def is_batched(self, leaf: object) -> bool:
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.batch


def example_of(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Example:
    """Find the batch in example arguments.

    Raises UsageError when no argument is a tensor with a dimension.
    """
    given = (tuple(args), dict(kwargs or {}))
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if not tensors:
        raise UsageError(
            refusal(
                "The example inputs hold no tensor with a batch dimension.",
                expected="args and kwargs as the model's forward takes them, at least one a tensor [N, ...]",
                seen=f"{len(given[0])} positional and {len(given[1])} named arguments",
                means="there is nothing to trace the model with",
                fix="give example inputs, e.g. args=(torch.randn(2, 3, 32, 32),)",
            )
        )
    return Example(*given, tensors[0].shape[0])


def widened(example: Example) -> Example:
    """The example with a batch of at least 2: torch.export takes a size of 1 for a constant."""
    if example.batch > 1:
        return example
    return example.with_batch(2, lambda tensor: torch.cat([tensor, tensor]))


def randomised(example: Example, batch: int, seed: int = 0) -> Example:
    """Random inputs ``[batch, ...]`` of the example's dtypes and remaining shape.

    Floats are normal. Integers are the example's own rows, each shuffled within, so that indices
    stay in range and no mask becomes empty. Booleans are the example's rows.
    """
    generator = torch.Generator().manual_seed(seed)
    return example.with_batch(batch, lambda tensor: _random_like(tensor, batch, generator))


def _random_like(tensor: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        shape = (batch, *tensor.shape[1:])
        return torch.randn(shape, dtype=tensor.dtype, generator=generator).to(tensor.device)
    rows = torch.randint(len(tensor), (batch,), generator=generator)
    drawn = tensor.cpu()[rows]
    if tensor.dtype is torch.bool or tensor.dim() == 1:
        return drawn.to(tensor.device)
    flat = drawn.flatten(1)
    order = torch.rand(flat.shape, generator=generator).argsort(1)
    return flat.gather(1, order).view_as(drawn).to(tensor.device)


def batch_spec(model: nn.Module, example: Example, mark: Any) -> dict[str, Any]:
    """``{0: mark}`` for every batched tensor and None elsewhere, by parameter of ``model.forward``."""
    bound = inspect.signature(model.forward).bind(*example.args, **example.kwargs).arguments
    spec: dict[str, Any] = pytree.tree_map(
        lambda leaf: {0: mark} if example.is_batched(leaf) else None, bound
    )
    return spec
