"""``python -m graphmerge``."""

from graphmerge.cli import main

main()
