"""transformers' architectures from small random configurations, no caches."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models_zoo.architectures.table import Architecture, Inputs
from models_zoo.architectures.vision import torchvision_models

_TEXT: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_ENCODER = {**_TEXT, "intermediate_size": 48, "max_position_embeddings": 40}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0}


class Logits(nn.Module):
    """A model whose only output is its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**inputs, **getattr(self.model, "call_options", {})).logits
        return logits


def _build(model: str, config: str, options: dict[str, Any], experts: str = "") -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        if importlib.util.find_spec("torchvision"):  # transformers imports it where it is installed
            torchvision_models()
        transformers = importlib.import_module("transformers")
        transformers.logging.set_verbosity_error()
        settings = getattr(transformers, config)(**options)
        if experts:
            settings._experts_implementation = experts
        made = getattr(transformers, model)(settings)
        if hasattr(settings, "use_cache"):
            made.call_options = {"use_cache": False}
        return Logits(made)

    return build


def _ids(*names: str, **more: tuple[int, ...]) -> Callable[[], Inputs]:
    def inputs() -> Inputs:
        ids: dict[str, Any] = {n: torch.randint(3, 61, (3, 11 - 4 * k)) for k, n in enumerate(names)}
        return (), ids | {n: torch.randn(shape) for n, shape in more.items()}

    return inputs


def _padded() -> Inputs:
    """Ids of which the last row ends in four padded places."""
    mask = torch.ones(3, 11, dtype=torch.int64)
    mask[-1, 7:] = 0
    return (), {"input_ids": torch.randint(3, 61, (3, 11)), "attention_mask": mask}


def _text(name: str, model: str, config: str, **options: Any) -> Architecture:
    return Architecture(name, _build(model, config, options), _ids("input_ids"), "transformers")


def _pixels(name: str, model: str, config: str, size: int, **options: Any) -> Architecture:
    return Architecture(
        name, _build(model, config, options), _ids(pixel_values=(7, 3, size, size)), "transformers"
    )


_MIXTRAL = {**_GROUPED, "num_local_experts": 5}
_WHISPER = {
    "vocab_size": 61, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "num_mel_bins": 12, "max_source_positions": 20,
    "max_target_positions": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip

ARCHITECTURES = (
    Architecture("bert", _build("BertForMaskedLM", "BertConfig", _ENCODER), _padded, "transformers", "with a mask for padding"),
    Architecture("roberta", _build("RobertaForMaskedLM", "RobertaConfig", _ENCODER), _padded, "transformers", "with a mask for padding"),
    _text("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", vocab_size=61, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40),
    _text("opt", "OPTForCausalLM", "OPTConfig", **_TEXT, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=40),
    _text("gpt2", "GPT2LMHeadModel", "GPT2Config", vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=40),
    _text("gpt_neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", **_TEXT, intermediate_size=48),
    _text("bloom", "BloomForCausalLM", "BloomConfig", vocab_size=61, hidden_size=32, n_layer=2, n_head=4),
    _text("llama", "LlamaForCausalLM", "LlamaConfig", **_GROUPED),
    _text("mistral", "MistralForCausalLM", "MistralConfig", **_GROUPED),
    _text("gemma2", "Gemma2ForCausalLM", "Gemma2Config", **{**_GROUPED, "hidden_size": 40, "num_attention_heads": 10}, head_dim=6),
    _text("qwen3", "Qwen3ForCausalLM", "Qwen3Config", **_GROUPED, head_dim=8),
    _text("phi3", "Phi3ForCausalLM", "Phi3Config", **_GROUPED),
    _text("mamba", "MambaForCausalLM", "MambaConfig", vocab_size=61, hidden_size=32, num_hidden_layers=2, state_size=6),
    _text("mixtral", "MixtralForCausalLM", "MixtralConfig", **_MIXTRAL),
    Architecture("mixtral_batched", _build("MixtralForCausalLM", "MixtralConfig", _MIXTRAL, "batched_mm"), _ids("input_ids"), "transformers"),
    Architecture("t5", _build("T5ForConditionalGeneration", "T5Config", {"vocab_size": 61, "d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 48}), _ids("input_ids", "decoder_input_ids"), "transformers"),
    Architecture("whisper", _build("WhisperForConditionalGeneration", "WhisperConfig", _WHISPER), _ids("decoder_input_ids", input_features=(3, 12, 40)), "transformers"),
    _pixels("hf_vit", "ViTForImageClassification", "ViTConfig", 16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8),
    _pixels("hf_swin", "SwinForImageClassification", "SwinConfig", 48, image_size=48, patch_size=2, embed_dim=20, depths=[2, 2], num_heads=[2, 5], window_size=3),
    _pixels("hf_convnext", "ConvNextForImageClassification", "ConvNextConfig", 64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1]),
)  # fmt: skip
