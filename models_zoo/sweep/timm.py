"""timm: two small models from every module file of the library."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from models_zoo.architectures.table import Architecture, Inputs, floats
from models_zoo.architectures.vision import torchvision_models

PER_MODULE = 2

SMALL = (
    "zepto", "atto", "femto", "pico", "nano", "xxtiny", "xxs", "xtiny", "tiny", "small", "mini", "micro", "050",
    "035", "_t_", "_s_", "18", "26", "10", "b0", "_0", "s0", "s1", "m0", "t0", "lite", "mobile",
)  # fmt: skip
"""Parts of the names of small models, the smallest first."""


def _library() -> Any:
    torchvision_models()  # timm imports it
    return importlib.import_module("timm")


def _size(name: str) -> tuple[int, int, str]:
    found = [k for k, part in enumerate(SMALL) if part in f"{name}_"]
    return (found[0] if found else len(SMALL), len(name), name)


def _build(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model: nn.Module = _library().create_model(name, num_classes=10)
        return model

    return build


def _inputs(name: str) -> Callable[[], Inputs]:
    """Images of the size that the model was made for, or of 64 where it takes any and is built of convolutions."""
    settings = _library().get_pretrained_cfg(name, allow_unregistered=True)
    size = settings.input_size if settings else (3, 224, 224)
    return floats(2, *size)


def timm() -> Iterator[Architecture]:
    """The smallest by name, without a test of whether they are."""
    library = _library()
    for module in library.list_modules():
        names = {n.partition(".")[0] for n in library.list_models(module=module)}
        for name in sorted(names, key=_size)[:PER_MODULE]:
            yield Architecture(f"timm/{module}/{name}", _build(name), _inputs(name), "timm")
