"""Commands on recipes that merge nothing: plan and schema."""

from __future__ import annotations

import json
import sys

from graphmerge.cli import options
from graphmerge.cli.console import Talk, err, escape, out, table
from graphmerge.cli.flags import Paths, Values, recipe_of, with_recipe
from graphmerge.cli.shared import talking
from graphmerge.errors import amount
from graphmerge.recipe import Recipe
from graphmerge.run.plan import Plan, plan_recipe


@talking
@with_recipe
def plan(
    paths: Paths,
    given: Values,
    force: options.Force = False,
    *,
    talk: Talk,
) -> None:
    """Say what a merge will do and cost, and what is wrong with it.

    It takes what `merge` takes, reads only the headers of files, and writes nothing. The exit code is that
    of the first fault.
    """
    found = plan_recipe(recipe_of(paths, given), force=force, say=talk.say)
    talk.result(found.to_json(), lambda: show(found))
    for fault in found.faults if not talk.as_json else ():
        err.print(f"[bold red]graphmerge:[/bold red] {escape(str(fault))}", soft_wrap=True)
    if found.faults:
        raise SystemExit(found.faults[0].exit_code)


def schema() -> None:
    """Print the JSON Schema of a recipe, for editors and checks."""
    sys.stdout.write(json.dumps(Recipe.model_json_schema(), indent=2) + "\n")


def _matching(step: Recipe) -> str:
    """The method, and of three models or more the way."""
    return f"{step.match.method}, {step.match.many}" if len(step.inputs) > 2 else step.match.method


def show(found: Plan) -> None:
    """The stages, the groups, the costs, and how many faults."""
    rows = [
        (name, ", ".join(f.path for f in s.inputs), _matching(s), s.merge.method, s.repair.method)
        for name, s in found.recipe.steps
    ]
    table("Merges", ("", "inputs", "match", "merge", "repair"), rows)
    if found.graph:
        groups = found.graph.groups
        units = sum(g.units for g in groups)
        out.print(f"{len(groups)} symmetry group{'s' * (len(groups) != 1)}, {units} units", markup=False)
    if found.estimate:
        cells = [(stage, f"{seconds:.1f}") for stage, seconds in found.estimate.stages.items()]
        table("Seconds, about", ("stage", "seconds"), cells)
        peak = amount(found.estimate.peak_bytes)
        about = f"about {found.estimate.seconds:.0f} s and {peak} of memory in all"
        out.print(f"{about} (rough: within a factor of 3)", markup=False, soft_wrap=True)
        if found.estimate.without:
            out.print(f"not estimated: {', '.join(found.estimate.without)}", markup=False, soft_wrap=True)
    count = f"{len(found.faults)} faults" if len(found.faults) != 1 else "1 fault"
    ready = count if found.faults else "nothing is in the way"
    out.print(f"writes {amount(found.output_bytes)}; {ready}; looked for {found.seconds:.1f} s", markup=False)
