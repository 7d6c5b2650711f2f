"""The trained networks that zoo.yml lists, and how to load one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from graphmerge import zoo
from graphmerge.sources import build_model, parse_input

CHECKPOINTS = Path(__file__).parent / "checkpoints"
FINETUNED = Path(__file__).parent / "finetuned"


@dataclass(frozen=True)
class Entry:
    """An architecture and its independently trained checkpoints."""

    model: str
    """`module:function(...)` that builds the untrained network."""
    seeds: tuple[int, ...]
    """Seeds of the committed checkpoints; each set both the initial weights and the data order."""
    input_shape: tuple[int, ...]
    """Shape of one example, without the batch axis."""
    input_dtype: str
    train_loader: str
    """`module:function` that gives all shipped batches to train on."""
    test_loader: str


def _entry(told: zoo.Entry) -> Entry:
    """What zoo.yml tells of a network. Checkpoints are called NAME-sSEED; there the loaders have limits."""
    _, shape, dtype = parse_input(told.example_inputs[0])
    train_loader, test_loader = (str(spec).partition("(")[0] for spec in (told.data, told.test))
    seeds = tuple(int(Path(w.path).stem.rpartition("-s")[2]) for w in told.inputs)
    return Entry(told.model, seeds, shape[1:], str(dtype).removeprefix("torch."), train_loader, test_loader)


ZOO: dict[str, Entry] = {name: _entry(e) for name, e in zoo.read_zoo(Path(__file__).parent).entries.items()}


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
    return build_model(ZOO[name].model, torch.device("cpu")).module


def untrained(name: str, seed: int) -> nn.Module:
    """The network that the training of a checkpoint began with."""
    torch.manual_seed(seed)
    return build(name).eval()


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
