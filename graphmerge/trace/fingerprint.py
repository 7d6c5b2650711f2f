"""What the graph of a model depends on, as one hash: code, settings, shapes, inputs, versions.

Values of parameters and of persistent buffers are left out, for the graph has no part in them.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickle import PicklingError
from typing import Any

import torch
from torch import nn

from graphmerge.trace.export import KEEP
from graphmerge.trace.memory import ties
from graphmerge.trace.source import of_torch

_PLAIN = (
    str, bytes, int, float, complex, bool, type(None), type(...), range, slice, types.ModuleType,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
_ELSEWHERE = {"_parameters", "_buffers", "training"}


def fingerprint(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal over all that a trace of ``model`` is known to depend on.

    That is: the versions of Python, torch, graphmerge and of the packages that define a class in the
    model; the source files of those classes; every attribute of every module, followed into the
    objects that it holds (a configuration, an activation function); names, shapes, dtypes, devices and
    ties of parameters and buffers; the inputs, with the values of those that are no floats.
    """
    seen = _Seen()
    tokens = [
        *("python", platform.python_version(), "torch", torch.__version__),
        *("graphmerge", version("graphmerge"), repr(KEEP), str(torch.get_default_dtype())),
    ]
    state = model.state_dict()
    tied = ties(state)
    for name, t in state.items():
        tokens += [name, *(_outside(t) if name in tied else seen.tokens(t)), repr(tied.get(name))]
    for path, module in model.named_modules(remove_duplicate=False):
        tokens += ["module", path, *seen.tokens(module)]
    for x in (*args, *(kwargs[k] for k in sorted(kwargs))):
        tokens += ["input", *seen.tokens(x, is_input=True)]
    tokens += sorted(kwargs)
    tokens += [f"{p} {file_hash(p)}" for p in sorted(seen.files)]
    tokens += sorted(seen.packages())
    return _hash(tokens)


def content_hash(x: object) -> str:
    """SHA-256 in hexadecimal over an object and all that it holds, the values of tensors and arrays too."""
    return _hash(_Seen().tokens(x))


def _hash(tokens: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(tokens).encode("utf-8", "surrogateescape")).hexdigest()


def file_hash(path: str) -> str:
    """SHA-256 of a file in hexadecimal; empty where there is none."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def local_sources() -> dict[str, str]:
    """Every imported source file that is not part of an installed package, with its hash.

    A model may call helpers from any of them; what is installed is told apart by its version.
    """
    installed = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix)}
    files = {str(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    own = [p for p in files if not installed & set(Path(p).resolve().parents) and p.endswith(".py")]
    return {p: file_hash(p) for p in sorted(own)}


def _outside(t: torch.Tensor) -> list[str]:
    """A tensor but for its values."""
    return [str(tuple(t.shape)), str(t.stride()), str(t.dtype), str(t.device)]


def _inside(t: torch.Tensor) -> str:
    if t.device.type == "meta":
        return "no data"
    content = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


class _Seen:
    """Describes objects, each once, and keeps account of the classes that they are made by."""

    def __init__(self) -> None:
        self.number: dict[int, int] = {}
        self.kept: list[object] = []  # ids stay taken as long as their objects live
        self.files: set[str] = set()
        self.modules: set[str] = set()

    def packages(self) -> Iterator[str]:
        """Name and version of every distribution that a class came from."""
        for name in {m.partition(".")[0] for m in self.modules}:
            try:
                yield f"{name} {version(name)}"
            except PackageNotFoundError:
                yield name

    def tokens(self, x: Any, is_input: bool = False) -> Iterator[str]:
        """The parts of an object in words."""
        if isinstance(x, _PLAIN):
            yield f"{type(x).__name__} {x!r}"
            return
        if id(x) in self.number:
            yield f"again {self.number[id(x)]}"
            return
        self.number[id(x)] = len(self.number)
        if isinstance(x, list | tuple | Mapping | set | frozenset):
            yield from self._container(x, is_input)
            del self.number[id(x)]  # equal containers need not be one object to be told alike
            return
        self.kept.append(x)
        if isinstance(x, torch.Tensor):
            yield from _outside(x)
            yield "" if is_input and x.is_floating_point() else _inside(x)
        elif isinstance(x, type):
            yield from self._class(x)
        elif isinstance(x, types.FunctionType):
            yield from self._function(x)
        else:
            yield from self._class(type(x))
            yield from self._state(x)

    def _container(self, x: Any, is_input: bool) -> Iterator[str]:
        yield f"{type(x).__qualname__} of {len(x)}"
        if isinstance(x, set | frozenset):
            yield from sorted(" ".join(self.tokens(y, is_input)) for y in x)
            return
        for y in x:
            if not isinstance(x, Mapping):
                yield from self.tokens(y, is_input)
            elif not str(y).endswith("_hash"):  # drawn from the rest, and another in every process
                yield from (*self.tokens(y), *self.tokens(x[y], is_input))

    def _state(self, x: Any) -> Iterator[str]:
        """What an object holds; of a module its own attributes, and buffers outside of its state dict."""
        if isinstance(x, nn.Module):
            yield from self.tokens({k: v for k, v in vars(x).items() if k not in _ELSEWHERE})
            for name in sorted(x._non_persistent_buffers_set):
                yield from (name, *self.tokens(x._buffers.get(name)))
        else:
            yield from self.tokens(_reduced(x))

    def _class(self, kind: type) -> Iterator[str]:
        yield f"{kind.__module__}.{kind.__qualname__}"
        for base in kind.__mro__:
            file = getattr(sys.modules.get(base.__module__), "__file__", None)
            if base.__module__ == "__main__" or file is None:
                yield from (
                    t for f in vars(base).values() if isinstance(f, types.FunctionType) for t in _code(f)
                )
            elif not of_torch(file):
                self.files.add(file)
                self.modules.add(base.__module__)

    def _function(self, f: types.FunctionType) -> Iterator[str]:
        yield f"{f.__module__}.{f.__qualname__}"
        yield from _code(f)
        yield from self.tokens([f.__defaults__, f.__kwdefaults__])
        for cell in f.__closure__ or ():
            yield from self.tokens(cell.cell_contents)


def _reduced(x: object) -> object:
    """What pickle would keep of an object; of one that it refuses, how it is shown, without its address."""
    try:
        parts = x.__reduce_ex__(4)
    except (TypeError, AttributeError, NotImplementedError, RuntimeError, PicklingError):
        return re.sub(r" at 0x\w+", "", repr(x))
    return [list(p) if isinstance(p, Iterator) else p for p in parts] if isinstance(parts, tuple) else parts


def _code(f: types.FunctionType) -> Iterator[str]:
    """A function by what it does: instructions, names and constants."""
    todo = [f.__code__]
    while todo:
        code = todo.pop()
        yield from (code.co_code.hex(), repr(code.co_names), repr(code.co_varnames))
        for x in code.co_consts:
            if isinstance(x, types.CodeType):
                todo.append(x)
            else:
                yield repr(sorted(map(repr, x))) if isinstance(x, frozenset) else repr(x)
