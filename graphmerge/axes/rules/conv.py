"""Convolutions, pools, resampling: channels move, space does not."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value

_SPACE = ("h", "w", "z")


def _letters(rank: int, mark: str) -> str:
    return " ".join(mark + x for x in _SPACE[:rank])


@RULES.rule(
    "aten.conv1d", "aten.conv2d", "aten.conv3d",
    "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d",
)  # fmt: skip
def convolution(call: Call) -> list[Value]:
    """conv(input [n, g*i, ...], weight [g*o, i, ...] or, transposed, [g*i, o, ...], bias?, ..., groups)"""
    x, w, b = call["input"], call["weight"], call["bias"]
    rank = w.rank - 2
    space, kernel, out = _letters(rank, "x"), _letters(rank, "k"), _letters(rank, "y")
    batch = "n " if x.rank == w.rank else ""
    weight = "(g i) o" if "transpose" in call.op else "(g o) i"
    text = f"{batch}(g i) {space}, {weight} {kernel}, (g o)? -> {batch}(g o) {out} | {space} {kernel} {out}"
    return call.relate(text, x, w, b, g=call["groups"])


def _spatial(rank: int, *names: str) -> None:
    space, out = _letters(rank, "x"), _letters(rank, "y")
    RULES.texts({f"aten.{name}": f"... {space} -> ... {out} | {space} {out}" for name in names})


_spatial(1, "avg_pool1d", "max_pool1d", "adaptive_avg_pool1d", "upsample_linear1d")
_spatial(1, "upsample_nearest1d", "reflection_pad1d", "replication_pad1d")
_spatial(2, "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "upsample_bilinear2d")
_spatial(2, "upsample_nearest2d", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa")
_spatial(2, "reflection_pad2d", "replication_pad2d", "_upsample_nearest_exact2d")
_spatial(3, "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d", "upsample_trilinear3d")
_spatial(3, "upsample_nearest3d", "reflection_pad3d", "replication_pad3d")


@RULES.rule("aten.max_pool2d_with_indices", "aten.max_pool3d_with_indices", "aten.adaptive_max_pool2d")
def pool_with_indices(call: Call) -> list[Value]:
    """Maximum and its place: a place in space, so it does not move with the channels."""
    rank = 3 if "3d" in call.op else 2
    space, out = _letters(rank, "x"), _letters(rank, "y")
    return call.relate(f"... {space} -> ... {out}, ... {out} | {space} {out}", call["self"])


@RULES.rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpool(call: Call) -> list[Value]:
    """max_unpool2d(self [n, c, h, w], indices alike, output_size): each channel back to places of its own"""
    rank = 3 if "3d" in call.op else 2
    space, out = _letters(rank, "x"), _letters(rank, "y")
    return call.relate(f"... {space}, ... {space} -> ... {out} | {space} {out}", *call.tensors())


@RULES.rule("aten.grid_sampler_2d")
def grid_sampler(call: Call) -> list[Value]:
    """grid_sampler_2d(input [n, c, h, w], grid [n, y, x, 2]) -> [n, c, y, x]"""
    return call.relate("n c h w, n y x 2 -> n c y x | h w y x", call["input"], call["grid"])


@RULES.rule("aten.pixel_shuffle")
def pixel_shuffle(call: Call) -> list[Value]:
    """pixel_shuffle(self [..., c*r*r, h, w], int upscale_factor)"""
    r = call["upscale_factor"]
    return call.relate(f"... (c {r} {r}) h w -> ... c (h {r}) (w {r}) | h w", call["self"])


@RULES.rule("aten.pixel_unshuffle")
def pixel_unshuffle(call: Call) -> list[Value]:
    """pixel_unshuffle(self [..., c, h*r, w*r], int downscale_factor)"""
    r = call["downscale_factor"]
    return call.relate(f"... c (h {r}) (w {r}) -> ... (c {r} {r}) h w | h w", call["self"])


@RULES.rule("aten.im2col")
def unfold(call: Call) -> list[Value]:
    """im2col(self [n, c, h, w], kernel_size, ...) -> [n, c*kh*kw, windows]"""
    kh, kw = call["kernel_size"]
    return call.relate(f"... c h w -> ... (c {kh} {kw}) y | h w y", call["self"])


@RULES.rule("aten.col2im")
def fold(call: Call) -> list[Value]:
    """col2im(self [n, c*kh*kw, windows], output_size, kernel_size, ...) -> [n, c, h, w]"""
    kh, kw = call["kernel_size"]
    return call.relate(f"... (c {kh} {kw}) y -> ... c h w | h w y", call["self"])
