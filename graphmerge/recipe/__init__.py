"""The one description of a merge: what a YAML file says and what flags on the command line make."""

from graphmerge.recipe.echo import echo, lock_text, portable
from graphmerge.recipe.parts import Match, Merge, Repair, Rule
from graphmerge.recipe.read import read_recipe, recipe_from
from graphmerge.recipe.schema import File, How, Recipe, Stage

__all__ = [
    "File",
    "How",
    "Match",
    "Merge",
    "Recipe",
    "Repair",
    "Rule",
    "Stage",
    "echo",
    "lock_text",
    "portable",
    "read_recipe",
    "recipe_from",
]
