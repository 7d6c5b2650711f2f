"""Write docs/api.md from the docstrings, the option tables and the command line.

python tools/api_docs.py            # writes it
python tools/api_docs.py --check    # exit code 1 where it is out of date
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import typer

import graphmerge as gm
from graphmerge.axes import RULES
from graphmerge.cli.app import app
from graphmerge.evaluate.measures import MEASURES
from graphmerge.match import METHODS as MATCHING
from graphmerge.match import WAYS
from graphmerge.merge import METHODS as MERGING
from graphmerge.options import Option
from graphmerge.repair import METHODS as REPAIRS

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
WIDTH = 110
HEAD = """# API reference

Made by `python tools/api_docs.py` from the docstrings: do not edit.
`import graphmerge as gm` gives these names.
"""


class Raw(str):
    """Text that a signature shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature(function: Any, name: str) -> str:
    """The signature as code, one parameter a line where it is long."""
    found = inspect.signature(function)
    parameters = [_plain(p) for p in found.parameters.values() if p.name not in ("self", "cls")]
    returns = "" if found.return_annotation is inspect.Signature.empty else f" -> {found.return_annotation}"
    short = f"{name}{inspect.Signature(parameters)}{returns}"
    if len(short) <= WIDTH:
        return short
    inside = str(inspect.Signature(parameters))[1:-1]
    return f"{name}(\n" + "".join(f"    {part},\n" for part in _split(inside)) + f"){returns}"


def _plain(p: inspect.Parameter) -> inspect.Parameter:
    """Annotations without quotes, functions and objects as defaults by their names."""
    changed = p.replace(annotation=Raw(p.annotation) if isinstance(p.annotation, str) else p.annotation)
    if callable(p.default) and p.default is not inspect.Parameter.empty:
        return changed.replace(default=Raw(p.default.__name__))
    return changed.replace(default=Raw("RULES")) if p.default is RULES else changed


def _split(text: str) -> list[str]:
    """Parameters at the commas outside of brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "[({") - (c in "])}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts]


def docstring(x: Any) -> str:
    """A docstring as Markdown: single backquotes, lists of parameters, examples as code."""
    text = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(x) or "")
    if "\n---" in text:
        text = re.sub(r"^(\w+)\n-{3,}$", r"\1:\n", text, flags=re.MULTILINE)
        text = re.sub(r"^(\S.*)\n {4}(?=\S)", r"- `\1`: ", text, flags=re.MULTILINE)
    return re.sub(r"(?:^>>> .*\n?)+", lambda m: f"```py\n{m[0].strip()}\n```\n", text, flags=re.MULTILINE)


def entry(name: str, x: Any) -> Iterator[str]:
    """A public name: a function with its signature, or a class with its fields and methods."""
    yield f"### {name}\n"
    if not inspect.isclass(x):
        yield f"```py\n{signature(x, name)}\n```\n\n{docstring(x)}\n"
        return
    yield docstring(x) + "\n"
    if is_dataclass(x):
        yield "| field | type |\n|---|---|"
        yield from (f"| `{f.name}` | `{_cell(f.type)}` |" for f in fields(x) if not f.name.startswith("_"))
        yield ""
    for member, value in vars(x).items():
        yield from _member(member, value)
    yield ""


def _member(name: str, value: Any) -> Iterator[str]:
    """A public method, or what is computed from the fields."""
    if name.startswith("_"):
        return
    function = getattr(value, "fget", None) or getattr(value, "func", None)
    if function is not None:
        yield f"- `.{name}`: `{function.__annotations__['return']}`. {_joined(function)}"
    elif inspect.isfunction(value):
        yield f"- `.{signature(value, name)}`. {_joined(value)}"


def _joined(x: Any) -> str:
    return _one_line(docstring(x))


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")


def options(table: Mapping[str, Option]) -> Iterator[str]:
    """Options of a method as a table."""
    if table:
        yield "| option | default | values | meaning |\n|---|---|---|---|"
        for name, o in table.items():
            yield f"| `{name}` | {o.default} | {_cell(o.expected)} | {_cell(o.text)} |"
        yield ""


def matching() -> Iterator[str]:
    for name, m in MATCHING.items():
        needs = " Needs data." if m.needs_data else ""
        yield f"### Matching: {name}\n\n{_sentence(m.meaning)}{needs} Source: {m.source}.\n"
        yield from options(m.options)


def merging() -> Iterator[str]:
    wants = {
        "inputs": "data",
        "targets": "data with targets",
        "held-out": "held-out data",
        "own": "data of each model",
    }
    for name, m in MERGING.items():
        needed = [x for x in ("a base" if m.base else "", wants.get(m.data, "")) if x]
        needs = f" Needs {' and '.join(needed)}." if needed else ""
        yield f"### Merging: {name}\n\n{_sentence(m.text)}{needs} Source: {m.source}.\n"
        yield from options(m.options)


def many() -> Iterator[str]:
    for name, w in WAYS.items():
        pairs = "" if w.any_pairwise else " Takes no other pairwise method than weights."
        yield f"### Many: {name}\n\n{_sentence(w.meaning)}{pairs} Source: {w.source}.\n"
        yield from options(w.options)


def repairing() -> Iterator[str]:
    when = {"auto": "Tried by default.", "all": "Tried where all are asked for.", "by name": "On request."}
    for name, r in REPAIRS.items():
        yield f"### Repair: {name}\n\n{_sentence(r.meaning)} {when[r.tried]} Source: {r.source}.\n"
        yield from options(r.options)


def measures() -> Iterator[str]:
    for name, m in MEASURES.items():
        source = f" Source: {m.source}." if m.source else ""
        yield f"### Measure: {name}\n\n{_sentence(m.text)}{source}\n"
        yield from options(m.options)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def commands(group: Any, path: str) -> Iterator[str]:
    """Every command of a click group with its arguments and options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
            continue
        arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
        yield f"### {path} {name}\n\n```sh\n{' '.join([path, name, *arguments])} [OPTIONS]\n```\n"
        yield _one_line(command.help or "") + "\n"
        yield "| option | default | meaning |\n|---|---|---|"
        for p in command.params:
            if p.param_type_name == "option" and not p.hidden:
                names = ", ".join(f"`{n}`" for n in (*p.opts, *p.secondary_opts))
                yield f"| {names} | {_default(p)} | {_cell(_one_line(p.help or ''))} |"
        yield ""


def _default(p: Any) -> str:
    if p.required:
        return "required"
    return "" if p.default is None or isinstance(p.default, bool) or callable(p.default) else str(p.default)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def page() -> str:
    """The whole page."""
    public = {name: getattr(gm, name) for name in gm.__all__}
    classes = {n: x for n, x in public.items() if inspect.isclass(x)}
    errors = {n: x for n, x in classes.items() if issubclass(x, gm.GraphMergeError)}
    sections: dict[str, Iterator[str]] = {
        "Functions": (t for n, x in public.items() if n not in classes for t in entry(n, x)),
        "Classes": (t for n, x in classes.items() if n not in errors for t in entry(n, x)),
        "Errors": (f"- `{n}` (exit code {x.exit_code}): {_joined(x)}" for n, x in errors.items()),
        "Matching methods": matching(),
        "Many models": many(),
        "Merge methods": merging(),
        "Repairs": repairing(),
        "Measures": measures(),
        "Command line": commands(typer.main.get_command(app), "graphmerge"),
    }
    lines = [HEAD, *(f"- [{t}](#{t.lower().replace(' ', '-')})" for t in sections), ""]
    for title, body in sections.items():
        lines += [f"## {title}\n", *body, ""]
    text = re.sub(r"[ \t]+$", "", "\n".join(lines), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; say whether it is up to date")
    wanted = page()
    if parser.parse_args().check:
        sys.exit(0 if PAGE.read_text() == wanted else f"{PAGE.name} is out of date: run tools/api_docs.py")
    PAGE.write_text(wanted)


if __name__ == "__main__":
    main()
