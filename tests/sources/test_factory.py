"""``module:name(key=literal)``: what is read, and what is refused rather than half read."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphmerge.errors import UsageError
from graphmerge.sources import import_object


def test_arguments_are_literals() -> None:
    target, arguments = import_object("collections:OrderedDict.fromkeys(iterable='ab', value=(1, None))")
    assert target(**arguments) == {"a": (1, None), "b": (1, None)}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("os:getcwd(a=1)(b=2)", "one pair of brackets"),
        ("os:getcwd(a={[]: 1})", "unhashable"),
        ("os:getcwd(1)", "only key=literal"),
        ("os:getcwd(a=open)", "cannot be read"),
        ("os:no_such", "AttributeError"),
        ("..:x", "cannot import"),
        ("torn:make", "SyntaxError"),
        ("raising:make", "NameError: name 'nn'"),
    ],
)
def test_anything_else_is_refused(
    spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torn.py").write_text("def make(:\n")
    (tmp_path / "raising.py").write_text("class Net(nn.Module): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError) as refused:
        import_object(spec)
    assert said in str(refused.value)
