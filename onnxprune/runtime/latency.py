"""Latency of models side by side: the same feed, in turns, so that a busy machine slows all of them alike."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.runtime.isolate import seconds_apart
from onnxprune.runtime.session import Session
from onnxprune.runtime.specs import Feed

WARM_UP = 2  # rounds that are not counted: the first ones allocate and page in
ROUNDS = 500
ENOUGH = 11  # rounds behind which time is up; fewer pairs than FEWEST show no difference with 95 % probability
FEWEST = 6
PATIENCE = 3  # times the seconds that slow models get on top


@dataclass(frozen=True)
class Latency:
    """Seconds per run: the median, and the span that holds the middle half of the runs (`low` to `high`).

    spent: all counted runs in their order, those of two models side by side.
    """

    median: float
    low: float
    high: float
    runs: int
    threads: int
    provider: str
    spent: tuple[float, ...] = field(default=(), repr=False)


def gain(before: Latency, after: Latency) -> tuple[float, float] | None:
    """How many times faster the second is: the interval that holds the median of paired runs with 95 % probability.

    It is read off order statistics (the sign test turned around), so that it takes no distribution for granted; None
    where there are fewer than six pairs, which can show nothing.
    """
    ratios = sorted(b / a for b, a in zip(before.spent, after.spent, strict=False) if a > 0)
    if len(ratios) < FEWEST:
        return None
    rank = max(0, int(len(ratios) / 2 - 0.98 * math.sqrt(len(ratios))))
    return ratios[rank], ratios[-1 - rank]


def measure(sessions: Mapping[str, Session], feed: Feed, *, seconds: float = 2.0) -> dict[str, Latency]:
    """Time one run of each session on `feed`, in turns A B A B ..., for about `seconds` in all.

    Slow models get up to four times the seconds, until there are enough rounds to tell a difference; at least one round
    is counted however long it takes. Sessions made with `optimize=True` are what users
    will run; those without measure nothing of interest.
    """
    times: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + seconds
    for turn in range(WARM_UP + ROUNDS):
        for name, session in sessions.items():
            begin = time.perf_counter()
            session.run(feed)
            spent = time.perf_counter() - begin
            times[name].append(apart if (apart := seconds_apart(session)) is not None else spent)
        over = time.perf_counter() - end
        if turn and (over > PATIENCE * seconds or (over > 0 and turn >= WARM_UP + ENOUGH)):
            break
    return {name: _summary(spent, sessions[name]) for name, spent in times.items()}


def _summary(spent: list[float], session: Session) -> Latency:
    counted = spent[WARM_UP:] or spent[-1:]
    low, _, high = statistics.quantiles(counted, n=4, method="inclusive") if len(counted) > 1 else counted * 3
    return Latency(
        statistics.median(counted), low, high, len(counted), session.threads, session.provider, tuple(counted)
    )
