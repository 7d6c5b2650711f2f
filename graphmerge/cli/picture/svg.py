"""The picture as SVG text: boxes, chips coloured by group, wires, a legend; light and dark."""

from __future__ import annotations

import colorsys
from html import escape

from graphmerge.cli.picture.boxes import Box, Picture, Wire, picture
from graphmerge.cli.picture.layers import Layout, layered
from graphmerge.symmetry import ModelGraph, SymmetryGroup
from graphmerge.symmetry.groups import Place

PALETTE = 24
"""Colours, dealt out in turn; more could not be told apart."""

ROW, TOP, CHIP, HEIGHT = 82.0, 18.0, 17.0, 44.0
LETTER, SMALL = 7.6, 6.2
"""Widths of a letter in pixels, at 12 and at 10 pixels of type."""

ASIDE = 4
"""Pixels between the wires of a tensor's dimensions on a long way."""

STYLE = """
svg { background: #fff; font: 10px ui-sans-serif, system-ui, sans-serif; }
.box { fill: #f6f7f9; stroke: #b9c0ca; } .parameter { fill: #fff; stroke: #6b7683; }
.name { font-weight: 600; font-size: 12px; fill: #1c2128; } .of, .row { fill: #59636e; }
.size { text-anchor: middle; fill: #1c2128; } .still { fill: #d9dde2; stroke: none; }
.wire { fill: none; stroke-width: 2; opacity: .8; } .wire.plain { stroke: #d3d8de; stroke-width: 1; }
.dim { opacity: .08; }
@media (prefers-color-scheme: dark) {
  svg { background: #14181d; } .box { fill: #1f252c; stroke: #454e59; }
  .parameter { fill: #14181d; stroke: #7d8894; } .name, .size { fill: #eef1f4; }
  .of, .row { fill: #9aa5b1; } .still { fill: #3a424c; } .wire.plain { stroke: #333b44; }
}
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0; }} [data-g] {{ cursor: pointer; }}</style>
</head>
<body>
{svg}
<script>
const parts = [...document.querySelectorAll("[data-g]")];
let held = null;
const has = (p, g) => p.dataset.g.split(" ").includes(g);
const show = g => parts.forEach(p => p.classList.toggle("dim", g !== null && !has(p, g)));
parts.forEach(p => {{
  const g = p.dataset.g.split(" ")[0];
  if (!g) return;
  p.addEventListener("mouseenter", () => held ?? show(g));
  p.addEventListener("mouseleave", () => held ?? show(null));
  p.addEventListener("click", () => {{ held = held === g ? null : g; show(held); }});
}});
</script>
</body></html>
"""


def draw(graph: ModelGraph, html: bool = False) -> str:
    """The constraint graph as the text of an SVG, or of a page that lights up a group under the mouse.

    Time runs down. A box with a white ground holds the parameters of one module, any other an operator;
    chips are dimensions with their sizes, coloured by group (striped by several, grey where nothing
    moves); a coloured wire ties two dimensions that move together.
    """
    svg = _Drawing(graph).text()
    return PAGE.format(title=escape(_title(graph)), svg=svg) if html else svg


def _title(graph: ModelGraph) -> str:
    return f"{type(graph.model).__name__}: {len(graph.groups)} groups"


class _Drawing:
    """Places everything once, then writes it."""

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.picture: Picture = picture(graph)
        self.color = {graph.atom_of[g.name]: k for k, g in enumerate(graph.groups)}
        self.fixed = {(f.parameter, f.dim): f.reason for f in graph.fixed}
        names = [SMALL * len(_legend(g)) for g in graph.groups]
        self.legend = 40 + max(LETTER * len(_title(graph)), *names, 0)
        boxes = self.picture.boxes
        self.widths = {key: self._width(box) for key, box in boxes.items()}
        weights = {key: box.weight for key, box in boxes.items()}
        self.layout: Layout = layered(self.widths, self.picture.edges, weights)
        bends = [x for way in self.layout.bends.values() for x in way.values()]
        left = min([self.layout.x[k] - self.widths[k] / 2 for k in boxes] + bends, default=0.0)
        self.shift = self.legend + 30 - left
        aside = ASIDE * max(map(len, self.picture.shapes.values()), default=0)
        right = [self.layout.x[k] + self.widths[k] / 2 for k in boxes] + [x + aside for x in bends]
        self.right = max(right, default=0.0) + self.shift
        self.first = min(self.layout.layer.values(), default=0)
        self.chips: dict[Place, float] = {}
        self.ways: set[tuple[Place, str, frozenset[int]]] = set()
        for key, box in boxes.items():
            self._place_chips(key, box)

    def text(self) -> str:
        """The whole drawing."""
        bottom = max(self.layout.layer.values(), default=0) - self.first + 1
        height = max(bottom * ROW + 30, 60 + 16 * len(self.graph.groups))
        width = self.right + 30
        wires = sorted(self.picture.wires, key=lambda w: bool(self._colors(w.atoms)))
        body = [
            *(self._wire(w) for w in wires),
            *(self._box(key, box) for key, box in self.picture.boxes.items()),
            *self._legend_lines(),
        ]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}"><title>{escape(_title(self.graph))}</title>'
            f"<style>{STYLE}{_colors_css()}</style>\n" + "\n".join(body) + "\n</svg>"
        )

    def _sizes(self, tensor: str) -> list[str]:
        return [str(n) for n in self.picture.shapes[tensor]]

    def _row_width(self, tensor: str, label: str) -> float:
        chips = sum(SMALL * len(n) + 12 for n in self._sizes(tensor))
        return chips + (SMALL * len(label) + 6 if label else 0) + 10

    def _width(self, box: Box) -> float:
        title = LETTER * len(box.title) + SMALL * len(box.place) + 24
        return max(title, 10 + sum(self._row_width(t, label) for t, label in box.rows.items()))

    def _left(self, key: str) -> float:
        return self.layout.x[key] - self.widths[key] / 2 + self.shift

    def _y(self, layer: int) -> float:
        return 20 + (layer - self.first) * ROW

    def _place_chips(self, key: str, box: Box) -> None:
        x = self._left(key) + 8
        for tensor, label in box.rows.items():
            x += SMALL * len(label) + 6 if label else 0
            for dim, size in enumerate(self._sizes(tensor)):
                self.chips[tensor, dim] = x + (SMALL * len(size) + 8) / 2
                x += SMALL * len(size) + 12
            x += 10

    def _colors(self, atoms: frozenset[int]) -> list[int]:
        return sorted(self.color[k] for k in atoms if k in self.color)

    def _box(self, key: str, box: Box) -> str:
        x, y = self._left(key), self._y(self.layout.layer[key])
        kind = "box parameter" if any(box.rows.values()) else "box"
        lines = [
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{self.widths[key]:.1f}"'
            f' height="{HEIGHT:.0f}" rx="5"/>',
            f'<text class="name" x="{x + 8:.1f}" y="{y + 15:.1f}">{escape(box.title)}'
            f'<tspan class="of" dx="8" font-size="10" font-weight="400">{escape(box.place)}</tspan></text>',
        ]
        for tensor, label in box.rows.items():
            if label:
                start = self.chips.get((tensor, 0), x + 8 + SMALL * len(label) + 12)
                first = SMALL * len(self._sizes(tensor)[0]) / 2 + 8 if self._sizes(tensor) else 0
                lines.append(
                    f'<text class="row" x="{start - first:.1f}" y="{y + 34:.1f}" text-anchor="end">'
                    f"{escape(label)}</text>"
                )
            lines += [self._chip((tensor, d), n, y + 22) for d, n in enumerate(self._sizes(tensor))]
        return "\n".join(lines)

    def _chip(self, place: Place, size: str, y: float) -> str:
        colors = self._colors(self.graph.moved_by.get(place, frozenset()))
        width = SMALL * len(size) + 8
        x = self.chips[place] - width / 2
        stripe = width / max(1, len(colors))
        rects = [
            f'<rect class="c{c % PALETTE}" x="{x + k * stripe:.1f}" y="{y:.1f}" width="{stripe:.1f}"'
            f' height="{CHIP:.0f}"/>'
            for k, c in enumerate(colors)
        ] or [f'<rect class="still" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{CHIP:.0f}" rx="3"/>']
        groups = ", ".join(self.graph.groups[c].name for c in colors)
        moves = f"group {groups}" if groups else f"fixed: {self.fixed.get(place, 'nothing moves it')}"
        title = f"{place[0]} dimension {place[1]}, {size} positions\n{moves}"
        return (
            f'<g data-g="{" ".join(map(str, colors))}"><title>{escape(title)}</title>{"".join(rects)}'
            f'<text class="size" x="{self.chips[place]:.1f}" y="{y + 12:.1f}">{size}</text></g>'
        )

    def _wire(self, wire: Wire) -> str:
        colors = self._colors(wire.atoms)
        kind = f"wire s{colors[-1] % PALETTE}" if colors else "wire plain"
        return (
            f'<path class="{kind}" data-g="{" ".join(map(str, colors))}" d="{self._course(wire)}">'
            f"<title>{escape(wire.title)}</title></path>"
        )

    def _course(self, wire: Wire) -> str:
        """From dimension to dimension, or, between two operands, down to a meeting above their reader."""
        owner, at = self.picture.owner, self.picture.owner[wire.at]
        a, b = wire.a, wire.b
        if owner[a[0]] == at:
            a, b = b, a
        if owner[b[0]] == at:
            start = self._once(a, at, wire.atoms)
            return _curves([*start, (self.chips[b], self._y(self.layout.layer[at]) + TOP + 4)])
        first, second = self._once(a, at, wire.atoms), self._once(b, at, wire.atoms)
        (xa, ya), (xb, yb) = first[-1], second[-1]
        low = max(ya, yb) + 20
        meet = f"M{xa:.1f} {ya:.1f} C{xa:.1f} {low:.1f} {xb:.1f} {low:.1f} {xb:.1f} {yb:.1f}"
        return " ".join([*(_curves(p) for p in (first, second) if len(p) > 1), meet])

    def _once(self, place: Place, at: str, atoms: frozenset[int]) -> list[tuple[float, float]]:
        """The way down to a box; only its end where another wire of these groups came that way."""
        points = self._down(place, at)
        seen = (place, at, atoms) in self.ways
        self.ways.add((place, at, atoms))
        return points[-1:] if seen else points

    def _down(self, place: Place, at: str) -> list[tuple[float, float]]:
        """Points from under a dimension's chip to right above the layer of the box ``at``."""
        key = self.picture.owner[place[0]]
        points = [(self.chips[place], self._y(self.layout.layer[key]) + TOP + 4 + CHIP)]
        for layer, x in sorted(self.layout.bends.get((key, at), {}).items()):
            aside = x + self.shift + ASIDE * place[1]
            points += [(aside, self._y(layer)), (aside, self._y(layer) + TOP + 4 + CHIP)]
        return points

    def _legend_lines(self) -> list[str]:
        lines = [f'<text class="name" x="14" y="24">{escape(_title(self.graph))}</text>']
        for k, g in enumerate(self.graph.groups):
            y = 36 + 16 * k
            lines.append(
                f'<g data-g="{k}"><title>{escape(f"{g.name}: {len(g.members)} members")}</title>'
                f'<rect class="c{k % PALETTE}" x="14" y="{y}" width="12" height="12" rx="2"/>'
                f'<text class="row" x="32" y="{y + 10}">{escape(_legend(g))}</text></g>'
            )
        y = 36 + 16 * len(self.graph.groups)
        lines.append(f'<rect class="still" x="14" y="{y}" width="12" height="12" rx="2"/>')
        lines.append(f'<text class="row" x="32" y="{y + 10}">fixed</text>')
        return lines


def _legend(group: SymmetryGroup) -> str:
    copies = f"{group.copies} x " if group.copies > 1 else ""
    return f"{group.name}: {copies}{group.size}"


def _curves(points: list[tuple[float, float]]) -> str:
    """A smooth line through the points, upright at each."""
    (x, y), *rest = points
    parts = [f"M{x:.1f} {y:.1f}"]
    for u, v in rest:
        half = (v - y) / 2
        parts.append(f"C{x:.1f} {y + half:.1f} {u:.1f} {v - half:.1f} {u:.1f} {v:.1f}")
        x, y = u, v
    return " ".join(parts)


def _colors_css() -> str:
    """Fills and strokes of the palette: neighbours in the list are far apart in hue (golden angle)."""
    light = [_rules(k, (72, 76), (62, 48)) for k in range(PALETTE)]
    dark = [_rules(k, (45, 36), (60, 58)) for k in range(PALETTE)]
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}\n"])


def _rules(k: int, fill: tuple[int, int], stroke: tuple[int, int]) -> str:
    """Colour ``k`` as (saturation, lightness) of a chip and of a wire."""
    hue = 137.5 * k % 360
    return f".c{k} {{ fill: {_hex(hue, *fill)}; }} .s{k} {{ stroke: {_hex(hue, *stroke)}; }}"


def _hex(hue: float, saturation: float, lightness: float) -> str:
    """HSL (degrees, percent, percent) as #rrggbb, which every reader of SVG knows."""
    rgb = colorsys.hls_to_rgb(hue / 360, lightness / 100, saturation / 100)
    return "#" + "".join(f"{round(255 * v):02x}" for v in rgb)
