"""Rules for operators of one's own."""

from __future__ import annotations

from collections.abc import Callable

from graphmerge.axes import RULES
from graphmerge.axes.registry import RuleFunction


def rule(name: str, text: str | None = None) -> Callable[[RuleFunction], RuleFunction]:
    """State which dimensions of an operator belong together; it holds for every later trace.

    ``name`` is ``namespace.operator``, without overload. ``text`` says it like an einsum, tensor by
    tensor: letters that recur move together, ``...`` stands for dimensions that match from the right,
    a letter that the result lacks is summed over (``"b i, o i -> b o"``). Without a text the result
    decorates a function of the ``Call``. Check the rule against the operator with ``check_rule``.

    >>> _ = rule("mylib.scaled_relu", "... -> ...")

    Raises ValueError where the operator has a rule already.
    """
    if text is not None:
        RULES.add(name, text)
    return RULES.rule(name) if text is None else lambda function: function
