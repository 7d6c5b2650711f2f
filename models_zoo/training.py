"""Train one zoo entry from a seed, an epoch at a time, so that a run can stop and resume."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_zoo.data import CONTEXT, Batch, Batches, full_fashion, normalise, text_windows
from models_zoo.registry import ZOO, build

MOMENTUM = 0.9
Report = Callable[[int, float], None]
"""Told the number of finished epochs and the last one's mean cross-entropy in nats."""


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained; the learning rate rises linearly, then falls as a cosine to 0."""

    optimiser: Literal["sgd", "adamw"]
    peak_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    warmup: float = 0.2
    """Share of the steps in which the learning rate rises."""
    shift: int = 0
    """Largest random shift of an image, in pixels."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""
    clip: float = math.inf
    """Largest norm of the gradient; a longer one is scaled down to it."""
    stored: str = "float32"
    """Dtype of the committed weights; they are loaded into float32 networks."""


def _sgd(peak_rate: float, epochs: int, shift: int = 0, flip: bool = False) -> Recipe:
    return Recipe("sgd", peak_rate, 5e-4, batch_size=128, epochs=epochs, shift=shift, flip=flip)


def _adamw(peak_rate: float, epochs: int, shift: int = 0, flip: bool = False) -> Recipe:
    return Recipe("adamw", peak_rate, 0.05, batch_size=128, epochs=epochs, shift=shift, flip=flip, clip=1.0)


RECIPES: dict[str, Recipe] = {
    "mlp": _sgd(0.1, epochs=12),
    # SGD leaves ten layers without norms where they began
    "mlp_deep": dataclasses.replace(_adamw(1e-3, epochs=12), stored="float16"),
    "vgg": _sgd(0.2, epochs=10, shift=1, flip=True),
    "resnet20": _sgd(0.3, epochs=15, shift=1, flip=True),
    "resnet20_layernorm": _adamw(4e-3, epochs=7, shift=1, flip=True),  # SGD at 0.1 was unstable
    "vit": _adamw(2e-3, epochs=14, shift=1, flip=True),
    "gpt": Recipe("adamw", 3e-3, 0.1, batch_size=64, epochs=20, clip=1.0),
    "lstm": Recipe("adamw", 3e-3, 0.01, batch_size=128, epochs=15, flip=True, clip=1.0),
}


def training_set(name: str) -> tuple[Tensor, Tensor]:
    """Every training example of an entry: images and labels, or overlapping windows of the text."""
    if ZOO[name].input_dtype == "int64":
        return text_windows("train", stride=CONTEXT // 4)
    images, labels = full_fashion("train")
    return normalise(images), labels


def train(name: str, seed: int, epochs: int, state_file: Path, report: Report) -> tuple[nn.Module, float]:
    """Train an entry; gives the model and the seconds its training took, interruptions left out.

    The state after each epoch is kept in `state_file`; if that file exists, training goes on from it.
    """
    recipe = RECIPES[name]
    inputs, targets = training_set(name)
    torch.manual_seed(seed)
    model = channels_last(build(name))
    optimiser = make_optimiser(model, recipe)
    done, seconds = _restore(state_file, model, optimiser)
    steps = math.ceil(len(inputs) / recipe.batch_size)
    for epoch in range(done, epochs):
        started = time.monotonic()
        random = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        batches = shuffled(inputs, targets, recipe, random)
        rates = [learning_rate(recipe, (epoch + step / steps) / epochs) for step in range(steps)]
        loss = train_epoch(model, optimiser, batches, rates, recipe.clip)
        seconds += time.monotonic() - started
        _keep(state_file, model, optimiser, epoch + 1, seconds)
        report(epoch + 1, loss)
    return model.eval(), seconds


def channels_last(model: nn.Module) -> nn.Module:
    """Lay out the convolution weights so that a processor trains a third faster."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters; its learning rate is set at every step."""
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.peak_rate,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate when the share `progress` of all steps, 0 to 1, is done."""
    if progress < recipe.warmup:
        return recipe.peak_rate * progress / recipe.warmup
    fall = (progress - recipe.warmup) / (1 - recipe.warmup)
    return recipe.peak_rate * (1 + math.cos(math.pi * fall)) / 2


def shuffled(inputs: Tensor, targets: Tensor, recipe: Recipe, random: torch.Generator) -> Iterator[Batch]:
    """All examples in random order, augmented, as batches of (inputs [n, ...], targets [n, ...])."""
    order = torch.randperm(len(inputs), generator=random)
    for chosen in torch.split(order, recipe.batch_size):
        yield augment(inputs[chosen], recipe, random), targets[chosen]


def train_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Iterable[Batch],
    rates: Sequence[float],
    clip: float,
) -> float:
    """One step for each batch and learning rate; the mean cross-entropy over the batches in nats."""
    model.train()
    losses = []
    for rate, (x, y) in zip(rates, batches, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def augment(images: Tensor, recipe: Recipe, random: torch.Generator) -> Tensor:
    """Mirror and shift each image [n, 1, height, width] as the recipe says; other inputs pass through."""
    if recipe.flip:
        mirrored = torch.rand(len(images), generator=random) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    if recipe.shift:
        images = _shifted(images, recipe.shift, random)
    return images


def _shifted(images: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Each image moved by up to `reach` pixels along both axes, the border filled with background."""
    count, _, height, width = images.shape
    padded = F.pad(images, (reach,) * 4, value=float(images.min()))
    top, left = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=random)
    rows = (top + torch.arange(height)).view(count, 1, height, 1)
    columns = (left + torch.arange(width)).view(count, 1, 1, width)
    return padded[torch.arange(count).view(-1, 1, 1, 1), 0, rows, columns]


def _keep(
    state_file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, done: int, seconds: float
) -> None:
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    partial = state_file.with_suffix(".partial")
    torch.save({**state, "done": done, "seconds": seconds}, partial)
    partial.replace(state_file)


def _restore(state_file: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Epochs done and seconds spent before; model and optimiser are set to that state."""
    if not state_file.exists():
        return 0, 0.0
    state = torch.load(state_file)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["done"], state["seconds"]


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Accuracy, 0 to 1, and mean cross-entropy in nats over all predictions of the batches."""
    model.eval()
    right = total = 0
    loss = 0.0
    for x, y in batches:
        logits, labels = model(x).flatten(0, -2), y.flatten()
        right += int((logits.argmax(-1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        total += len(labels)
    return right / total, loss / total
