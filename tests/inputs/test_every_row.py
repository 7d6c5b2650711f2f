"""Every row of the table of bad inputs has a test whose name tells its number."""

from __future__ import annotations

import re
from pathlib import Path

ROWS = 54


def test_every_row_has_a_test() -> None:
    here = Path(__file__).parent
    found = {
        int(n) for f in here.glob("test_*.py") for n in re.findall(r"def test_row_(\d+)_", f.read_text())
    }
    assert found == set(range(1, ROWS + 1))
