"""Every architecture of transformers' auto classes, at the smallest size at which it runs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from models_zoo.architectures.table import Architecture, Inputs
from models_zoo.architectures.vision import torchvision_models
from models_zoo.sweep.shrink import TOKENS, smaller

TASKS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "classify": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "segment": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "depth": "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    "video": "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
    "audio": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "ctc": "MODEL_FOR_CTC_MAPPING_NAMES",
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "contrast": "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "detect": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "panoptic": "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
    "see_and_say": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}

LARGEST = 1.2e8
"""Parameters; what cannot be made smaller is not swept."""


class Main(nn.Module):
    """A model whose only output is its main one: the first tensor, be it logits, depths or similarities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        out: Any = self.model(**inputs)
        values = out.values() if isinstance(out, Mapping) else out
        first: Tensor = next(v for v in values if isinstance(v, Tensor) and v.ndim)
        return first


def _transformers() -> Any:
    if importlib.util.find_spec("torchvision"):
        torchvision_models()
    module = importlib.import_module("transformers")
    module.logging.set_verbosity_error()
    return module


def _config(kind: str, model: str) -> Any:
    """The default configuration, or the part of it that the model is made of."""
    whole = _transformers().AutoConfig.for_model(kind)
    wanted = getattr(_transformers(), model).config_class
    if wanted is None or isinstance(whole, wanted):
        return whole
    parts = [v for v in vars(whole).values() if isinstance(v, wanted)]
    return parts[0] if parts else whole


@cache
def _fitting(kind: str, model: str) -> tuple[Any, dict[str, Tensor]]:
    """The smallest configuration, and inputs, on which a model runs; the first error where none does."""
    made = getattr(_transformers(), model)
    wanted = inspect.signature(made.forward).parameters
    errors: list[Exception] = []
    for make in smaller(_config(kind, model)):
        try:
            settings = make()
            if _parameters(made, settings) > LARGEST:
                continue
            network = Main(_build_model(made, settings)).eval()
        except Exception as error:  # noqa: BLE001 - models say in many ways that a size does not suit them
            errors.append(error)
            continue
        for inputs in _inputs(settings, made.main_input_name, wanted):
            found = _run(network, inputs, errors)
            if found is not None:
                return settings, found
    raise errors[0] if errors else ValueError("too large at every size")


def _build_model(made: Any, settings: Any) -> nn.Module:
    network: nn.Module = made._from_config(settings)
    return network


def _parameters(made: Any, settings: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in made(settings).parameters())


def _run(network: nn.Module, inputs: dict[str, Tensor], errors: list[Exception]) -> dict[str, Tensor] | None:
    """The inputs, if the network runs on them; tokens for an image are put in where they are asked for."""
    for _ in range(2):
        try:
            with torch.no_grad():
                network(**inputs)
        except Exception as error:  # noqa: BLE001
            errors.append(error)
            asked = re.search(r"tokens:? 0, (?:and )?features:? \[?(?:torch.Size\(\[)?(\d+)", str(error))
            if not asked or "input_ids" not in inputs:
                return None
            ids = inputs["input_ids"]
            tokens = torch.full((len(ids), int(asked[1]) // len(ids)), TOKENS["image"])
            inputs = {**inputs, "input_ids": torch.cat([tokens, ids], 1)}
        else:
            return inputs
    return None


def _inputs(settings: Any, main: str, wanted: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Example inputs by the names that the model's forward takes, in several shapes."""
    top = min(90, getattr(settings, "vocab_size", None) or 90)
    ids = {
        n: torch.randint(3, top, (3, k))
        for n, k in (("input_ids", 11), ("decoder_input_ids", 7))
        if n in wanted
    }
    if "bbox" in wanted:
        ids["bbox"] = torch.randint(0, 50, (3, 11, 4)).sort(-1).values
    if main in ("pixel_values", "pixel_values_videos") or "pixel_values" in wanted:
        name = main if main in wanted and main.startswith("pixel") else "pixel_values"
        for shape in _images(settings):
            yield {**ids, name: torch.randn(3, *shape)}
    if main in ("input_values", "input_features"):
        decoder = {n: t[:2] for n, t in ids.items() if n.startswith("decoder")}
        for shape in _sounds(settings):
            yield {**decoder, main: torch.randn(2, *shape)}
    if "input_ids" in wanted:
        yield ids
        yield {**ids, "attention_mask": torch.ones(3, 11, dtype=torch.int64)}
        for books in _codebooks(settings):
            yield {n: t.repeat(books, 1) for n, t in ids.items()}
            yield {n: t.unsqueeze(-1).repeat(1, 1, books) if "decoder" in n else t for n, t in ids.items()}


def _codebooks(settings: Any) -> Iterator[int]:
    """How many tokens stand for one moment of sound."""
    for part in (settings, *vars(settings).values()):
        for name in ("num_codebooks", "num_channels"):
            books = vars(part).get(name) if hasattr(part, "to_dict") else None
            if isinstance(books, int):
                yield books


def _images(settings: Any) -> Iterator[tuple[int, ...]]:
    """Channels, height and width of an image; frames in front for video."""
    part = getattr(settings, "vision_config", settings)
    size = getattr(part, "image_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shape: tuple[int, ...] = (getattr(part, "num_channels", None) or 3, height, width)
    frames = getattr(part, "num_frames", None) or getattr(part, "frames_per_clip", None)
    if frames:
        yield (frames, *shape)
    yield shape


def _sounds(settings: Any) -> Iterator[tuple[int, ...]]:
    """Samples, or bands of a spectrogram by time, either way round."""
    part = getattr(settings, "audio_config", getattr(settings, "encoder_config", settings))
    names = (
        "num_mel_bins",
        "feature_projection_input_dim",
        "input_feat_per_channel",
        "input_dim",
        "num_mels",
    )
    bands = [v for n in names if isinstance(v := getattr(part, n, None), int)] or [80]
    length = 2 * (getattr(part, "max_source_positions", None) or 32)
    yield (4000,)
    for band in bands:
        for time in dict.fromkeys((length, getattr(part, "max_length", length))):
            yield from ((band, time), (time, band))
    yield (1, 4000)


def _build(kind: str, model: str) -> Callable[[], nn.Module]:
    return lambda: Main(_build_model(getattr(_transformers(), model), _fitting(kind, model)[0]))


def _example(kind: str, model: str) -> Callable[[], Inputs]:
    return lambda: ((), dict(_fitting(kind, model)[1]))


def transformers() -> Iterator[Architecture]:
    """One architecture for each kind of network and task."""
    _transformers()
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    seen: set[str] = set()
    for task, mapping in TASKS.items():
        for kind, model in getattr(auto, mapping).items():
            name = model[0] if isinstance(model, list | tuple) else model
            if name in seen or (task == "classify" and hasattr(_transformers(), name) and kind in seen):
                continue
            seen |= {name, kind}
            yield Architecture(
                f"transformers/{kind}/{task}", _build(kind, name), _example(kind, name), "transformers"
            )
