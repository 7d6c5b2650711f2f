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

__all__ = ["FAMILIES", "Architecture"]
