"""Images and text to train and test the zoo on.

Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; MIT licence): the 10,000 test images and the first
5,000 training images ship with the package, the full training set is the Debian package
`dataset-fashion-mnist`. The text is a handful of free licences, characters as tokens.
"""

import gzip
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Split = Literal["train", "test"]
Batch = tuple[Tensor, Tensor]
Batches = list[Batch]

SHIPPED = Path(__file__).parent / "data"
IMAGES_FILE = SHIPPED / "fashion_mnist.npz"
TEXT_FILE = SHIPPED / "licences.txt"
PIXEL_MEAN, PIXEL_STD = 0.2860, 0.3530

IDX_FOLDER_VARIABLE = "FASHION_MNIST_FOLDER"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
IDX_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}
IDX_IMAGES_HEADER, IDX_LABELS_HEADER = 16, 8  # bytes before the first value

CONTEXT = 64  # characters the text models see at once
TEXT_BLOCK = 20 * CONTEXT + 1  # characters dealt to one split at a time
TEST_EVERY = 10  # one block in so many is held out


def normalise(pixels: Tensor) -> Tensor:
    """Grey levels 0 to 255, uint8 [n, 28, 28], to float32 [n, 1, 28, 28] of mean 0 and deviation 1."""
    return ((pixels.float() / 255 - PIXEL_MEAN) / PIXEL_STD).unsqueeze(1)


def full_fashion(split: Split, folder: Path | None = None) -> Batch:
    """All images, uint8 [n, 28, 28], and labels, int64 [n], from the IDX files in `folder`.

    Without `folder`, the environment variable FASHION_MNIST_FOLDER, then the Debian package.
    """
    folder = folder or Path(os.environ.get(IDX_FOLDER_VARIABLE, DEBIAN_FOLDER))
    stem = folder / IDX_PREFIX[split]
    images = _idx_bytes(Path(f"{stem}-images-idx3-ubyte.gz"), IDX_IMAGES_HEADER).reshape(-1, 28, 28)
    labels = _idx_bytes(Path(f"{stem}-labels-idx1-ubyte.gz"), IDX_LABELS_HEADER)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def _idx_bytes(path: Path, header: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: run `apt-get install dataset-fashion-mnist`, "
            f"or set {IDX_FOLDER_VARIABLE} to the folder with the IDX files"
        )
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


@cache
def shipped_fashion(split: Split) -> Batch:
    """The shipped images, uint8 [n, 28, 28], and labels, int64 [n]: 5,000 to train, 10,000 to test."""
    with np.load(IMAGES_FILE) as arrays:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def batches(
    split: Split = "train",
    batch_size: int = 500,
    limit: int | None = None,
    start: int = 0,
    task: str = "upright",
) -> Batches:
    """Shipped images from `start` to `limit`, as a task shows them: (float32 [n, 1, 28, 28], int64 [n])."""
    images, labels = (tensor[start:limit] for tensor in shipped_fashion(split))
    return _batched(normalise(TASKS[task](images)), labels, batch_size)


TASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "upright": lambda pixels: pixels,
    "inverted": lambda pixels: 255 - pixels,
    "rotated": lambda pixels: torch.rot90(pixels, dims=(1, 2)),
}
"""Ways to show the images, uint8 [n, 28, 28]: as they are, in negative, turned a quarter to the left."""


def fashion_train(limit: int | None = None) -> Batches:
    """The shipped 5,000 training images, or the first `limit`, see `batches`."""
    return batches("train", limit=limit)


def fashion_test(limit: int | None = None) -> Batches:
    """The 10,000 test images, or the first `limit`, see `batches`."""
    return batches("test", limit=limit)


@cache
def vocabulary() -> str:
    """The characters of the shipped text in code-point order; a token is an index into it."""
    return "".join(sorted(set(TEXT_FILE.read_text(encoding="utf-8"))))


def text_windows(split: Split, stride: int = CONTEXT) -> Batch:
    """Characters and the ones that follow them, both int64 [n, CONTEXT], a window every `stride`.

    The text is cut into blocks of TEXT_BLOCK characters, every TEST_EVERY-th block is the test split,
    and windows stay inside a block. Licences quote each other, so some test passages have near copies
    in the training split.
    """
    token = {character: index for index, character in enumerate(vocabulary())}
    text = torch.tensor([token[character] for character in TEXT_FILE.read_text(encoding="utf-8")])
    blocks = text[: len(text) // TEXT_BLOCK * TEXT_BLOCK].view(-1, TEXT_BLOCK)
    held_out = torch.arange(len(blocks)) % TEST_EVERY == TEST_EVERY - 1
    chosen = blocks[held_out if split == "test" else ~held_out]
    windows = chosen.unfold(1, CONTEXT + 1, stride).reshape(-1, CONTEXT + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def text_batches(split: Split, batch_size: int = 64) -> Batches:
    """(characters, next characters) batches, both int64 [n, CONTEXT]."""
    return _batched(*text_windows(split), batch_size)


def _batched(inputs: Tensor, targets: Tensor, batch_size: int) -> Batches:
    return list(zip(torch.split(inputs, batch_size), torch.split(targets, batch_size), strict=True))


def text_train(limit: int | None = None) -> Batches:
    """The training blocks of the shipped text, or `limit` batches of them, see `text_windows`."""
    return text_batches("train")[:limit]


def text_test(limit: int | None = None) -> Batches:
    """The held-out blocks of the shipped text, or `limit` batches of them, see `text_windows`."""
    return text_batches("test")[:limit]
