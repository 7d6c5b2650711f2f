"""Fine-tune a network of the zoo on another task, on images that ship with the package."""

import math
import time
from dataclasses import replace

import torch
from torch import nn

from models_zoo.data import TASKS, normalise, shipped_fashion
from models_zoo.registry import Tuned, load
from models_zoo.training import (
    RECIPES,
    Report,
    channels_last,
    learning_rate,
    make_optimiser,
    shuffled,
    train_epoch,
)

TUNING_IMAGES = 4000
"""The first shipped training images; the rest is left to choose by."""

TUNING_EPOCHS = 6
RATE_SHARE = 0.25
"""The largest learning rate, as a part of that of training."""


def finetune(tuned: Tuned, epochs: int, report: Report) -> tuple[nn.Module, float]:
    """Fine-tune a base on a task; gives the model and the seconds that it took."""
    recipe = RECIPES[tuned.base]
    recipe = replace(recipe, peak_rate=RATE_SHARE * recipe.peak_rate)
    images, labels = (tensor[:TUNING_IMAGES] for tensor in shipped_fashion("train"))
    inputs = normalise(TASKS[tuned.task](images))
    torch.manual_seed(tuned.seed)
    model = channels_last(load(tuned.base, tuned.seed))
    optimiser = make_optimiser(model, recipe)
    steps = math.ceil(len(inputs) / recipe.batch_size)
    started = time.monotonic()
    for epoch in range(epochs):
        random = torch.Generator().manual_seed(epoch)
        rates = [learning_rate(recipe, (epoch + step / steps) / epochs) for step in range(steps)]
        loss = train_epoch(model, optimiser, shuffled(inputs, labels, recipe, random), rates, recipe.clip)
        report(epoch + 1, loss)
    return model.eval(), time.monotonic() - started
