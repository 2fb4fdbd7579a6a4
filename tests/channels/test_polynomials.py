"""Polynomials of open sizes agree with numbers, wherever they are defined."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.channels.polynomials import Inexact, Polynomial

SIZES = {"N": 3, "H": 7, "W": 11}
terms = st.dictionaries(st.lists(st.sampled_from(sorted(SIZES)), max_size=3).map(sorted).map(tuple), st.integers(-9, 9))
polynomials = terms.map(lambda found: Polynomial({sizes: n for sizes, n in found.items() if n}))


def value(p: Polynomial) -> int:
    return sum(n * int(np.prod([SIZES[s] for s in sizes], dtype=np.int64)) for sizes, n in p.terms.items())


@given(polynomials, polynomials)
def test_sums_and_products_are_those_of_numbers(a: Polynomial, b: Polynomial) -> None:
    assert value(a + b) == value(a) + value(b)
    assert value(a - b) == value(a) - value(b)
    assert value(a * b) == value(a) * value(b)
    assert (a - a).constant
    assert a * b == b * a


@given(polynomials, terms.filter(lambda t: t != {}))
def test_a_quotient_times_the_divisor_is_the_dividend(a: Polynomial, found: dict[tuple[str, ...], int]) -> None:
    sizes, n = next(iter(found.items()))
    divisor = Polynomial({sizes: n or 1})
    assert (a * divisor) / divisor == a
    with suppress(Inexact):
        assert (a / divisor) * divisor == a


def test_what_is_no_polynomial() -> None:
    n, h, one = Polynomial.open("N"), Polynomial.open("H"), Polynomial.of(1)
    for a, b in ((n, h), (one, n), (n + one, n), (n, n + one), (n, Polynomial.of(2)), (n, Polynomial.of(0))):
        with pytest.raises(Inexact):
            a / b
    assert ((n + n) / n) == Polynomial.of(2)
    assert not (n * h).constant
