"""The checkpoints that a recipe names: there, as they were when it was written, and not the same twice."""

from __future__ import annotations

import itertools
from pathlib import Path

from graphmerge.errors import InputError, refusal
from graphmerge.files import hash_of
from graphmerge.recipe import File, Recipe
from graphmerge.sources import check_data_file, is_import


def checkpoints(recipe: Recipe) -> dict[str, File]:
    """Every checkpoint by its path, in the order of use; results of stages are none."""
    stages = {s.name for s in recipe.stages}
    files = [f for _, step in recipe.steps for f in (*step.inputs, *([step.base] if step.base else []))]
    return {f.path: f for f in files if f.path not in stages}


def in_memory(recipe: Recipe) -> list[set[str]]:
    """For every merge the checkpoints and earlier results that it or a later one names: what is in memory.

    All are read before the first merge, so that a fault in one is told at once, and let go after their last.
    """
    names = [name for name, _ in recipe.steps]
    used = [{f.path for f in (*s.inputs, *([s.base] if s.base else []))} for _, s in recipe.steps]
    return [set().union(*used[k:]) - set(names[k:]) for k in range(len(names))]


def data_files(recipe: Recipe) -> dict[str, File]:
    """Every file of data by its path; what is imported is none."""
    files = [f for _, step in recipe.steps for f in (step.data, step.test, *step.own_data) if f]
    return {f.path: f for f in files if not is_import(f.path)}


def require_different(recipe: Recipe) -> None:
    """InputError where one merge has the same file twice, by name or by link, unless that is allowed."""
    for _, step in recipe.steps if not recipe.allow_duplicate else ():
        for one, other in itertools.combinations([f.path for f in step.inputs], 2):
            if one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other)):
                raise InputError(_twice(one, other))


def _twice(one: str, other: str) -> str:
    means = "merging them gives them back; pass --allow-duplicate to go on"
    return f"{one} and {other} hold the same bytes: {means}"


def verified(recipe: Recipe) -> dict[str, str]:
    """The SHA-256 of every checkpoint and data file by its path.

    Raises InputError where one is missing or holds no data, has another hash than the recipe says, or where
    a merge has the same one twice and ``allow_duplicate`` is off.
    """
    for path in data_files(recipe):
        check_data_file(path)
    hashes = {path: _hash(file) for path, file in (checkpoints(recipe) | data_files(recipe)).items()}
    require_different(recipe)
    for _, step in recipe.steps if not recipe.allow_duplicate else ():
        for one, other in itertools.combinations([f.path for f in step.inputs if f.path in hashes], 2):
            if hashes[one] == hashes[other]:
                raise InputError(_twice(one, other))
    return hashes


def _hash(file: File) -> str:
    seen = hash_of(file.path)
    if file.sha256 not in (None, seen):
        raise InputError(
            refusal(
                f"{file.path!r} is not the file that the recipe means.",
                expected=f"SHA-256 {file.sha256}",
                seen=seen,
                means="its bytes have changed since the recipe was written, or it is another file",
                fix="fetch that file again; or take sha256 out of the recipe to use this one",
            )
        )
    return seen
