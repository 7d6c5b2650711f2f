"""Recipes from YAML files and from flags, with every mistake named."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from graphmerge.errors import InputError, UsageError
from graphmerge.recipe.mistakes import described
from graphmerge.recipe.paths import moved, read_from
from graphmerge.recipe.schema import UNFINISHED, Recipe
from graphmerge.sources.factory import importable

SUFFIXES = (".yaml", ".yml")
LIMIT_BYTES = 10_000_000
LIMIT_ENTRIES = 1_000_000


class Loader(yaml.SafeLoader):
    """YAML without code, without keys given twice, and with 1e-3 as a number."""


Loader.yaml_implicit_resolvers = {
    first: list(found) for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class Dumper(yaml.SafeDumper):
    """Writes what ``Loader`` reads as it was: texts that look like numbers in quotes."""


Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers

MERGE = "tag:yaml.org,2002:merge"
"""The key ``<<``, by which a mapping takes over the keys of another that it does not have itself."""


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[str, Any]:
    taken_over = yaml.MappingNode(node.tag, [pair for pair in node.value if pair[0].tag == MERGE])
    loader.flatten_mapping(taken_over)
    return dict(_pairs(loader, taken_over.value)) | _once(loader, node)


def _pairs(loader: Loader, nodes: Any) -> Iterator[tuple[Any, Any]]:
    for key_node, value_node in nodes:
        yield loader.construct_object(key_node, deep=True), loader.construct_object(value_node, deep=True)


def _once(loader: Loader, node: yaml.MappingNode) -> dict[str, Any]:
    """The own keys of a mapping, none of them twice."""
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        where = f"line {key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise UsageError(f"{where}: the key {key!r} is no text; write it in quotes")
        if key in found:
            raise UsageError(f"{where}: the key {key!r} is given twice; leave one out")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _load(text: str) -> Any:
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _entries(node, {}) > LIMIT_ENTRIES:
            raise ValueError(f"written out, its aliases (*name) make more than {LIMIT_ENTRIES} entries")
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _entries(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many entries a node has when every alias is written out; ``known`` are those counted."""
    if node not in known:
        known[node] = LIMIT_ENTRIES + 1  # of a node within itself
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = (n for x in inner for n in (x if isinstance(x, tuple) else (x,)))
        known[node] = 1 + sum(_entries(n, known) for n in pairs)
    return known[node]


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; UsageError with the line where it is none."""
    try:
        found = _load(text)
    except UsageError as error:
        raise UsageError(f"{origin}, {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{origin} is no YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{origin}: expected keys and values, such as `model: net:make`")
    return found


def read_recipe(path: str | Path, given: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a YAML file; ``given`` values, such as flags, count before those of the file.

    Paths in the file are relative to it, and modules beside it can be imported. Raises InputError where
    the file cannot be read, UsageError that lists every mistake.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise InputError(f"{str(path)!r} is no recipe: it is larger than {LIMIT_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise InputError(f"the recipe {str(path)!r} cannot be read: {why}") from error
    content = parse_yaml(text, str(path))
    importable(path.parent)
    written = recipe_from(content, str(path), UNFINISHED).model_dump(exclude_unset=True)
    return recipe_from(over(moved(written, read_from(path.parent)), given or {}), str(path))


def over(written: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` put over what is written; of parts such as match, key by key."""
    parts = {n: written[n] | v for n, v in given.items() if isinstance(v, dict) and n in written}
    return {**written, **given, **parts}


def recipe_from(content: Mapping[str, Any], origin: str, context: str | None = None) -> Recipe:
    """The recipe that plain data describe; UsageError that lists every mistake in it."""
    try:
        return Recipe.model_validate(dict(content), context=context)
    except ValidationError as error:
        raise UsageError(described(error, content, origin, Recipe)) from error
