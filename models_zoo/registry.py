"""The table of trained networks, and how to load one."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from safetensors.torch import load_file
from torch import nn

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FINETUNED = Path(__file__).parent / "finetuned"


@dataclass(frozen=True)
class Entry:
    """An architecture and its independently trained checkpoints."""

    factory: str
    """`module:function` that builds the untrained network from `kwargs`."""
    seeds: tuple[int, ...]
    """Seeds of the committed checkpoints; each set both the initial weights and the data order."""
    kwargs: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))
    input_shape: tuple[int, ...] = (1, 28, 28)
    """Shape of one example, without the batch axis."""
    input_dtype: str = "float32"
    train_loader: str = "models_zoo.data:fashion_train"
    test_loader: str = "models_zoo.data:fashion_test"
    stored: str = "float32"
    """Dtype of the committed weights; they are loaded into float32 networks."""


def _text(factory: str, seeds: tuple[int, ...]) -> Entry:
    return Entry(
        factory,
        seeds,
        input_shape=(64,),
        input_dtype="int64",
        train_loader="models_zoo.data:text_train",
        test_loader="models_zoo.data:text_test",
    )


ZOO: dict[str, Entry] = {
    "mlp": Entry("models_zoo.mlp:mlp", seeds=(0, 1, 2, 3, 4)),
    "mlp_deep": Entry(
        "models_zoo.mlp:mlp", seeds=(0, 1), kwargs=MappingProxyType({"hidden": 10}), stored="float16"
    ),
    "vgg": Entry("models_zoo.vgg:vgg", seeds=(0, 1)),
    "resnet20": Entry("models_zoo.resnet:resnet20", seeds=(0, 1)),
    "resnet20_layernorm": Entry("models_zoo.resnet:resnet20_layernorm", seeds=(0, 1)),
    "vit": Entry("models_zoo.vit:vit", seeds=(0, 1)),
    "gpt": _text("models_zoo.gpt:gpt", seeds=(0, 1)),
    "lstm": Entry("models_zoo.lstm:lstm", seeds=(0, 1)),
}


@dataclass(frozen=True)
class Tuned:
    """A network of the zoo fine-tuned on a task (a key of `models_zoo.data.TASKS`)."""

    base: str
    seed: int
    """That of the base."""
    task: str

    @property
    def path(self) -> Path:
        """Where its weights lie; the report of its training is the `.json` beside them."""
        return FINETUNED / f"{self.base}-s{self.seed}-{self.task}.safetensors"


TUNED: tuple[Tuned, ...] = tuple(
    Tuned(base, 0, task) for base in ("vit", "resnet20") for task in ("inverted", "rotated")
)
"""For each base the networks that were fine-tuned from it."""


def build(name: str) -> nn.Module:
    """The untrained network of a zoo entry."""
    entry = ZOO[name]
    module, function = entry.factory.split(":")
    model: nn.Module = getattr(importlib.import_module(module), function)(**entry.kwargs)
    return model


def checkpoint(name: str, seed: int) -> Path:
    """Where the weights of a zoo entry lie; the report of their training is the `.json` beside them."""
    return CHECKPOINTS / f"{name}-s{seed}.safetensors"


def load(name: str, seed: int) -> nn.Module:
    """A trained network of the zoo, in evaluation mode."""
    model = build(name)
    model.load_state_dict(load_file(checkpoint(name, seed)))
    return model.eval()


def load_tuned(tuned: Tuned) -> nn.Module:
    """A fine-tuned network, in evaluation mode."""
    model = build(tuned.base)
    model.load_state_dict(load_file(tuned.path))
    return model.eval()
