"""Fisher-weighted averaging: each entry counts by how much its model's predictions depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.func import vjp, vmap
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, TraceError, UsageError
from graphmerge.losses import Loss, logits_of
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.tensors import State
from graphmerge.precision import weighted_sum, wide
from graphmerge.trace.export import quiet_eval
from graphmerge.trace.run import device_of, functional, readable_again, split_batch, to_device

MEMORY = 1 << 25
"""Numbers that the gradients of the examples taken at a time may hold."""

Gradients = dict[str, torch.Tensor]


def fisher_average(job: Job, labels: str, floor: float, seed: int) -> Merged:
    """Sum of weight x (F + floor) x tensor over the models, divided by the sum of weight x (F + floor).

    F is the diagonal Fisher information of each model on its data (``diagonal_fisher``). ``floor``
    decides where no model depends on an entry: there it is the plain weighted average. Source: Matena
    and Raffel 2022, "Merging models with Fisher-weighted averaging", arXiv 2111.09832, equation 3.
    """
    found = []
    for k, (state, data) in enumerate(zip(job.states, job.data, strict=True), 1):
        job.progress(f"Fisher information of model {k}")
        found.append(diagonal_fisher(job, state, data, labels, seed))

    def one(name: str) -> torch.Tensor:
        shares = [f[name].add(floor) * w for f, w in zip(found, job.weights[name], strict=True)]
        ones = [1.0] * len(shares)
        total = weighted_sum((wide(t) * s for t, s in zip(job.all(name), shares, strict=True)), ones)
        return total / weighted_sum(shares, ones)

    return Merged(job.each_parameter(one))


def diagonal_fisher(job: Job, state: State, data: Iterable[Any], labels: str, seed: int) -> Gradients:
    """Mean over the examples of E[(d log p(y | x) / d parameter)^2], for every parameter, float32 or wider.

    ``labels`` says what y is: "exact" takes the expectation over the model's own distribution (a backward
    pass per class or output), "sampled" one draw of y from it (``seed``), "empirical" the targets of the
    data, and the loss for -log p. The distribution is that of the loss: ``LIKELIHOODS``. What an example
    predicts, such as a text, is added up. Raises UsageError for "exact" classes of several predictions,
    InputError for data without the targets that "empirical" needs, TraceError where torch.func cannot run
    the network.
    """
    model = job.graph.model
    parameters = {n: wide(t) for n, t in state.items() if n in job.parameters}
    rest = {n: wide(t) if t.is_floating_point() else t for n, t in state.items() if n not in parameters}

    def outputs(at: State, args: Any, kwargs: Any) -> torch.Tensor:
        return wide(logits_of(functional(model, job.full({**rest, **at}), args, kwargs)))

    generator = torch.Generator().manual_seed(seed)
    total = {n: torch.zeros_like(t) for n, t in parameters.items()}
    count = 0
    size = max(1, MEMORY // sum(t.numel() for t in parameters.values()))
    with quiet_eval(model):
        for inputs, targets in _batches(data, device_of(state), size):
            job.progress(f"Fisher information: {count} examples")
            score = _scores(job.loss, outputs(parameters, *inputs), targets, labels, generator)
            squares = _squares(outputs, parameters, inputs, score)
            for n, s in squares.items():
                total[n] += s
            count += len(score)
    if not count:
        raise InputError("the data holds no batch: nothing to measure Fisher information on")
    return {n: t / count for n, t in total.items()}


def _batches(
    data: Iterable[Any], device: torch.device, size: int
) -> Iterator[tuple[Any, torch.Tensor | None]]:
    """Inputs and targets of parts of batches, ``size`` examples at most."""
    for batch in readable_again(data):
        inputs = to_device(split_batch(batch), device)
        paired = isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)
        targets = batch[1].to(device) if paired else None
        examples = _examples(inputs)
        leaves, spec = pytree.tree_flatten(inputs)
        for k in range(0, examples, size):
            part = [t[k : k + size] if _per_example(t, examples) else t for t in leaves]
            yield pytree.tree_unflatten(part, spec), None if targets is None else targets[k : k + size]


def _examples(inputs: Any) -> int:
    """Examples in a batch: dimension 0 of its first tensor."""
    return next(len(t) for t in pytree.tree_leaves(inputs) if isinstance(t, torch.Tensor) and t.ndim)


def _per_example(t: object, examples: int) -> bool:
    return isinstance(t, torch.Tensor) and t.ndim > 0 and len(t) == examples


def _scores(
    loss: Loss, z: torch.Tensor, targets: torch.Tensor | None, labels: str, generator: torch.Generator
) -> torch.Tensor:
    """What to pull back to the parameters [example, draw, *outputs], for outputs z [example, ...].

    The square of each pulled back vector counts once: one of probability p comes times the root of p.
    """
    if labels != "empirical":
        exact, draw = LIKELIHOODS[loss.name]
        return exact(z) if labels == "exact" else draw(z, generator)[:, None]
    if targets is None:
        raise InputError("option labels='empirical' needs batches (inputs, targets)")
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        losses = loss.run(z, targets)
        total = losses.sum() if losses.ndim else losses * len(z)
        return torch.autograd.grad(total, z)[0][:, None]


def _all_classes(z: torch.Tensor) -> torch.Tensor:
    p = z.softmax(-1)
    predictions, classes = p[0, ..., 0].numel(), p.shape[-1]
    if predictions > 1:
        raise UsageError(
            f"option labels='exact': the model makes {predictions} predictions per example, of"
            f" {classes} classes each; expected one: use labels='sampled' or 'empirical'"
        )
    p = p.reshape(len(p), classes)
    found = p.sqrt()[:, :, None] * (torch.eye(classes).to(p) - p[:, None])
    return found.reshape(len(p), classes, *z.shape[1:])


def _one_class(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    log_p = z.log_softmax(-1)
    noise = torch.rand(z.shape, generator=generator, dtype=torch.float64).clamp_min(1e-300).to(z.device)
    drawn = (log_p - (-noise.log()).log()).argmax(-1)  # Gumbel's trick
    return F.one_hot(drawn, z.shape[-1]) - log_p.exp()


def _each_output(z: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """One vector for each output, of its size there and 0 elsewhere."""
    return torch.diag_embed(sizes.reshape(len(z), -1)).reshape(len(z), -1, *z.shape[1:])


def _all_labels(z: torch.Tensor) -> torch.Tensor:
    p = z.sigmoid()
    return _each_output(z, (p * (1 - p)).sqrt())


def _one_label(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    p = z.sigmoid()
    return (torch.rand(z.shape, generator=generator).to(z) < p).to(z) - p


def _one_number(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(z.shape, generator=generator).to(z)


LIKELIHOODS = {
    "cross-entropy": (_all_classes, _one_class),
    "bce": (_all_labels, _one_label),
    "mse": (lambda z: _each_output(z, torch.ones_like(z)), _one_number),
}
"""By the loss that is its -log p: d log p(y | z) / d z for every y, and for one that is drawn.

The distributions of classes, of labels that are 0 or 1, and normal ones of variance 1.
"""


def refuses(loss: str, options: Mapping[str, object]) -> str:
    """What is wrong with the options for a loss of that name."""
    if options["labels"] == "empirical" or loss in LIKELIHOODS:
        return ""
    return f"fisher knows no distribution for the loss {loss}: add --option labels=empirical (labels=)"


def _squares(
    outputs: Callable[[State, Any, Any], torch.Tensor], parameters: State, inputs: Any, score: torch.Tensor
) -> Mapping[str, torch.Tensor]:
    """Squared gradients summed over examples and draws, each example run on its own."""
    leaves, spec = pytree.tree_flatten(inputs)
    along = [0 if _per_example(t, len(score)) else None for t in leaves]

    def one(example: list[Any], rows: torch.Tensor) -> Gradients:
        alone = [t if d is None else t.unsqueeze(0) for t, d in zip(example, along, strict=True)]
        args, kwargs = pytree.tree_unflatten(alone, spec)
        pull_back = vjp(lambda at: outputs(at, args, kwargs)[0], dict(parameters))[1]
        total = {n: torch.zeros_like(t) for n, t in parameters.items()}
        for row in rows:
            total = {n: total[n] + g.square() for n, g in pull_back(row)[0].items()}
        return total

    try:
        with torch.enable_grad():  # recurrent kernels keep what they need for it only then
            summed = vmap(one, in_dims=(along, 0))(leaves, score)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise TraceError(
            f"torch.func cannot differentiate the network example by example: {reason}\n"
            "  To do: merge by a method without Fisher information, such as regmean"
        ) from error
    return {n: t.sum(0) for n, t in summed.items()}
