"""Operators that contract an axis: linear maps, matrix products, einsum, embeddings, attention."""

from __future__ import annotations

from graphmerge.axes.registry import RULES, Call
from graphmerge.axes.units import Value

RULES.texts(
    {
        "aten._cdist_forward": "... n k, ... m k -> ... n m",
        "aten._euclidean_dist": "... n k, ... m k -> ... n m",
        "aten.bmm": "b n k, b k m -> b n m",
        "aten.dot": "k, k ->",
        "aten.linear": "... i, o i, o? -> ... o",
        "aten.mm": "n k, k m -> n m",
        "aten.mv": "n k, k -> n",
        "aten.outer": "n, m -> n m",
        "aten.vdot": "k, k ->",
        "aten.bilinear": "... i, ... j, o i j, o? -> ... o",
    }
)


@RULES.rule("aten.addmm", "aten.addbmm", "aten.baddbmm", "aten.addmv")
def add_product(call: Call) -> list[Value]:
    """addmm(self, mat1, mat2): self is broadcast to the product [b, n, m]"""
    if call.op == "aten.addmv":
        return call.relate("n, n k, k -> n" if call["self"].rank else ", n k, k -> n", *call.tensors())
    into = "n m" if call.op != "aten.baddbmm" else "b n m"
    addend, a, b = call.tensors()
    batch = "b " if a.rank == 3 else ""
    own = " ".join(into.split()[len(into.split()) - addend.rank :])
    return call.relate(f"{own}, {batch}n k, {batch}k m -> {into}", addend, a, b)


@RULES.rule("aten.matmul")
def matmul(call: Call) -> list[Value]:
    """matmul(Tensor self, Tensor other) -> Tensor"""
    a, b = call["self"], call["other"]
    left = "k" if a.rank == 1 else "... n k"
    right = "k" if b.rank == 1 else "... k m"
    out = "..." + (" n" if a.rank > 1 else "") + (" m" if b.rank > 1 else "")
    if a.rank == 1 and b.rank == 1:
        out = ""
    return call.relate(f"{left}, {right} -> {out}", a, b)


@RULES.rule("aten.einsum")
def einsum(call: Call) -> list[Value]:
    """einsum(str equation, Tensor[] tensors) -> Tensor: the equation is the rule."""
    equation = call["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        right = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    spell = [" ".join(term.replace("...", "\N{HORIZONTAL ELLIPSIS}")) for term in (*left.split(","), right)]
    spell = [term.replace("\N{HORIZONTAL ELLIPSIS}", "...") for term in spell]
    return call.relate(", ".join(spell[:-1]) + " -> " + spell[-1], *call["tensors"])


@RULES.rule("aten.scaled_dot_product_attention")
def attention(call: Call) -> list[Value]:
    """scaled_dot_product_attention(query, key, value, attn_mask?, p, is_causal, *, scale?, enable_gqa)"""
    fixed = " | s t" if call["is_causal"] else ""
    q, k, v, mask = call["query"], call["key"], call["value"], call["attn_mask"]
    if call["enable_gqa"]:
        rank = mask.rank if mask is not None else 0
        heads = "(h r) " if rank > 2 and mask.shape[-3] > 1 else "1 " if rank > 2 else ""
        own = ("... " if rank > 3 else "") + heads + "s t?"
        text = f"... (h r) s d, ... h t d, ... h t v, {own} -> ... (h r) s v"
        return call.relate(text + fixed, q, k, v, mask, h=k.shape[-3])
    return call.relate(f"... s d, ... t d, ... t v, ... s t? -> ... s v{fixed}", q, k, v, mask)


@RULES.rule("aten.embedding_bag", "aten._embedding_bag")
def embedding_bag(call: Call) -> list[Value]:
    """embedding_bag(weight, indices, offsets, ...) -> (Tensor, Tensor, Tensor, Tensor)"""
    others = [v for v in call.tensors() if v is not call["weight"]]
    for v in others:
        for axis in range(v.rank):
            call.fix(v, axis, "positions in a bag")
    lead = Call(call.op, call.args, call.outputs[:1], call.u)
    pooled = lead.relate("v d -> b d | v b", call["weight"])
    rest = Call(call.op, {}, call.outputs[1:], call.u)
    return [*pooled, *rest.fix_all("positions in a bag")]
