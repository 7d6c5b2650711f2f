"""Every refusal of graphmerge, with the exit code that the command line gives it."""


class GraphMergeError(Exception):
    """A refusal: what, where, what was expected and seen, what it means, what to do."""

    exit_code = 1


class GateError(GraphMergeError):
    """A gate failed: verification, parity of an export, or a regression."""

    exit_code = 1


class UsageError(GraphMergeError):
    """The call itself is wrong: an option, a recipe, or an output in the way."""

    exit_code = 2


class InputError(GraphMergeError):
    """An input file or the data given is bad."""

    exit_code = 3


class TraceError(GraphMergeError):
    """The model cannot be traced, or two models do not share one graph."""

    exit_code = 4


class SystemFault(GraphMergeError):
    """The system failed: no space, no permission, no memory."""

    exit_code = 5
