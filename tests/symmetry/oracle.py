"""A search for symmetries that knows no operator's rule: it only runs the network.

An *exchange* swaps units of one parameter dimension, single positions or blocks of them. The search
starts from one exchange and runs the traced graph in float64 under the changed weights. As long as
every value is a rearrangement of what it was, the change is being carried along; the first value
that is not must be mended by exchanging a parameter above it. It looks for such an exchange
(candidates in one batch by torch.func.vmap), takes it, and goes on, with limited breadth, until the
outputs are what they were. What is found is confirmed on the module itself with other weights and
inputs. A symmetry found that the engine's groups do not contain is one that the engine missed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from exchanges import Exchange, Move, blocks_of_rows, orders
from network import Network, close, close_rows, leaves, rearranged, rearranged_rows, same
from torch import fx

PLACES_UP = 6
"""How many parameters above a value that breaks are tried."""

Place = tuple[str, int]


@dataclass
class Search:
    """Depth first from one exchange; ``budget`` counts how often a value that broke is looked at."""

    net: Network
    first: int
    second: int
    budget: int = 30
    applied: list[Exchange] = field(default_factory=list)

    def complete(self, start: Move) -> list[Exchange] | None:
        """Exchanges that together with the start change no output, or None."""
        changed: dict[fx.Node, Any] = {}
        return self._apply(start, changed, -1)

    def _apply(self, move: Move, changed: dict[fx.Node, Any], reached: int) -> list[Exchange] | None:
        """Take a move, then mend what it breaks; None where that fails, or gets no further."""
        self.applied += move
        after, broken = self._follow(move, changed)
        found = None
        if broken is None:
            found = list(self.applied)
        elif broken > reached and self.budget > 0:
            self.budget -= 1
            for further in self._mending(broken, after):
                found = self._apply(further, after, broken)
                if found or self.budget <= 0:
                    break
        if found is None:
            del self.applied[len(self.applied) - len(move) :]
        return found

    def _follow(self, move: Move, changed: Mapping[fx.Node, Any]) -> tuple[dict[fx.Node, Any], int | None]:
        """Run the graph with the move added, up to the first value that is no rearrangement of its own."""
        net, after = self.net, dict(changed)
        for exchange in move:
            node = net.parameters[exchange.name]
            after[node] = exchange.of(after.get(node, net.values[node]))
        for k in range(min(net.first_reader[e.name] for e in move), len(net.nodes)):
            node = net.nodes[k]
            if node.op == "placeholder":
                continue
            if not any(n in after for n in node.all_input_nodes):
                after.pop(node, None)
                continue
            value = net.run(node, after)
            if same(value, net.values[node]):
                after.pop(node, None)
            elif node.op == "output" or not rearranged(value, net.values[node]):
                return after, k
            else:
                after[node] = value
        return after, None

    def _mending(self, broken: int, changed: Mapping[fx.Node, Any]) -> list[Move]:
        """Moves after which the value that broke is a rearrangement again, those that restore it first."""
        for depth in (1, 2):
            good = []
            for names in self._batches(broken, depth):
                good += self._survivors(broken, changed, names)
            if good:
                return [m for _, m in sorted(good, key=lambda x: x[0])]
        return []

    def _batches(self, broken: int, depth: int) -> Iterator[list[Move]]:
        """Candidate moves, grouped by the parameters that they move; pairs of exchanges at depth 2."""
        names = self._above(broken)
        back = set(self.applied)  # to take an exchange back is no way to mend what it broke
        single = {n: [m for m in self._moves(n, broken) if not back & set(m)] for n in names}
        if depth == 1:
            for moves in single.values():
                yield from _by_parameters(moves)
        else:
            for i, a in enumerate(names[:3]):
                for b in names[i:3]:
                    both = [x + y for x in single[a][:16] for y in single[b][:16] if x != y]
                    yield from _by_parameters(both)

    def _above(self, broken: int) -> list[str]:
        """The nearest parameters above a node."""
        owner = {n: name for name, n in self.net.parameters.items()}
        seen, todo = set(), [self.net.nodes[broken]]
        found: list[str] = []
        while todo and len(found) < PLACES_UP:
            node = todo.pop(0)
            if node in seen:
                continue
            seen.add(node)
            if node in owner:
                found.append(owner[node])
            todo += node.all_input_nodes
        return found

    def _moves(self, name: str, broken: int) -> list[Move]:
        """Exchanges in one parameter, alone and together with those beside it that are as large."""
        found: list[Move] = []
        shape = self.net.state[name].shape
        for dim, size in enumerate(shape):
            beside = self._beside(name, size, broken)
            for order in orders(size, self.first, self.second) if size > 1 else ():
                own = Exchange(name, dim, order)
                found.append((own,))
                found += [(replace(own, rows=rows),) for rows in blocks_of_rows(shape, dim)]
                vectors = [p for p in beside if len(self.net.state[p[0]].shape) == 1]
                for places in dict.fromkeys((tuple(vectors), tuple(beside))):
                    if places:
                        found.append((own, *(Exchange(n, d, order) for n, d in places)))
        return found

    def _beside(self, name: str, size: int, broken: int) -> list[Place]:
        """Dimensions of this size of other parameters that go into the same operators."""
        readers = {r for r in self.net.parameters[name].users if self.net.place[r] <= broken}
        others = {n for n, node in self.net.parameters.items() if n != name and readers & set(node.users)}
        return [(n, d) for n in sorted(others) for d, m in enumerate(self.net.state[n].shape) if m == size]

    def _survivors(
        self, broken: int, changed: Mapping[fx.Node, Any], moves: Sequence[Move]
    ) -> list[tuple[int, Move]]:
        """Moves that mend node ``broken``, with 0 where it is restored and 1 where it is rearranged."""
        net, node = self.net, self.net.nodes[broken]
        restored = rearranged = torch.ones(len(moves), dtype=torch.bool)
        for before, after in zip(
            leaves(net.values[node]), self._results(broken, changed, moves), strict=True
        ):
            old, new = before.ravel(), after.flatten(1) if before.ndim else after[:, None]
            restored = restored & close_rows(new, old)
            rearranged = rearranged & rearranged_rows(new, old)
        if node.op == "output":
            rearranged = restored
        return [(int(not restored[k]), moves[k]) for k in rearranged.nonzero().ravel().tolist()]

    def _results(
        self, broken: int, changed: Mapping[fx.Node, Any], moves: Sequence[Move]
    ) -> list[torch.Tensor]:
        """The tensors [move, ...] that node ``broken`` returns; all moves exchange the same parameters."""
        names = list(dict.fromkeys(e.name for e in moves[0]))
        batched = []
        for name in names:
            node = self.net.parameters[name]
            t = changed.get(node, self.net.values[node])
            shape = tuple(t.shape)
            sources = [[e.source(shape) for e in move if e.name == name] for move in moves]
            every = torch.stack([functools.reduce(lambda a, b: a.take(b), s) for s in sources])
            batched.append(t.take(every))
        function = self._upto(broken, changed, names)
        first = function(*(b[0] for b in batched))
        with contextlib.suppress(RuntimeError, NotImplementedError):  # no batching rule: one by one
            found = list(torch.func.vmap(function)(*batched))
            if all(close(x[0], y) for x, y in zip(found, first, strict=True)):
                return found
        single = [function(*(b[k] for b in batched)) for k in range(len(moves))]
        return [torch.stack(x) for x in zip(*single, strict=True)]

    def _upto(
        self, broken: int, changed: Mapping[fx.Node, Any], names: Sequence[str]
    ) -> Callable[..., tuple[torch.Tensor, ...]]:
        """The tensors that node ``broken`` returns, as a function of some parameters."""
        net = self.net
        start = min(net.first_reader[n] for n in names)

        def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            after = {**changed, **{net.parameters[n]: v for n, v in zip(names, values, strict=True)}}
            fresh = {net.parameters[n] for n in names}
            for node in net.nodes[start : broken + 1]:
                if node.op != "placeholder" and (
                    fresh & set(node.all_input_nodes) or node is net.nodes[broken]
                ):
                    after[node] = net.run(node, after)
                    fresh.add(node)
            return tuple(leaves(after[net.nodes[broken]]))

        return run


def _by_parameters(moves: Sequence[Move]) -> list[list[Move]]:
    groups: dict[tuple[str, ...], list[Move]] = {}
    for move in moves:
        groups.setdefault(tuple(dict.fromkeys(e.name for e in move)), []).append(move)
    return list(groups.values())
