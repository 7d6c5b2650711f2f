"""Every architecture of transformers' auto classes, its configuration made small by the names of its fields.

A configuration says what a network is; only sizes are changed, and those the same way everywhere, so
that a new architecture of the library is swept without being named here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from models_zoo.architectures.language import Logits
from models_zoo.architectures.table import Architecture, Inputs
from models_zoo.architectures.vision import torchvision_models

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
}

SIZES: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "embed_dim", "emb_dim", "model_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("embedding_size", "attention_hidden_size", "text_embed_dim", "projection_dim", "hidden_dim", "width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers", "num_encoder_layers", "num_hidden_layers_encoder"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "attention_head_dim", "v_head_dim", "qk_nope_head_dim", "head_size", "attention_head_size"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 4), "kv_lora_rank": 12, "q_lora_rank": 20,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 5),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k", "top_k"), 2),
    **dict.fromkeys(("n_shared_experts", "first_k_dense_replace", "n_group", "topk_group"), 1),
    **dict.fromkeys(("vocab_size", "text_vocab_size"), 97), "type_vocab_size": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_source_positions", "max_target_positions", "sliding_window", "max_seq_len"), 64),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size"), 6), "state_size": 6, "mamba_expand": 2, "mamba_d_head": 8, "mamba_n_heads": 8,
    "num_labels": 5, "image_size": 32, "patch_size": 8, "num_frames": 4, "num_mel_bins": 16, "conv_dim_size": 16,
}  # fmt: skip
"""Sizes by the names that configurations use; other fields keep their defaults."""

ZERO = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "padding_idx", "sep_token_id", "cls_token_id", "mask_token_id", "image_token_id", "forced_eos_token_id")  # fmt: skip
"""Numbers of special tokens, which must lie within the small vocabulary."""


def shrink(settings: Any) -> Any:
    """A configuration with small sizes, those of its parts included."""
    for name, value in list(vars(settings).items()):
        if hasattr(value, "to_dict"):
            shrink(value)
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool) and value > SIZES[name]:
            _put(settings, name, SIZES[name])
        elif name in ZERO and isinstance(value, int) and value > 2:
            _put(settings, name, 0)
        elif name == "layer_types" and isinstance(value, list):
            kinds = list(dict.fromkeys(value))
            setattr(settings, name, kinds)
            _put(settings, "num_hidden_layers", len(kinds))
        elif isinstance(value, list | tuple) and value and all(type(x) is int and x >= 32 for x in value):
            unit = min(value)
            setattr(settings, name, type(value)(16 * max(1, x // unit) for x in value))
    if getattr(settings, "use_cache", False):
        settings.use_cache = False
    return settings


def _put(settings: Any, name: str, value: int) -> None:
    setattr(settings, settings.attribute_map.get(name, name), value)


def _transformers() -> Any:
    if importlib.util.find_spec("torchvision"):
        torchvision_models()
    module = importlib.import_module("transformers")
    module.logging.set_verbosity_error()
    return module


def _config(kind: str) -> Any:
    return shrink(_transformers().AutoConfig.for_model(kind))


def _build(kind: str, model: str) -> Callable[[], nn.Module]:
    return lambda: Logits(getattr(_transformers(), model)._from_config(_config(kind)))


def _inputs(kind: str, model: str) -> Callable[[], Inputs]:
    """Example inputs by the names that the model's forward takes."""

    def inputs() -> Inputs:
        wanted = inspect.signature(getattr(_transformers(), model).forward).parameters
        main = getattr(_transformers(), model).main_input_name
        return (), dict(_values(_config(kind), main, wanted))

    return inputs


def _values(settings: Any, main: str, wanted: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    image = _image(settings)
    if "input_ids" in wanted:
        yield "input_ids", torch.randint(3, 90, (3, 11))
        if "decoder_input_ids" in wanted:
            yield "decoder_input_ids", torch.randint(3, 90, (3, 7))
    if "pixel_values" in wanted:
        yield "pixel_values", torch.randn(3, *image)
    if "pixel_values_videos" in wanted:
        yield "pixel_values_videos", torch.randn(3, *image)
    if main == "input_values" and "input_ids" not in wanted:
        yield "input_values", torch.randn(2, 4000)
    if main == "input_features" and "input_ids" not in wanted:
        yield "input_features", torch.randn(2, getattr(settings, "num_mel_bins", 80), 64)
        if "decoder_input_ids" in wanted:
            yield "decoder_input_ids", torch.randint(3, 90, (2, 7))


def _image(settings: Any) -> tuple[int, ...]:
    """Channels, height and width of an image; frames in front for video."""
    part = getattr(settings, "vision_config", settings)
    size = getattr(part, "image_size", 64)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shape: tuple[int, ...] = (getattr(part, "num_channels", 3), height, width)
    frames = getattr(part, "num_frames", None) or getattr(part, "frames_per_clip", None)
    return (frames, *shape) if frames else shape


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
                f"transformers/{kind}/{task}", _build(kind, name), _inputs(kind, name), "transformers"
            )
