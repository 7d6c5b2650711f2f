"""Configurations of transformers made small by the names of their fields.

A configuration says what a network is; only sizes are changed, and those the same way everywhere, so
that a new architecture of the library is swept without being named here. Fields that a class leaves
open (``None``) follow from the others and are left to follow.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

DEPTHS: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers", "num_encoder_layers", "num_hidden_layers_encoder", "depth", "num_blocks"), 2),
    **dict.fromkeys(("vocab_size", "text_vocab_size"), 97), "type_vocab_size": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_source_positions", "max_target_positions", "sliding_window", "max_seq_len"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 5),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k", "moe_k", "top_k"), 2),
    **dict.fromkeys(("n_shared_experts", "first_k_dense_replace", "n_group", "topk_group", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("num_kv_shared_layers", "num_nextn_predict_layers", "num_mtp_layers"), 0), "num_labels": 5, "num_frames": 4,
    "num_self_attends_per_block": 2, "mm_tokens_per_image": 4, "context_size": 16, "index_topk": 4,
}  # fmt: skip
"""How many of the same there are."""

WIDTHS: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "embed_dim", "emb_dim", "model_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("embedding_size", "attention_hidden_size", "text_embed_dim", "projection_dim", "hidden_dim", "width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size", "shared_intermediate_size"), 24),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "attention_head_dim", "v_head_dim", "qk_nope_head_dim", "head_size", "attention_head_size"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 4), "kv_lora_rank": 12, "q_lora_rank": 20, "hidden_size_per_layer_input": 10,
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 6), "mamba_expand": 2, "mamba_d_head": 8, "mamba_n_heads": 8,
    "num_mel_bins": 16, "conv_dim_size": 16, "d_latents": 32, "num_latents": 9,
}  # fmt: skip
"""How wide it is; other fields keep their defaults."""

OPEN: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "num_key_value_heads": 4, "head_dim": 8,
    "num_experts_per_tok": 2, "vocab_size": 97, "n_group": 1, "topk_group": 1, "default_language": "en_XX",
    "layer_types": ["conv", "full_attention"], "n_routed_experts": 5, "hidden_size": 32, "first_k_dense_replace": 1,
}  # fmt: skip
"""What is needed by some networks whose classes leave it open."""

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")

TOKENS = {"image": 91, "video": 92, "audio": 93, "speech": 93}
"""Numbers of the tokens that stand for images and sounds."""


def smaller(settings: Any) -> Iterator[Callable[[], Any]]:
    """Makers of the same kind of network in several sizes, the smallest first; the last keeps the defaults."""
    everything, some = {**DEPTHS, **WIDTHS}, {**WIDTHS, "vocab_size": 97}
    for image in (64, 32, 224):
        yield partial(shrink, settings, everything, {"image_size": image, "patch_size": 8})
    yield partial(shrink, settings, everything, {})
    yield partial(shrink, settings, everything, {}, OPEN)
    yield partial(shrink, settings, some, {"image_size": 64})
    for sizes in (DEPTHS, {}):
        yield partial(shrink, settings, sizes, {"image_size": 64})
        yield partial(shrink, settings, sizes, {})


def shrink(
    settings: Any, sizes: Mapping[str, int], image: Mapping[str, int], filled: Mapping[str, Any] | None = None
) -> Any:
    """A configuration with sizes of at most ``sizes`` and ``image``, those of its parts included.

    ``filled`` are values for fields that are open.
    """
    changed: dict[str, Any] = {}
    own = vars(settings)
    for field in dataclasses.fields(settings):
        value = own.get(field.name)
        small = _shrunk(field.name, value, {**sizes, **image})
        if hasattr(value, "to_dict"):
            changed[field.name] = shrink(value, sizes, image, filled)
        elif small is not value and (field.default is not None or type(value) is not int):
            changed[field.name] = small
        elif value is None and filled and field.name in filled:
            changed[field.name] = copy.deepcopy(filled[field.name])
        elif value not in (None, field.default) and field.default is not None and field.init:
            changed[field.name] = copy.deepcopy(value)
    if sizes:
        _agree(own, changed)
    if "num_hidden_layers" in sizes:
        changed |= _kinds(own)
    names = {f.name for f in dataclasses.fields(settings) if f.init} - {
        "transformers_version",
        "architectures",
    }
    made = type(settings)(**{k: v for k, v in changed.items() if k in names})
    if hasattr(made, "use_cache"):
        made.use_cache = False
    if getattr(made, "pad_token_id", None) is None:
        made.pad_token_id = 0
    return made


def _shrunk(name: str, value: Any, sizes: Mapping[str, int]) -> Any:
    """One value made small; the value itself where it stays."""
    token = re.fullmatch(r"(image|video|audio|speech)_token_(id|index)", name)
    if token and sizes.get("vocab_size"):
        return TOKENS[token[1]]
    if re.search(r"(_id|_idx)$", name) and type(value) is int and value > 2 and sizes.get("vocab_size"):
        return 0  # numbers of special tokens must lie within the small vocabulary
    if name in sizes and type(value) is int and value > sizes[name]:
        return sizes[name]
    widths = isinstance(value, list | tuple) and value and all(type(x) is int and x >= 32 for x in value)
    if widths and "hidden_size" in sizes:
        return type(value)(16 * max(1, x // min(value)) for x in value)
    return value


def _agree(own: Mapping[str, Any], changed: dict[str, Any]) -> None:
    """What depends on each other by default: key heads as queries', rotary part and heads of a state space."""
    for heads in HEADS:
        for keys in KEY_HEADS:
            if keys in changed and own.get(keys) == own.get(heads):
                changed[keys] = changed.get(heads, changed[keys])
    if "qk_rope_head_dim" in changed and "head_dim" in changed:
        changed["head_dim"] = changed["qk_rope_head_dim"]
    width, size = changed.get("hidden_size", 0), changed.get("head_dim")
    if "expand" in own and "num_heads" in changed and size:
        changed["num_heads"] = width * own["expand"] // size
    if "mamba_d_ssm" in own and "mamba_n_heads" in changed:
        changed["mamba_d_ssm"] = changed["mamba_n_heads"] * changed.get("mamba_d_head", 8)


def _kinds(own: Mapping[str, Any]) -> dict[str, Any]:
    """One layer of each kind, where lists say of every layer of what kind it is."""
    for name in ("num_hidden_layers", "n_layer", "num_layers"):
        layers = own.get(name)
        if type(layers) is int and layers > 4:
            lists = {k: v for k, v in own.items() if _lists(v, layers)}
            rows = list(dict.fromkeys(zip(*lists.values(), strict=True)))
            if rows:
                columns = zip(*rows, strict=True)
                return {name: len(rows), **dict(zip(lists, map(list, columns), strict=True))}
    return {}


def _lists(value: Any, layers: int) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == layers
        and all(isinstance(x, str | bool | int) for x in value)
    )
