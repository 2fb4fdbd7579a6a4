"""The tables of rules and repairs, by name of the operator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Axes = Callable[[Any], Sequence[int]]  # axes of input 0, by what the node says
Quiet = Callable[[Any], bool]  # whether the dead channels of the output are zero in the masked network


@dataclass(frozen=True)
class Rule:
    """An operator's rule, and when the dead channels of its output are exactly zero."""

    apply: Callable[..., Any]
    quiet: Quiet
    tangled: bool  # takes values whose channels are not boxes yet
    channel: int | None = None  # the axis of input 0 that holds channels; the others are never cut
    takes: Axes | None = None  # axes of input 0 over which statistics are taken: rather others are cut


RULES: dict[str, Rule] = {}
REPAIRS: dict[str, Callable[..., None]] = {}


def never(_: object) -> bool:
    return False


def rule(
    *operators: str,
    quiet: Quiet = never,
    tangled: bool = False,
    channel: int | None = None,
    takes: Axes | None = None,
) -> Callable[[Callable], Callable]:
    """Register the rule of operators, named `Type` or `domain:Type`."""

    def register(fn: Callable) -> Callable:
        RULES.update(dict.fromkeys(operators, Rule(fn, quiet, tangled, channel, takes)))
        return fn

    return register


def repair(*operators: str) -> Callable:
    """Register what follows the cut in nodes of these operators."""

    def register(fn: Callable) -> Callable:
        REPAIRS.update(dict.fromkeys(operators, fn))
        return fn

    return register


def operator(domain: str, op_type: str) -> str:
    """Name of an operator in the tables."""
    return op_type if domain in ("", "ai.onnx") else f"{domain}:{op_type}"
