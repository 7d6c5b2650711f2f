"""The checks of a zoo as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jinja2 import Environment, StrictUndefined

from graphmerge.zoo.judge import Check, passed

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: {{ counts }}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --dim: #888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .3rem; }
p { margin: .2rem 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
ul { margin: .2rem 0 0; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; white-space: pre-wrap; }
.PASS { color: var(--good); } .FAIL { color: var(--bad); font-weight: 600; } .SKIP { color: var(--dim); }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="{{ 'PASS' if good else 'FAIL' }}">{{ counts }}</p>
{% for entry, checks in entries %}
<h2 id="{{ entry }}">{{ entry }}</h2>
<table>
<thead><tr><th>check</th><th>measured</th><th></th><th>seconds</th></tr></thead>
<tbody>
{% for c in checks %}
<tr><td>{{ c.name }}</td><td>{{ c.text }}
{%- if c.details %}<ul>{% for line in c.details %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}</td>
<td class="{{ c.outcome }}">{{ c.outcome }}</td><td class="number">{{ '%.2f' % c.seconds }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endfor %}
</body>
</html>
"""


def page(title: str, checks: Sequence[Check], counts: str) -> str:
    """The page; whatever names the zoo holds, they come out as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    entries = [(entry, list(group)) for entry, group in groupby(checks, lambda c: c.entry)]
    return environment.from_string(PAGE).render(
        title=title, counts=counts, good=passed(checks), entries=entries
    )
