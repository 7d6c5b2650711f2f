"""Which line of the model's own code made a node of its graph."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import fx

_FRAME = re.compile(
    r'File "(?P<path>[^"\n]+)", line (?P<line>\d+), in \S+(?:\n\s*(?!File ")(?P<code>[^\n]*))?'
)
_TORCH = str(Path(torch.__path__[0])) + os.sep


@dataclass(frozen=True)
class SourceLine:
    """A line of a file; ``str`` shows the path from the current folder, or as it is imported."""

    path: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{_shown(self.path)}:{self.line}" + (f": {self.code}" if self.code else "")


def source_lines(graph: fx.GraphModule) -> dict[str, SourceLine]:
    """The deepest line outside of torch for each node, by name; ``outer/inner`` in a subgraph.

    torch keeps the frames of ``forward`` methods: a helper is shown as the line that calls it. A node
    that torch's own modules alone made (a bare ``nn.Sequential``) has no line, nor has a name that the
    subgraphs of one operator (the branches of a condition) use for different lines.
    """
    found: dict[str, SourceLine | None] = {}
    for name, line in _lines(graph, ""):
        found[name] = line if found.get(name, line) == line else None
    return {name: line for name, line in found.items() if line is not None}


def _lines(graph: fx.GraphModule, prefix: str) -> Iterator[tuple[str, SourceLine]]:
    for node in graph.graph.nodes:
        frames = [f for f in _FRAME.finditer(node.stack_trace or "") if not of_torch(f["path"])]
        if frames:
            last = frames[-1]
            yield prefix + node.name, SourceLine(last["path"], int(last["line"]), last["code"] or "")
        for body in (getattr(graph, str(a.target), None) for a in node.all_input_nodes if a.op == "get_attr"):
            if isinstance(body, fx.GraphModule):
                yield from _lines(body, f"{prefix}{node.name}/")


def of_torch(path: str) -> bool:
    """Whether a file is one of torch's own (torchvision's are not), or code that it made up and ran."""
    return path.startswith((_TORCH, "<eval_with_key>"))


@cache
def _shown(path: str) -> str:
    """The path below the innermost folder that code is imported from, the current one included."""
    file = Path(path)
    roots = {Path(p).absolute() for p in ("", *sys.path)} & set(file.parents)
    return str(file.relative_to(max(roots, key=lambda r: len(r.parts)))) if roots else path
