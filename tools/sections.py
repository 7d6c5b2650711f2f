"""Results that several tools write into one Markdown file, a section each."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(path: Path, title: str, text: str) -> None:
    """Replace the section under a heading of the first level, or add it at the end; all others stay."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    sections = [s for s in re.split(r"^(?=# )", old, flags=re.MULTILINE) if s.strip()]
    new = f"# {title}\n\n{text.strip()}\n\n"
    same = [k for k, s in enumerate(sections) if s.partition("\n")[0] == f"# {title}"]
    if same:
        sections[same[0]] = new
    else:
        sections.append(new)
    path.write_text("\n\n".join(s.strip() for s in sections) + "\n", encoding="utf-8")
