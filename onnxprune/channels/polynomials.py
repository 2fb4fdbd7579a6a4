"""Sizes as polynomials of those that the model leaves open, by which `8 · N / N` is 8 whatever N is.

Numpy calculates with them in arrays of objects, as it does with numbers; what is no polynomial is an `Inexact`.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

Monomial = tuple[Hashable, ...]  # open sizes that are multiplied, in a fixed order


class Inexact(ValueError):
    """A quotient or a function of open sizes that is no polynomial."""


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of open sizes with whole coefficients, none of which is zero."""

    terms: Mapping[Monomial, int]

    @classmethod
    def of(cls, number: int) -> "Polynomial":
        """A number."""
        return cls({(): int(number)} if number else {})

    @classmethod
    def open(cls, size: Hashable) -> "Polynomial":
        """A size that the model leaves open."""
        return cls({(size,): 1})

    @property
    def constant(self) -> bool:
        """Whether it is the same at all sizes."""
        return not any(self.terms)

    def __add__(self, other: "Polynomial") -> "Polynomial":
        return _sum((*self.terms.items(), *other.terms.items()))

    def __neg__(self) -> "Polynomial":
        return Polynomial({sizes: -n for sizes, n in self.terms.items()})

    def __sub__(self, other: "Polynomial") -> "Polynomial":
        return self + -other

    def __mul__(self, other: "Polynomial") -> "Polynomial":
        return _sum(
            (tuple(sorted((*a, *b), key=repr)), n * m) for a, n in self.terms.items() for b, m in other.terms.items()
        )

    def __truediv__(self, other: "Polynomial") -> "Polynomial":
        """The quotient by one term, where it leaves no rest.  Raises Inexact."""
        if len(other.terms) != 1:
            raise Inexact
        ((sizes, factor),) = other.terms.items()
        found = {}
        for product, n in self.terms.items():
            rest = Counter(product)
            rest.subtract(sizes)
            if n % factor or min(rest.values(), default=0) < 0:
                raise Inexact
            found[tuple(sorted(rest.elements(), key=repr))] = n // factor
        return Polynomial(found)


def _sum(terms: Iterable[tuple[Monomial, int]]) -> Polynomial:
    found: Counter[Monomial] = Counter()
    for sizes, n in terms:
        found[sizes] += n
    return Polynomial({sizes: n for sizes, n in found.items() if n})
