"""Folders as Hugging Face writes them: config.json, weights, tokenizer and other side files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from graphmerge.errors import InputError, TraceError, UsageError, refusal
from graphmerge.files.shards import LIMIT_BYTES

CONFIG = "config.json"

TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt",
    "added_tokens.json", "sentencepiece.bpe.model",
)  # fmt: skip
"""Files that decide which number stands for which token."""

IRRELEVANT = ("version", "dropout", "drop_rate", "drop_prob", "name_or_path", "dtype", "use_cache", "label")
"""Keys of a config with these in their names change nothing of a network in evaluation mode, or are
labels, which are compared on their own; the others must agree."""

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json", ".ckpt")
OWN = ("README.md", "report.json", "report.html", "recipe.lock.yaml", "barrier.png")
"""What a folder holds besides weights that is not carried over: graphmerge writes its own."""


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder with a config.json."""
    return (Path(path) / CONFIG).is_file()


def build_from_config(folder: str | Path) -> nn.Module:
    """The network that config.json describes, float32, weights at random, tied ones tied.

    Raises UsageError where transformers is missing or does not know the network, or where its code
    would come from the folder, InputError where config.json cannot be read.
    """
    folder = Path(folder)
    config = read_config(folder)
    if "auto_map" in config:
        raise UsageError(
            refusal(
                f"{str(folder / CONFIG)!r} wants code from beside it to be run.",
                expected="a network that transformers has",
                seen=f"auto_map {', '.join(_keyed(config['auto_map'], 'auto_map'))}",
                means="graphmerge runs no code out of a model folder",
                fix="if you trust it, make the model in a module of your own: --model module:factory",
            )
        )
    transformers = _transformers()
    try:
        settings = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        named = [getattr(transformers, n, None) for n in config.get("architectures") or ()]
        kind = next((k for k in named if k is not None), None)
        settings.use_cache = False
        made = kind(settings) if kind else transformers.AutoModel.from_config(settings)
    except (ImportError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UsageError(f"transformers cannot build {str(folder)!r}: {error}") from error
    model: nn.Module = made.float()
    model.tie_weights()  # type: ignore[operator]
    return model


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json as plain data."""
    return _json(Path(folder) / CONFIG)


def default_inputs(model: nn.Module) -> tuple[str, ...]:
    """Example inputs of a model of transformers, as a recipe writes them; empty where they are not known."""
    config: Any = getattr(model, "config", None)
    match getattr(model, "main_input_name", None):
        case "input_ids":
            more = ("decoder_input_ids=3x5:int64",) if getattr(config, "is_encoder_decoder", False) else ()
            return ("input_ids=3x7:int64", *more)
        case "pixel_values":
            side = config.image_size
            height, width = side if isinstance(side, list | tuple) else (side, side)
            return (f"pixel_values=3x{config.num_channels}x{height}x{width}",)
    return ()


def require_alike(folders: Sequence[str | Path]) -> list[str]:
    """Notes on what differs between models of several folders, where it does no harm.

    Raises InputError where labels or tokens have other numbers, TraceError where the networks differ.
    """
    notes = list[str]()
    for first, other in [(Path(folders[0]), Path(f)) for f in folders[1:]]:
        a, b = read_config(first), read_config(other)
        if changed := [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and _matters(k)]:
            k = changed[0]
            raise TraceError(
                _differ(first, other, f"{k}: {a.get(k)!r}", f"{k}: {b.get(k)!r}", "they are other networks")
            )
        notes += _compare_labels(first, other, _labels(first, a), _labels(other, b))
        _require_same_tokens(first, other)
    return notes


def side_files(folder: str | Path) -> list[Path]:
    """What to carry over from a folder: config, tokenizer, and whatever else is neither weights nor ours."""
    files = [p for p in sorted(Path(folder).iterdir()) if p.is_file() and not p.name.startswith(".")]
    return [p for p in files if not p.name.endswith(WEIGHTS) and p.name not in OWN]


def _matters(key: str) -> bool:
    return not any(word in key for word in IRRELEVANT)


def _labels(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The name of every class; empty where none is given, or those that transformers makes up."""
    found = _keyed(config.get("id2label") or {}, f"id2label of {folder / CONFIG}")
    made_up = all(str(v).startswith("LABEL_") for v in found.values())
    return {} if made_up else found


def _compare_labels(first: Path, other: Path, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    if a == b:
        return []
    if not a or not b:
        return [f"{first} or {other} does not say what its labels are: their order was not compared"]
    k = next(k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k))
    means = "the same output stands for another class: averaging mixes classes up"
    raise InputError(
        _differ(first, other, f"id2label[{k}] = {a.get(k)!r}", f"id2label[{k}] = {b.get(k)!r}", means)
    )


def _require_same_tokens(first: Path, other: Path) -> None:
    """InputError where files of tokens differ; a folder without any of them says nothing."""
    one, two = ({n for n in TOKENIZER if (folder / n).exists()} for folder in (first, other))
    for name in TOKENIZER if one and two else ():
        if (name in one) != (name in two):
            there, missing = f"{name} there", f"{name} missing"
            expected, seen = (there, missing) if name in one else (missing, there)
            raise InputError(_differ(first, other, expected, seen, TOKENS))
        if name in one and _tokens(first / name) != _tokens(other / name):
            raise InputError(_differ(first, other, name, f"another {name}", TOKENS))


TOKENS = "the same number stands for another token: averaging embeddings mixes tokens up"


def _tokens(path: Path) -> Any:
    """What of a tokenizer's file gives numbers to tokens: not how it cuts or pads a text."""
    if path.suffix != ".json":
        return path.read_bytes()
    return {k: v for k, v in _json(path).items() if k not in ("truncation", "padding")}


def _json(path: Path) -> dict[str, Any]:
    """A JSON file of keys and values; InputError for anything else."""
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ValueError(f"larger than {LIMIT_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    return _keyed(found, str(path))


def _keyed(found: Any, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{what!r}: expected keys and values, seen a {type(found).__name__}")
    return found


def _differ(first: Path, other: Path, expected: str, seen: str, means: str) -> str:
    return refusal(
        f"{str(first)!r} and {str(other)!r} do not go together.",
        expected=f"{expected} (as in {str(first)!r})",
        seen=f"{seen} (in {str(other)!r})",
        means=means,
        fix="merge models of one architecture with one order of labels and tokens",
    )


def _transformers() -> Any:
    try:
        found = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(
            refusal(
                "A Hugging Face folder as MODEL needs the transformers package.",
                expected="transformers to be installed",
                seen=str(error),
                means="the network cannot be built from config.json alone",
                fix="pip install transformers; or name a factory of your own: --model module:factory",
            )
        ) from error
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found
