"""A loss, as a user names it."""

from __future__ import annotations

from functools import partial

from graphmerge.errors import UsageError
from graphmerge.losses import Function, Loss, loss_of
from graphmerge.sources.factory import import_object, is_import


def load_loss(given: str | Function | Loss) -> Loss:
    """A loss by its name, or ``module:function`` (a class is called first), or a function itself."""
    if not isinstance(given, str) or not is_import(given):
        return loss_of(given)
    found, arguments = import_object(given)
    made = found(**arguments) if isinstance(found, type) else partial(found, **arguments)
    if not callable(made):
        raise UsageError(f"--loss {given}: expected a function of (outputs, targets)")
    return loss_of(made, given)
