"""Sums of products over named axes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.operators.facts import LARGEST, Facts, NothingKnown, expanded
from onnxprune.operators.forward import Forward
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, line
from onnxprune.operators.lazy_torch import torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Arrays, Attributes, Shape, Taken, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import Ids, mix
from onnxprune.operators.zeros import made


@dataclass(frozen=True)
class SumOfProducts:
    """An operator that sums up products over named axes, as a line in the notation of einsum.

    equation: `(ranks of the inputs, attributes)` → the line; inputs that it does not name are added behind.
    """

    equation: Callable[[Sequence[int], Attributes], bytes | str]

    def terms(self, values: Sequence[Sequence[Any] | None], attributes: Attributes) -> tuple[list[str], str]:
        """The letters of each operand and of the result, from what has an item for each axis of an input.

        Where that is None, its letters are those that the line spells out.  Raises ValueError where there is no line.
        """
        ranks = [0 if x is None else len(x) for x in values]
        return einsum_terms(self.equation(ranks, attributes), ranks)

    def bound(self, site: Site) -> Facts:
        """Zero where all products are, and alike where these are, in the same order."""
        return summed(site, *self.terms(site.taken, site.attributes))

    def contracts(self, taken: Taken, k: int, rank: int) -> list[int]:
        """Axes whose letters the result lacks."""
        shapes = [range(rank) if j == k else shape for j, shape in enumerate(taken.shapes)]
        terms, result = self.terms(shapes, taken.attributes)
        return [j for j, letter in enumerate(terms[k]) if letter not in result] if k < len(terms) else []

    def shape(self, x: Arrays, a: Attributes) -> list[Shape | None]:
        terms, result = self.terms(x, a)
        sizes: dict[str, set[int]] = {}
        for letter, size in zip("".join(terms), (n for shape in x for n in shape), strict=False):
            sizes.setdefault(letter, set()).add(size)
        return [tuple(0 if 0 in sizes[letter] else max(sizes[letter]) for letter in result)]


def summed(site: Site, terms: list[str], result: str) -> Facts:
    """Facts of sums of products."""
    if any(len(set(term)) < len(term) for term in terms):
        raise NothingKnown
    pairs = [site.fact(k) for k in range(len(terms))]
    if any(len(t) != len(shape) or f.low.size > LARGEST for t, (f, shape) in zip(terms, pairs, strict=True)):
        raise NothingKnown
    sizes = {
        letter: max(f.shape[t.index(letter)] for t, (f, _) in zip(terms, pairs, strict=True) if letter in t)
        for letter in sorted(set("".join(terms)))
    }
    parts = [
        expanded(f, shape, [k for k, letter in enumerate(t) if sizes[letter] > 1])
        for t, (f, shape) in zip(terms, pairs, strict=True)
    ]
    nonzero = [(~f.zero).astype(np.float32) for f in parts]
    full = [np.broadcast_to(a, [sizes[letter] for letter in t]) for t, a in zip(terms, nonzero, strict=True)]
    vanishing = np.einsum(f"{','.join(terms)}->{result}", *full, optimize=True) == 0
    return zero_where(site, vanishing, names=_names(site, terms, result, parts, sizes))


def _names(site: Site, terms: list[str], result: str, parts: list[Facts], sizes: dict[str, int]) -> Ids | None:
    """A name for each sum of products by those of its factors; None where there are too many of them."""
    letters = result + "".join(sorted(set(sizes) - set(result)))
    if math.prod(sizes.values()) > LARGEST:
        return None
    names = mix(site.kind)
    for term, part in zip(terms, parts, strict=True):
        order = sorted(range(len(term)), key=lambda k: letters.index(term[k]))
        shape = [part.shape[term.index(c)] if c in term else 1 for c in letters]
        own = mix(*part.exact).transpose(order).reshape(shape)
        names = mix(names, own)
    for k in range(len(result), len(letters)):
        place = np.arange(names.shape[k], dtype=np.uint64).reshape(line(names.ndim, k))
        names = np.bitwise_xor.reduce(mix(names, place), axis=k, keepdims=True)
    whole = np.broadcast_to(names, [sizes[c] for c in result] + [1] * (len(letters) - len(result)))
    return whole.reshape([sizes[c] for c in result])


def einsum_terms(equation: bytes | str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with capitals for axes that an ellipsis stands for.

    Raises ValueError where the equation is none.
    """
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    inputs, arrow, result = text.partition("->")
    terms = inputs.split(",")
    ranks = ranks[: len(terms)]
    hidden = [rank - len(t.replace("...", "")) if "..." in t else 0 for t, rank in zip(terms, ranks, strict=True)]
    free = [c for c in reversed("ABCDEFGHIJKLMNOPQRSTUVWXYZ") if c not in text]
    stands = "".join(free[: max(0, *hidden)])
    terms = [t.replace("...", stands[len(stands) - n :]) for t, n in zip(terms, hidden, strict=True)]
    if not arrow:
        letters = "".join(t for t in inputs.replace("...", "") if t != ",")
        result = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, result.replace("...", stands)


def einsum(op: Op, *xs: Axes, **_: Any) -> Axes:
    terms, result = EINSUM.terms(xs, op.attributes)
    where: dict[str, list[tuple[int, Labels]]] = {}
    for k, (letters, x) in enumerate(zip(terms, xs, strict=True)):
        for letter, labels in zip(letters, x, strict=True):
            where.setdefault(letter, []).append((k, labels))
    for letter, places in where.items():
        wide = [(k, labels) for k, labels in places if labels.size > 1] or places[:1]
        where[letter] = places = [(wide[0][0], op.coupling.join([labels for _, labels in wide])), *wide[1:]]
        kept = letter in result
        if not kept:
            op.contract(places[0][1], places[0][1], any(op.weights[k] or op.zero_inputs[k] for k, _ in places))
        for k, labels in wide:
            if op.weights[k]:
                (op.writes if kept and len(places) == 1 else op.reads)(labels)
    if len(xs) > 1:  # of a single operand it moves elements, or adds them up
        op.macs(1, *(places[0][1] for places in where.values()))
    return tuple(where[letter][0][1] for letter in result)


EINSUM = SumOfProducts(lambda _, a: a["equation"])
define(
    "Einsum", couple=einsum, zero=made(), bound=EINSUM.bound, contracts=EINSUM.contracts, factors=range(64),
    traits=Trait.LAYER, forward=Forward(lambda node, *x: torch.einsum(node.get("equation").replace(" ", ""), *x)),
)  # fmt: skip
