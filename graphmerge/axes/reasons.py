"""Why a rule keeps a dimension in place, in words for people."""

from __future__ import annotations

from collections.abc import Mapping

SPACE = "position in space"
ROWS = "rows are named by number"
NUMBERED = "positions are named by an index"
ORDERED = "the order of positions counts"
EXPERTS = "the router names experts by number"


def _for(reason: str, *operators: str) -> Mapping[str, str]:
    return {f"aten.{op}": reason for op in operators}


BY_OPERATOR: Mapping[str, str] = {
    **_for(
        NUMBERED, "argmax", "argmin", "argsort", "gather", "index", "index_put", "index_select", "max",
        "median", "min", "mode", "sort", "topk", "_unsafe_index", "_unsafe_index_put",
    ),
    **_for(
        ORDERED, "cummax", "cummin", "cumprod", "cumsum", "logcumsumexp", "scaled_dot_product_attention",
        "tril", "triu", "unfold",
    ),
    **_for("positions become frequencies", "_fft_c2c", "_fft_c2r", "_fft_r2c"),
    **_for("elements are written one after the other", "masked_scatter"),
    **_for("real and imaginary part", "view_as_complex", "view_as_real"),
    **_for(EXPERTS, "_grouped_mm"),
    "transformers.grouped_mm_fallback": EXPERTS,
}  # fmt: skip
"""What an operator fixes, where it is always the same; else the letter of the rule tells."""


def reason(operator: str, letter: str) -> str:
    """Why ``operator`` fixes a letter: rules name space x, y, k (kernel), h, w, z and numbered rows v."""
    if operator in BY_OPERATOR:
        return BY_OPERATOR[operator]
    if letter == "v":
        return ROWS
    return SPACE if letter[0] in "xykhwz" else "its positions are told apart"
