"""timm: small models from every module file of the library, on the smallest images that they take."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from models_zoo.architectures.table import Architecture, Inputs, floats
from models_zoo.architectures.vision import torchvision_models

PER_MODULE = 2

SIZES = (64, 96, 128, 160, 192, 224, 256, 320)
"""Images to try, the smallest first: the graph is the same at any size."""

LARGER = {"csatv2": 128, "efficientvit": 128, "mobilevit": 128}
"""Families whose last stage would have a single position: attention over one shows nothing."""

DEPTH = 2
"""Blocks, where a model lets one say how many alike there are."""

SMALL = (
    "zepto", "atto", "femto", "pico", "nano", "xxtiny", "xxs", "xtiny", "tiny", "small", "mini", "micro", "_t_",
    "_s_", "b0", "_0", "s0", "s1", "m0", "t0", "lite", "mobile",
)  # fmt: skip
"""Parts of the names of small models, the smallest first."""


def _library() -> Any:
    torchvision_models()  # timm imports it
    return importlib.import_module("timm")


def _size(name: str) -> tuple[int, list[int], str]:
    """What the name says of the size: such a part, else the numbers in it."""
    found = [k for k, part in enumerate(SMALL) if part in f"{name}_"]
    return (found[0] if found else len(SMALL), [int(n) for n in re.findall(r"\d+", name)], name)


def _make(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = _library().create_model(name, num_classes=10, **options)
    return model


@cache
def _fitting(name: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Options and input shape [channels, height, width] of the smallest images that a model takes.

    Tried without weights or data, on the meta device; the size that the model was made for where
    none of ``SIZES`` can be tried there.
    """
    settings = _library().get_pretrained_cfg(name, allow_unregistered=True)
    made_for: tuple[int, ...] = settings.input_size if settings else (3, 224, 224)
    least = max((n for part, n in LARGER.items() if name.startswith(part)), default=0)
    for size in (n for n in SIZES if n >= least):
        shape = (made_for[0], size, size)
        for options in ({"img_size": size, "depth": DEPTH}, {"img_size": size}, {"depth": DEPTH}, {}):
            if size < made_for[-1] and _runs(name, options, shape):
                return options, shape
    return {}, made_for


def _runs(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> bool:
    try:
        with torch.device("meta"), torch.no_grad():
            _make(name, options).eval()(torch.empty(2, *shape))
    except Exception:  # noqa: BLE001 - models say in many ways that a size does not suit them
        return False
    return True


def _build(name: str) -> Callable[[], nn.Module]:
    return lambda: _make(name, _fitting(name)[0])


def _inputs(name: str) -> Callable[[], Inputs]:
    return lambda: floats(2, *_fitting(name)[1])()


def _choose(names: Sequence[str]) -> list[str]:
    """The smallest by name, of as many families (``resnet``, ``seresnet``) as there is room for."""
    ordered = sorted(names, key=_size)
    first: dict[str, str] = {}
    for name in ordered:
        first.setdefault(re.split(r"[_\d]", name)[0], name)
    chosen = [*first.values(), *(n for n in ordered if n not in first.values())]
    return chosen[:PER_MODULE]


def timm() -> Iterator[Architecture]:
    """The smallest by name, without a test of whether they are; one of every module, then the next."""
    library = _library()
    modules = library.list_modules()
    found = {
        m: _choose(sorted({n.partition(".")[0] for n in library.list_models(module=m)})) for m in modules
    }
    for k in range(PER_MODULE):
        for module, names in found.items():
            if k < len(names):
                yield Architecture(f"timm/{module}/{names[k]}", _build(names[k]), _inputs(names[k]), "timm")
