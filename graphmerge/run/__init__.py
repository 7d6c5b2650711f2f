"""Run a recipe: read what it names, merge, and write the output folder."""

from graphmerge.run.run import Outcome, run_recipe

__all__ = ["Outcome", "run_recipe"]
