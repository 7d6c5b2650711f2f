"""The networks with golden files: those of the zoo, and five more."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models_zoo.architectures import ARCHITECTURES, Architecture
from models_zoo.architectures.language import Logits
from models_zoo.architectures.table import floats
from models_zoo.architectures.vision import torchvision_models
from models_zoo.resnet import resnet20


class MixerBlock(nn.Module):
    """One MLP across the places of each channel, one across the channels of each place."""

    def __init__(self, places: int, width: int, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(places, tokens), nn.GELU(), nn.Linear(tokens, places))
        self.channels = nn.Sequential(nn.Linear(width, channels), nn.GELU(), nn.Linear(channels, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 4, 4)
        self.blocks = nn.Sequential(*(MixerBlock(9, 20, 14, 26) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.blocks(self.stem(x).flatten(2).transpose(1, 2))).mean(1))
        return out


def _bart() -> nn.Module:
    torchvision_models()  # transformers imports it
    from transformers import BartConfig, BartForConditionalGeneration

    made = BartForConditionalGeneration(
        BartConfig(
            vocab_size=61, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=40,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    )  # fmt: skip
    made.call_options = {"use_cache": False}
    return Logits(made)


def _vgg16() -> nn.Module:
    """VGG16 for small images (Git Re-Basin's, with BatchNorm): all five poolings, three linear layers."""
    vgg = torchvision_models().vgg
    features: nn.Module = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    head = (nn.Linear(512, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10))
    return nn.Sequential(features, nn.Flatten(), *head)


def _densenet() -> nn.Module:
    make = torchvision_models().densenet.DenseNet
    made: nn.Module = make(8, (2, 3, 4, 2), num_init_features=10, bn_size=2, num_classes=10)
    return made


def _pair() -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids = {n: torch.randint(3, 61, (3, 11 - 4 * k)) for k, n in enumerate(("input_ids", "decoder_input_ids"))}
    return (), ids


_OTHERS = (
    Architecture("bart", _bart, _pair, "transformers"),
    Architecture("densenet", _densenet, floats(2, 3, 64, 64), "torchvision"),
    Architecture("mlp_mixer", Mixer, floats(7, 3, 12, 12)),
    Architecture("resnet20", resnet20, floats(2, 1, 28, 28)),
    Architecture("vgg16", _vgg16, floats(2, 3, 32, 32), "torchvision"),
)
_FROM_ZOO = (
    "bert", "bloom", "convnext_tiny", "efficientnet_b0", "gemma2", "gpt2", "grouped_convolutions",
    "groupnorm_resnet", "gru", "llama", "lstm", "lstm_projected", "lstm_stacked_bidirectional", "mamba",
    "mixtral", "mlp", "mobilenet_v2", "opt", "phi3", "pixel_shuffle", "qwen3", "regnet_y_400mf", "resnet50",
    "resnext50_32x4d", "separable_convolutions", "squeezenet1_1", "swin_t_small", "t5", "tied_autoencoder",
    "unet", "vit_b_16_small", "whisper",
)  # fmt: skip

REFERENCES = {a.name: a for a in (*_OTHERS, *(ARCHITECTURES[n] for n in _FROM_ZOO))}


def made_of(architecture: Architecture) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """A network with its example inputs."""
    if importlib.util.find_spec(architecture.needs) is None:
        pytest.skip(f"{architecture.needs} is not installed")
    return architecture.build().eval(), *architecture.inputs()
