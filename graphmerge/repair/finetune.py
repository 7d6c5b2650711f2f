"""A few steps of gradient descent on the merged weights: no repair of statistics, and only on request."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from graphmerge.metrics import targets_of
from graphmerge.precision import wide
from graphmerge.repair.task import Repaired, Task, check_finite
from graphmerge.trace.export import quiet_eval
from graphmerge.trace.run import State, device_of, functional, readable_again, split_batch, tied, to_device


def finetune(task: Task, merged: State, _: Sequence[float], steps: int, rate: float, seed: int) -> Repaired:
    """Adam on the loss of the task, a batch each step, in an order drawn from ``seed``.

    The network runs in evaluation mode: no dropout, and BatchNorm by its running statistics, which stay.
    """
    model, device = task.graph.model, device_of(merged)
    batches = list(readable_again(task.data))
    names = [t.name for t in task.program.tensors.values() if not t.is_buffer and t.dtype.is_floating_point]
    learned = {n: wide(merged[n].detach()).clone().requires_grad_() for n in names}
    optimiser = torch.optim.Adam(list(learned.values()), lr=rate)
    generator, order = torch.Generator().manual_seed(seed), list[int]()
    losses = []
    with quiet_eval(model), torch.enable_grad():
        for step in range(1, steps + 1):
            order = order or torch.randperm(len(batches), generator=generator).tolist()
            batch = batches[order.pop()]
            args, kwargs = to_device(split_batch(batch), device)
            state = {**merged, **{n: t.to(merged[n].dtype) for n, t in learned.items()}}
            outputs = functional(model, tied(task.program, state), args, kwargs)
            loss = task.loss.mean(outputs, targets_of(batch).to(device))
            check_finite(loss, "the loss and its gradient")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
            task.progress(f"fine-tuning: step {step} of {steps}, loss {losses[-1]:.4f}")
    result = {**merged, **{n: t.detach().to(merged[n].dtype) for n, t in learned.items()}}
    return Repaired(
        tied(task.program, result), {"steps": steps, "first loss": losses[0], "last loss": losses[-1]}
    )
