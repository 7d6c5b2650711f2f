"""A picture of the constraint graph, written as SVG or HTML."""

from graphmerge.cli.picture.svg import draw

__all__ = ["draw"]
