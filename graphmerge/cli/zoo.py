"""``graphmerge zoo``: list, check, update, add, train."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from graphmerge.cli import options
from graphmerge.cli.console import Talk, examples, exit_codes, out, table
from graphmerge.cli.shared import talking
from graphmerge.errors import GateError, UsageError
from graphmerge.zoo import Check, edit, judge, read_baseline, read_zoo, run, select, write_baseline
from graphmerge.zoo.baseline import changes, updated
from graphmerge.zoo.judge import passed, unsound
from graphmerge.zoo.measure import names_of
from graphmerge.zoo.reports import counted, lines_of, require_place, write_reports
from graphmerge.zoo.run import missing, strays

app = typer.Typer(no_args_is_help=True, help="Check a folder of models against what was measured before.")

Folder = Annotated[Path, typer.Argument(help="The zoo: a folder with a zoo.yml.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "-k", metavar="<str>", help="Only entries whose name contains or fits this, e.g. 'vit*'; repeats."
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="How many entries at a time.")]
Kept = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder to keep what passed in: what has not changed is not measured again, and a"
        " check that was interrupted goes on."
    ),
]  # fmt: skip


@app.command("list", epilog=examples("zoo list zoo"))
def entries(folder: Folder = Path(), as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List the entries and their checks."""
    with exit_codes(debug):
        zoo, baseline = read_zoo(folder), read_baseline(folder)
        found = {
            n: {"model": e.model, "inputs": [w.path for w in e.inputs], "checks": names_of(e),
                "baseline": n in baseline}
            for n, e in zoo.entries.items()
        }  # fmt: skip
        rows = [
            (n, e.model, str(len(e.inputs)), str(len(names_of(e))), "yes" if n in baseline else "no")
            for n, e in zoo.entries.items()
        ]
        columns = ("entry", "model", "checkpoints", "checks", "baseline")
        Talk(True, as_json).result(found, lambda: table(str(folder), columns, rows))


@app.command(epilog=examples("zoo check zoo", "zoo check zoo -k 'vit*' --jobs 2 --cache .zoo"))
@talking
def check(
    folder: Folder = Path(),
    only: Only = None,
    jobs: Jobs = 1,
    shard: Annotated[str | None, typer.Option("--shard", help="Only a share of the entries, as I/N.")] = None,
    cache: Kept = None,
    target: Annotated[str, typer.Option("--out", "-o", help="Folder for the reports.")] = "zoo-report",
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Check every entry against the baseline.

    The exit code is 1 when something is not as the baseline says.
    """
    require_place(target, folder, force)
    zoo, baseline = read_zoo(folder), read_baseline(folder)
    found: list[Check] = []
    for measured in run(zoo, select(zoo, only or (), shard), jobs, cache, talk.tick):
        for one in judge(measured, zoo.entries[measured.entry], baseline.get(measured.entry)):
            found.append(one)
            _show(one, talk.as_json)
    for one in missing(zoo, baseline, shard) if not only else ():
        found.append(one)
        _show(one, talk.as_json)
    write_reports(target, folder, found, force)
    good = passed(found)
    result = {"passed": good, "checks": [asdict(c) for c in found]}
    line = f"{counted(found)} · {target}/report.html · {target}/junit.xml · exit {int(not good)}"
    talk.result(result, lambda: out.print(line, markup=False, soft_wrap=True))
    if not good:
        raise typer.Exit(GateError.exit_code)


def _show(one: Check, as_json: bool) -> None:
    if not as_json:
        style = {"PASS": "green", "FAIL": "bold red", "SKIP": "dim"}[one.outcome]
        first, *more = lines_of(one)
        out.print(first.removesuffix(one.outcome), end="", markup=False, soft_wrap=True)
        out.print(f"[{style}]{one.outcome}[/{style}]")
        for line in more:
            out.print(line, markup=False, soft_wrap=True)


@app.command(epilog=examples("zoo update zoo -k classifier"))
def update(
    folder: Folder = Path(),
    only: Only = None,
    jobs: Jobs = 1,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure anew, write baseline.json, and print what moved.

    Nothing else writes that file. What no baseline can excuse (weights that are others, a symmetry that does
    not hold, an ONNX file that computes something else) stops it: exit code 1, and the baseline stays.
    """
    with exit_codes(debug):
        talk = Talk(quiet, False)
        zoo, old = read_zoo(folder), read_baseline(folder)
        new = {n: facts for n, facts in old.items() if n in zoo.entries}
        moved = [f"{n}: no longer in the zoo" for n in strays(zoo, old)]
        for measured in run(zoo, select(zoo, only or ()), jobs, None, talk.tick):
            name = measured.entry
            for one in unsound(measured, zoo.entries[name]):
                raise GateError("\n".join(lines_of(one)) + "\n  No baseline was written.")
            new[name] = updated(old.get(name, {}), measured, zoo.entries[name])
            if name in old:
                moved += [f"{name}  {line}" for line in changes(old[name], new[name])]
            else:
                moved.append(f"{name}: new, {len(new[name])} measurements")
        write_baseline(folder, new)
        for line in moved or ["nothing moved"]:
            out.print(line, markup=False, soft_wrap=True)


@app.command(
    epilog=examples("zoo add classifier --zoo zoo -m net:make -i 2x3x32x32 -w a.safetensors -w b.safetensors")
)
def add(
    name: Annotated[str, typer.Argument(help="What to call the entry.")],
    model: options.Model,
    inputs: options.Inputs = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", "-w", metavar="<str>", help="Checkpoint, relative to the zoo; repeats."),
    ] = None,
    folder: Annotated[Path, typer.Option("--zoo", help="The zoo: a folder with a zoo.yml.")] = Path(),
    data: options.Data = None,
    test: Annotated[
        str | None, typer.Option("--test", "-t", help="Batches to measure on; those of --data without it.")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Append an entry to zoo.yml; begin the file if there is none.

    The SHA-256 of its checkpoints is written beside them.
    """
    with exit_codes(debug):
        given: dict[str, Any] = {"model": model, "example_inputs": inputs, "inputs": weights}
        given |= {"data": data, "test": test}
        edit.add(edit.opened(folder), name, {k: v for k, v in given.items() if v})
        out.print(
            f"{name}: added; run `graphmerge zoo update {folder} -k {name}`", markup=False, soft_wrap=True
        )


@app.command(epilog=examples("zoo train classifier --zoo zoo"))
def train(
    name: Annotated[str, typer.Argument(help="The entry.")],
    folder: Annotated[Path, typer.Option("--zoo", help="The zoo: a folder with a zoo.yml.")] = Path(),
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make an entry's checkpoints anew by its `train` command.

    It is run for each of them, and their SHA-256 in zoo.yml are renewed.
    """
    with exit_codes(debug):
        zoo = read_zoo(folder)
        if name not in zoo.entries:
            raise UsageError(f"{folder} has no entry {name!r}; there are: {', '.join(zoo.entries)}")
        for line in edit.train(zoo, name, Talk(quiet, False).say):
            out.print(line, markup=False, soft_wrap=True)
