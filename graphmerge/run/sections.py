"""The report of a merge for people: sections made from its plain data, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from graphmerge.evaluate.measures import Findings, Table
from graphmerge.evaluate.measures.measure import filled, number, percent
from graphmerge.report import Document, Section, finite, measured
from graphmerge.run.summary import letter

Told = Mapping[str, Any]


def document(told: Told, figures: Mapping[str, Figure], found: Mapping[str, Findings]) -> Document:
    """The whole report; ``told`` is that of ``report_of``, ``found`` are its measures."""
    count, model, by = len(told["shares"]), told["recipe"]["model"], told["made_with"]["graphmerge"]
    lead = f"{count} models of {model}, merged into one by graphmerge {by}."
    own = _sections(told, figures)
    return Document("Merged model", lead, (*own, *(measured(n, f) for n, f in found.items()), *_origin(told)))


def _sections(told: Told, figures: Mapping[str, Figure]) -> Iterator[Section]:
    yield Section("Summary", (why(told),), (_models(told),), brief=True)
    if told["warnings"]:
        yield Section("Warnings", tuple(told["warnings"]), brief=True, alarm=True)
    yield Section("Scores", _scored_on(told), _scores(told, "rows"), brief=True)
    if "barrier" in told:
        text = (
            "The loss barrier is the largest loss on the straight path between the models, less the mean of"
            " its ends; “above line” is the largest distance above the straight line between the"
            " losses of the ends.",
        )
        drawn = {n: f for n, f in figures.items() if n == "barrier"}
        yield Section("Barrier", text, (_barriers(told),), drawn, brief=True)
    if told["alignments"]:
        drawn = {n: f for n, f in figures.items() if n == "descent"}
        yield Section("Alignment", (), (_alignments(told), *_moved(told)), drawn)
    yield Section("Repair", *_repair(told))
    yield Section("Symmetry", _symmetry(told["symmetry"]), tuple(_groups(told["symmetry"])))
    if "onnx" in told:
        yield _onnx(told["onnx"])
    for name, merge in told.get("earlier", {}).items():
        yield Section(f"Stage {name}", (why(merge), *_scored_on(merge)), _scores(merge, "rows"))


def why(told: Told) -> str:
    """What was kept, by what measure, and over what."""
    choice = told["choice"]
    kept, first, lowest = choice["kept"], choice["first"], choice["lowest"]
    if kept["held-out loss"] is None:
        return f"Kept: {kept['name']}. There were no data to choose by."
    unit = told["unit"]
    part = percent(choice["margin"]).replace(".00", "")
    text = (
        f"Kept: {kept['name']}, with a held-out loss of {number(kept['held-out loss'])} {unit} over"
        f" {choice['samples']} predictions. Of {choice['candidates']} candidates a later one, which takes a"
        f" further step, is kept only where it lowers that loss by {part} at least."
    )
    if "recipe" in told and _step(told)["repair"]["keep"] == "always":
        text += " Only repaired ones counted where there were any, as the recipe asks."
    if kept["name"] != first["name"]:
        text += f" The {first['name']} mean has {number(first['held-out loss'])} {unit}."
    if lowest and lowest["name"] != kept["name"]:
        text += f" The lowest of all is that of {lowest['name']}: {number(lowest['held-out loss'])} {unit}."
    return text


def _step(told: Told) -> Told:
    """The recipe of the last merge."""
    recipe: Told = told["recipe"]
    return recipe["stages"][-1] if "stages" in recipe else recipe


def _models(told: Told) -> Table:
    """The files of the last merge."""
    inputs = _step(told)["inputs"]
    rows = tuple(
        (f"model {letter(k)}", Path(f["path"]).name, f"{share:.4g}", f.get("sha256", "made by a stage")[:16])
        for k, (f, share) in enumerate(zip(inputs, told["shares"], strict=True))
    )
    return Table("", ("", "file", "share", "SHA-256 begins"), rows, words=True)


def _scored_on(told: Told) -> tuple[str, ...]:
    rows = [r for r in told["rows"] if "samples" in r]
    if not rows:
        return ()
    return (f"Measured on {rows[0]['samples']} predictions of {told['measured on']} by {told['loss']}.",)


def _scores(told: Told, key: str) -> tuple[Table, ...]:
    scored = [r for r in told[key] if "loss" in r]
    if not scored:
        return ()
    own = {"loss", "accuracy", "samples", "perplexity", "name", "kind", "kept", "held-out"}
    extra = [n for n in scored[0] if n not in own]
    unit = told["unit"]
    columns = ("", f"loss ({unit})", "accuracy", "perplexity", f"held-out loss ({unit})", *extra)
    rows = tuple(
        (
            r["name"] + (" (kept)" if r["kept"] else ""),
            number(r["loss"]),
            percent(r["accuracy"]),
            f"{r['perplexity']:.4g}" if "perplexity" in r else "",
            number(r["held-out"]["loss"]) if "held-out" in r else "",
            *(f"{r[n]:.4g}" for n in extra),
        )
        for r in scored
    )
    return (Table("", *filled(columns, rows)),)


def _barriers(told: Told) -> Table:
    rows = []
    for name, curve in told["barrier"].items():
        loss, error = curve["loss barrier"], curve["error barrier"]
        less = told["barrier reduction"].get(name)
        rows.append(
            (
                name,
                *(number(loss[k]) for k in ("max minus mean of ends", "max above line")),
                *(percent(error[k]) for k in ("max minus mean of ends", "max above line")),
                "" if less is None else percent(less),
            )
        )
    columns = (
        "path",
        f"loss barrier ({told['unit']})",
        f"above line ({told['unit']})",
        "error barrier",
        "above line",
        "loss barrier reduced by",
    )
    return Table("", *filled(columns, rows))


def _alignments(told: Told) -> Table:
    rows = tuple(
        (
            f"{a['method']} matching of model {a['model']}" + (" (kept)" if a["kept"] else ""),
            f"{a['start']:.6g}",
            f"{a['objective']:.6g}",
            str(sum(a["moved"].values())),
            _certificate(a),
            f"{a['seconds']:.1f}",
        )
        for a in told["alignments"]
    )
    return Table("", ("", "objective before", "after", "units moved", "certificate", "seconds"), rows)


def _certificate(alignment: Told) -> str:
    if alignment["gap"] is None:
        return "none for this method"
    return "certified" if alignment["certified"] else f"gap at most {alignment['gap']:.1e}"


def _moved(told: Told) -> Iterator[Table]:
    """Units moved by group, for each alignment that was kept."""
    sizes = {g["name"]: g["size"] * g["copies"] for g in told["symmetry"]["groups"]}
    for a in told["alignments"]:
        if a["kept"] and a["moved"]:
            gaps = a["gaps"] or {}
            rows = tuple(
                (g, str(n), str(sizes[g]), f"{gaps[g]:.2g}" if g in gaps else "")
                for g, n in a["moved"].items()
            )
            title = f"Units that {a['method']} matching moved in model {a['model']}"
            yield Table(title, ("group", "moved", "of", "possible gain of the objective"), rows)


def _repair(told: Told) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    if told["repair"] == "none":
        tried = any(" + " in r["name"] for r in told["rows"])
        return (("None was kept: see the scores." if tried else "None was tried.",), ())
    tables = tuple(
        Table(method, ("", ""), tuple((n, _words(v)) for n, v in notes.items()), words=True)
        for method, notes in told["repair_notes"].items()
        if notes
    )
    options = _words(told["repair_options"])
    return ((f"Kept: {told['repair']}. Options that were given: {options}.",), tables)


def _words(value: Any) -> str:
    """A note in words; of long lists how long they are."""
    if isinstance(value, Mapping):
        return ", ".join(f"{n}: {_words(v)}" for n, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if len(value) <= 6 else f"{len(value)}: {value[0]} ... {value[-1]}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _symmetry(found: Told) -> tuple[str, ...]:
    groups, entries = found["groups"], found["entries"]
    units = sum(g["size"] * g["copies"] for g in groups)
    share = percent(entries["moved"] / entries["all"]) if entries["all"] else "none"
    texts = [
        f"{len(groups)} groups of {units} units move, and with them {share} of {entries['all']} parameters.",
        f"Each was proved by running the model: outputs change by {found['max error']:.1e} of the largest at"
        f" most, of {found['tolerance']:.0e} that are allowed.",
    ]
    texts += [f"Kept in place: {', '.join(found['frozen'])}."] if found["frozen"] else []
    texts += [f"Without a rule, found by trying out: {line}." for line in found["probed"]]
    return tuple(texts)


def _groups(found: Told) -> Iterator[Table]:
    if found["groups"]:
        rows = tuple(
            (
                g["name"],
                f"{g['copies']} × {g['size']}" if g["copies"] > 1 else str(g["size"]),
                ", ".join(g["within"]),
                str(g["members"]),
                f"{g['error']:.1e}",
                f"{g['control']:.1e}",
            )
            for g in found["groups"]
        )
        columns = ("group", "units", "within", "dimensions", "outputs change", "when one member moves alone")
        yield Table("Groups", columns, rows)
    if found["fixed"]:
        stay = tuple((f["cause"], str(f["dimensions"]), f["example"]) for f in found["fixed"])
        yield Table("What stays in place, and why", ("cause", "dimensions", "such as"), stay)


def _onnx(told: Told) -> Section:
    if "error" in told:
        return Section("ONNX", (told["error"],))
    rows = tuple((str(batch), f"{e:.1e}") for batch, e in told["max_error"].items())
    text = f"Opset {told['opset']}, {'any' if told['dynamic'] else 'a fixed'} batch size."
    table = Table("Against torch, in onnxruntime", ("batch", "largest difference of an output"), rows)
    return Section("ONNX", (text,), (table,))


def _origin(told: Told) -> Iterator[Section]:
    """The recipe, what it ran with and on, and when what was done."""
    text: str = yaml.safe_dump(finite(told["recipe"]), sort_keys=False, allow_unicode=True)
    again = "recipe.lock.yaml makes the model again: graphmerge merge recipe.lock.yaml --out NEW"
    then = (f"Compared with the lock that was run: {told['compared']}.",) if "compared" in told else ()
    yield Section("Recipe", (again, *then), code=text)
    machine = {n: v for n, v in told["hardware"].items() if n != "memory"}
    if told["hardware"]["memory"]:
        machine["memory"] = f"{told['hardware']['memory'] / 2**30:.1f} GiB"
    seeds = {"seed": told["recipe"].get("seed", 0)}
    packages = {n: v for n, v in told["made_with"].items() if n not in machine}
    rows = tuple((n, str(v)) for n, v in {**packages, **machine, **seeds, **hashes(told)}.items())
    yield Section("Made with", (), (Table("", ("", ""), rows, words=True),))
    yield Section("Times", (), (_times(told["log"]),))


def hashes(told: Told) -> dict[str, str]:
    """The SHA-256 of every file that was read or written, by name."""

    def files(value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            if "sha256" in value and "path" in value:
                yield f"SHA-256 of {Path(value['path']).name}", value["sha256"]
            for inner in value.values():
                yield from files(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from files(inner)

    written = {f"SHA-256 of {n}": h for n, h in told.get("files", {}).items()}
    return dict(files(told["recipe"])) | written


def _times(log: list[tuple[float, str]]) -> Table:
    ends = [at for at, _ in log[1:]] + [log[-1][0]] if log else []
    rows = tuple((text, f"{at:.2f}", f"{end - at:.2f}") for (at, text), end in zip(log, ends, strict=True))
    return Table("What was done, and when", ("", "from (s)", "took (s)"), rows)
