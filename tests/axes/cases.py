"""The table of operator calls that every rule is held to, and the rules that need none."""

from __future__ import annotations

import cases_contract
import cases_index
import cases_other
import cases_shape
import cases_spectrum
from case import Case

__all__ = ["CASES", "WITHOUT_CASE", "Case"]

CASES = [
    *cases_contract.CASES,
    *cases_shape.CASES,
    *cases_index.CASES,
    *cases_other.CASES,
    *cases_spectrum.CASES,
]

_RANDOM = "two runs differ"
_EMPTY = "its values are not defined"
_CHECK = "returns no tensor"
_NARROW = "has no kernel for float64; it is the rule of transformers.grouped_mm_fallback"

WITHOUT_CASE = {
    "aten._assert_async": _CHECK,
    "aten._assert_scalar": _CHECK,
    "aten._assert_tensor_metadata": _CHECK,
    "aten.sym_size": _CHECK,
    "aten.bernoulli": _RANDOM,
    "aten.rand": _RANDOM,
    "aten.rand_like": _RANDOM,
    "aten.randint": _RANDOM,
    "aten.randn": _RANDOM,
    "aten.randn_like": _RANDOM,
    "aten.randperm": _RANDOM,
    "aten.empty": _EMPTY,
    "aten.empty_like": _EMPTY,
    "aten.empty_permuted": _EMPTY,
    "aten.empty_strided": _EMPTY,
    "aten.new_empty": _EMPTY,
    "aten.new_empty_strided": _EMPTY,
    "aten._grouped_mm": _NARROW,
    "transformers.grouped_mm_fallback": "exists only beside transformers; the same rule",
}
"""Registered operators without a case, and why."""
