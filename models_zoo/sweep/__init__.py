"""Every architecture that the libraries on this machine offer, at small size: the coverage sweep's list.

Each family is a function that yields ``Architecture``s named ``family/model``; nothing is built, and
no library imported, before it is asked for.
"""

from collections.abc import Callable, Iterator

from models_zoo.architectures import ARCHITECTURES, Architecture
from models_zoo.sweep.blocks import blocks
from models_zoo.sweep.layers import layers
from models_zoo.sweep.timm import timm
from models_zoo.sweep.torchvision import torchvision
from models_zoo.sweep.transformers import transformers


def reference() -> Iterator[Architecture]:
    """The reference architectures of the tests."""
    yield from ARCHITECTURES.values()


FAMILIES: dict[str, Callable[[], Iterator[Architecture]]] = {
    "reference": reference,
    "layers": layers,
    "blocks": blocks,
    "torchvision": torchvision,
    "timm": timm,
    "transformers": transformers,
}

FAST = (
    "timm/convit/convit_tiny", "timm/cait/cait_xxs24_224",
    "transformers/bamba/causal", "transformers/convbert/masked", "transformers/falcon_h1/causal",
    "transformers/fnet/masked", "transformers/gemma3/causal",
    "transformers/mpt/causal", "transformers/olmoe/causal", "transformers/wavlm/audio",
    "transformers/xlnet/causal",
)  # fmt: skip
"""Networks of the libraries that every run of the tests sweeps, beside all layers and blocks."""


def fast() -> Iterator[str]:
    """The names of the part of the sweep that every run of the tests repeats."""
    yield from (a.name for family in (layers, blocks) for a in family())
    yield from FAST


__all__ = ["FAMILIES", "FAST", "Architecture", "fast"]
