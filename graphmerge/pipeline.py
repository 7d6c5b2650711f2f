"""The whole path in one call: trace, verify, match, merge, repair, evaluate.

Where there is data nothing is kept because it ought to help: every candidate (naive and aligned
averages, each way of matching, each repair) is measured on a held-out part of the data, and the one
with the lowest loss there is kept, and named in the result; a further step must earn its place. Test
data is for reporting only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from graphmerge.candidates import Candidate, Measure, choose, further, repaired
from graphmerge.errors import InputError
from graphmerge.evaluate import Score, check_batches, ensemble, require_unmoved
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.match import Alignment, match_many
from graphmerge.merge import METHODS, MergeReport, merge_with_report, require_call
from graphmerge.merge.rules import keep_from
from graphmerge.progress import Progress, silent
from graphmerge.recipe import How
from graphmerge.recipe.aside import set_aside, without_nonfinite
from graphmerge.repair import available, require_fitting
from graphmerge.repair.task import batch_size, require_samples
from graphmerge.sources import load_loss
from graphmerge.symmetry import ModelGraph, trace
from graphmerge.symmetry.verify import Verification, verify
from graphmerge.trace.run import readable, split_batch

State = Mapping[str, torch.Tensor]
Batch = tuple[Any, Any]
Batches = Sequence[Batch]

DEFAULT = How()
"""Every choice as it is by default."""

HELD_OUT = 0.25
"""Part of the data that is held out to choose by."""


@dataclass(frozen=True)
class MergeResult:
    """``kept`` is the best candidate; ``endpoints`` and ``ensemble`` are what to compare it with.

    ``alignments`` are, for each way of matching, those of all models after the first. ``merges`` say
    how was merged after each; ``shares`` [model] add up to 1 and are what repair interpolates by.
    """

    graph: ModelGraph
    verification: Verification
    alignments: Mapping[str, tuple[Alignment, ...]]
    candidates: tuple[Candidate, ...]
    kept: Candidate
    endpoints: tuple[Score, ...]
    ensemble: Score | None
    shares: tuple[float, ...]
    merges: Mapping[str, MergeReport]
    loss: Loss = CROSS_ENTROPY
    repair_options: Mapping[str, object] = field(default_factory=dict)

    @property
    def kept_merge(self) -> MergeReport:
        """How the models of the kept candidate were merged."""
        return self.merges[self.kept.matching]

    @property
    def kept_alignments(self) -> tuple[Alignment, ...]:
        """The alignments behind the kept candidate; none when models merged as they were have won."""
        return self.alignments.get(self.kept.matching, ())


@dataclass(frozen=True)
class Supply:
    """What a merge is made from: state dicts [model] of one architecture, and data.

    ``base`` is the model that they were fine-tuned from. ``data`` are batches to match and repair with,
    a quarter of them held out to choose by, ``own_data`` [model] those of each model where they differ;
    ``test`` are batches to report on.
    """

    states: Sequence[State]
    base: State | None = None
    data: Batches | None = None
    own_data: Sequence[Batches] | None = None
    test: Batches | None = None


def merge_models(
    model: nn.Module,
    states: Sequence[State],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    how: How = DEFAULT,
    *,
    base: State | None = None,
    data: Iterable[Batch] | None = None,
    own_data: Sequence[Batches] | None = None,
    test: Iterable[Batch] | None = None,
    say: Progress = silent,
    progress: Progress = silent,
) -> MergeResult:
    """Merge state dicts of ``model`` in the frame of the first, and repair the result.

    ``args`` and ``kwargs`` are example inputs for tracing; ``how`` is a recipe, or the part of one that
    says how; the rest is as in ``Supply``. ``say`` is told of every stage, ``progress`` of every step
    within one. Repair and the ways of matching that need data are left out without. Raises what the
    stages raise, GateError where a symmetry fails verification.
    """
    supply = Supply(states, base, _listed(data), own_data, _listed(test))
    require_call(
        how.merge.method, len(states), how.merge_options, how.weights, base, data, own_data, how.loss_name
    )
    require_fitting(how.repair.method, how.loss_name)
    check_supply(model, states[0], supply, how, (args, dict(kwargs or {})), say)
    return merge_traced(*trace_and_prove(model, args, kwargs, how, say, progress), supply, how, say, progress)


def _listed(data: Iterable[Batch] | None) -> Batches | None:
    """Batches to go through more than once, a DataLoader's too."""
    return None if data is None else list(readable(data))


def trace_and_prove(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, how: How,
    say: Progress = silent, progress: Progress = silent,
) -> tuple[ModelGraph, Verification]:  # fmt: skip
    """The graph of a model, proved by running it."""
    say("tracing")
    graph = trace(
        model, args, kwargs, strict=how.strict, freeze=how.freeze, cache=how.cache, progress=progress
    )
    return prove(graph, model, how.seed, say, progress)


def check_supply(
    model: nn.Module, state: State, supply: Supply, how: How, example: Any, say: Progress = silent
) -> None:
    """InputError for data that do not fit the model or the loss; a batch of each is run."""
    loss = load_loss(how.loss)
    judged = METHODS[how.merge.method].data == "targets" or how.merge_options.get("labels") == "empirical"
    own = loss if judged else None
    for batches, wanted in (
        (supply.data, loss),
        (supply.test, loss),
        *((d, own) for d in supply.own_data or ()),
    ):
        if batches is not None:
            check_batches(model, state, batches, example, say, wanted)
    split(supply.data)


def merge_traced(
    graph: ModelGraph, verification: Verification, supply: Supply, how: How,
    say: Progress = silent, progress: Progress = silent,
) -> MergeResult:  # fmt: skip
    """The rest of ``merge_models``, for a graph that is proved."""
    states = supply.states
    loss = load_loss(how.loss)
    graph, how = set_aside(graph, states, how, say)
    if all(n in s and torch.equal(t, s[n]) for s in states[1:] for n, t in states[0].items()):
        say("the models are identical: their average gives them back")
    data, held_out = split(supply.data)
    if data:
        require_repairs(graph, how, data, held_out)
    test = supply.test or held_out
    alignments = {
        m: _aligned(graph, states, m, data, how, loss, say, progress)
        for m in how.match.tried
        if how.match.method != "auto" or m not in how.match.lacking(data)
    }
    shares = _shares(how.merge.weights, len(states))
    unmatched = "naive" if how.merge.method == "average" else f"{how.merge.method}, not matched"
    measure = Measure(graph, data, held_out, test, shares, how.repair, loss, say, unmatched)
    candidates, reports = [], {}
    frames: dict[str, Sequence[State]] = {}
    for matching, moves in {"none": (), **alignments}.items():
        moved = (
            [states[0], *(a.apply(s) for a, s in zip(moves, states[1:], strict=True))] if moves else states
        )
        frames[matching] = moved
        merged, reports[matching] = _merged(graph, supply, moves, moved, how, loss, data, held_out, progress)
        candidates += repaired(measure, moved, matching, merged)
    always = how.repair.keep == "always"
    for step in how.repair.further if data else ():
        best = choose(candidates, always)
        starts = [best] if step == "finetune" else [c for c in candidates if c.matching == best.matching]
        candidates += further(measure, frames[best.matching], starts, step)
    endpoints = tuple(measure.score(s, test) for s in states) if test else ()
    together = ensemble(graph.model, states, test, loss) if test else None
    kept = choose(candidates, always)
    return MergeResult(
        graph, verification, alignments, tuple(candidates), kept, endpoints, together, shares, reports,
        loss, how.repair.options,
    )  # fmt: skip


def _aligned(
    graph: ModelGraph, states: Sequence[State], method: str, data: Batches | None, how: How,
    loss: Loss, say: Progress, progress: Progress,
) -> tuple[Alignment, ...]:  # fmt: skip
    """The alignment of every model after the first to the first."""
    say(f"matching by {method}" + (f", {how.match.many}" if len(states) > 2 else ""))
    told: dict[str, Any] = how.match.told(method)
    states = [without_nonfinite(s) for s in states] if how.allow_nonfinite else states
    found = match_many(
        graph, states, how.match.many, data, how.seed, loss=loss, progress=progress, **told
    ).alignments
    for one, state in zip(found, states[1:], strict=True):
        say(f"objective {one.start:.4g} -> {one.objective:.4g}")
        if data:
            require_unmoved(graph, state, one.apply(state), data[:1])
        if ties := one.notes.get("ambiguous"):
            say(f"units with a twin, of which either could have been chosen: {ties}")
    return found


def _merged(
    graph: ModelGraph, supply: Supply, moves: Sequence[Alignment], moved: Sequence[State], how: How,
    loss: Loss, data: Batches | None, held_out: Batches | None, progress: Progress,
) -> tuple[State, MergeReport]:  # fmt: skip
    """The models merged after they were moved, with what rules keep of one of them."""
    method, options = how.merge.method, dict[str, Any](how.merge_options)
    merged, report = merge_with_report(
        graph, supply.states, method, moves or None, how.weights, base=supply.base,
        data=held_out if METHODS[method].data == "held-out" else data, own_data=supply.own_data,
        loss=loss, progress=progress, **options,
    )  # fmt: skip
    return keep_from(graph, merged, moved, {r.match: r.kept for r in how.rules}), report


def _shares(weights: Sequence[float] | None, models: int) -> tuple[float, ...]:
    """The share of each model; equal where the weights are none that one could divide by."""
    row = None if weights is None else [max(w, 0.0) for w in weights]
    return tuple(w / sum(row) for w in row) if row and sum(row) else (1 / models,) * models


def prove(
    graph: ModelGraph, model: nn.Module, seed: int = 0, say: Progress = silent, progress: Progress = silent
) -> tuple[ModelGraph, Verification]:
    """Run the model with every group; the graph with those frozen of which nothing was seen.

    Raises GateError where a symmetry fails.
    """
    units = sum(g.units for g in graph.groups)
    count = len(graph.groups)
    say(f"{count} symmetry group{'s' * (count != 1)}, {units} units; verifying by running the model")
    verification = verify(graph, model, seed, progress=progress).require()
    say(f"all groups hold (largest relative change {verification.max_error:.1e})")
    if verification.unobservable:
        say(f"kept in place, for nothing shows when they move: {', '.join(verification.unobservable)}")
        graph = graph.freeze(verification.unobservable)
    return graph, verification


def require_repairs(
    graph: ModelGraph, how: How, data: Batches | None, held_out: Batches | None = None
) -> None:
    """UsageError for repairs that do not apply to the network, InputError for data too few to repair with."""
    names = available(graph, how.repair.method, how.loss_name, **how.repair.options)
    if data and set(names) - {"temperature"}:
        require_samples(sum(sizes_of(data)), sum(sizes_of(held_out or ())))


def sizes_of(data: Batches) -> list[int]:
    """Samples in each batch."""
    return [batch_size(split_batch(batch)) for batch in data]


def split(data: Batches | None) -> tuple[Batches | None, Batches | None]:
    """Data to work with and data to choose by, never the same.

    That is ``HELD_OUT`` of the batches, and more where the last ones are small: at least half that part of
    the samples.
    """
    if data is None:
        return None, None
    sizes = sizes_of(data)
    keep = len(data) - max(1, round(len(data) * HELD_OUT))
    while keep > 1 and sum(sizes[keep:]) < sum(sizes) * HELD_OUT / 2:
        keep -= 1
    if keep < 1:
        raise InputError(
            f"the data holds {len(data)} batch{'es' * (len(data) != 1)}; at least 2 are needed, since one is"
            " held out to choose by: use smaller batches, or more data"
        )
    return data[:keep], data[keep:]
