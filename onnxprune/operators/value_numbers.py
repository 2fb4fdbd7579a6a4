"""Value numbers: channels that compute the same get the same one; and rows of weights that are multiples of others."""

from typing import Any

import numpy as np

Ids = np.ndarray  # uint64: equal where the functions are

EXACT = 1e-13  # what float64 leaves of a ratio of equal numbers
SINGLE = 2.0**-22  # a multiple in float32 is rounded once per element, to 2^-24 of it
NEAR = 1e-6  # rows of unit length whose projections are further apart are not alike
BLOCK = 32 << 20  # bytes of rows that are looked at once in double precision


def mix(*parts: Any) -> Ids:
    """One name from several, element by element; their order counts."""
    total = np.asarray(0x9E3779B97F4A7C15, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            total = _scrambled((np.asarray(part).astype(np.uint64) + total) * np.uint64(0xD6E8FEB86659FD93))
    return np.asarray(total)


def _scrambled(x: Ids) -> Ids:
    """A permutation of 64-bit numbers after which neighbours have nothing in common (splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def name_of(text: str) -> Ids:
    """The name of what a text says, the same in every process."""
    padded = text.encode().ljust(-(-len(text.encode()) // 8) * 8, b"\0")
    return mix(*np.frombuffer(padded, np.uint64))


def bits(numbers: Any) -> Ids:
    """The bits of float64 numbers; zero has but one sign."""
    return (np.asarray(numbers, np.float64) + 0.0).view(np.uint64)


def tolerance(dtype: np.dtype) -> float:
    """How far apart the elements of rows of unit length may be that count as alike."""
    return SINGLE if dtype == np.float32 else EXACT


def snapped(keys: Ids, numbers: np.ndarray, near: float) -> np.ndarray:
    """Numbers with the same key that differ by a share of at most `near` become the same one, (n,)."""
    order = np.lexsort((numbers, keys))
    k, x = keys[order], numbers[order]
    apart = np.ones(x.size, bool)
    apart[1:] = (k[1:] != k[:-1]) | ~(np.diff(x) <= near * np.abs(x[1:]))
    out = np.empty_like(numbers)
    out[order] = x[np.maximum.accumulate(np.where(apart, np.arange(x.size), 0))]
    return out


def multiples(rows: np.ndarray, last: np.ndarray, keys: Ids, near: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row the first one with the same key of which it is a positive multiple, and the factor.

    Args:
        rows: (n, features); of zeros alone, a row stands for itself.
        last: (n,), one more feature of each row.
        keys: (n,).
        near: largest difference of the elements of two rows of unit length.
    """
    first, factor = np.arange(len(rows)), np.ones(len(rows))
    length, shadow = _projected(rows, last)
    order = np.lexsort((first, shadow, keys))
    order = order[length[order] > 0]
    k, p = keys[order], shadow[order]
    alike = np.r_[False, (k[1:] == k[:-1]) & (np.diff(p) <= NEAR)] if order.size else np.zeros(0, bool)
    leaders: list[int] = []
    for at, (index, joins) in enumerate(zip(order.tolist(), alike.tolist(), strict=True)):
        if not joins:
            leaders = [index]
            continue
        row = np.append(rows[index].astype(np.float64), last[index])
        for leader in leaders:
            other = np.append(rows[leader].astype(np.float64), last[leader])
            if np.abs(row / length[index] - other / length[leader]).max() <= near:
                same = np.array_equal(row, other)
                first[index], factor[index] = leader, 1.0 if same else length[index] / length[leader]
                break
        else:
            leaders = [i for i in leaders if p[at] - shadow[i] <= NEAR] + [index]
    return _lowest(first, factor)


def _lowest(first: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same classes, each led by its first row."""
    least = np.arange(len(first))
    np.minimum.at(least, first, np.arange(len(first)))
    lead = least[first]
    return lead, factor / factor[lead]


def _projected(rows: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of each row, and where its direction lies along a random one."""
    direction = np.random.default_rng(0).standard_normal(rows.shape[1] + 1)
    length, shadow = np.zeros(len(rows)), np.zeros(len(rows))
    step = max(1, BLOCK // max(1, 8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        some = slice(start, start + step)
        length[some] = np.hypot(np.linalg.norm(block, axis=1), last[some])
        shadow[some] = block @ direction[:-1] + direction[-1] * last[some]
    return length, np.divide(shadow, length, out=np.zeros_like(shadow), where=length > 0)
