"""The command line."""

from graphmerge.cli.app import main

__all__ = ["main"]
