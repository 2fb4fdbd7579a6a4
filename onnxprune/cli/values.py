"""What users type as values of options, and what becomes of it; errors say what would have been right."""

import math
from collections.abc import Iterable
from typing import Any

import click

from onnxprune.pipeline.share import meant


class Number(click.ParamType):
    """A number within limits; a share may be written as 0.5 or 50%."""

    name = "number"

    def __init__(self, low: float, high: float = math.inf, *, below: bool = False, share: bool = False) -> None:
        self.low, self.high, self.below, self.share = low, high, below, share

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            number = self.parsed(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is no {self.name}; write it like {self.example()}", param, ctx)
        if not self.low <= number <= self.high or (self.below and number == self.high):
            hint = meant(number) if self.share else ""
            self.fail(f"{text} is not {self.limits()}{hint}", param, ctx)
        return number

    def parsed(self, text: str) -> float:
        """The number.  Raises ValueError."""
        return float(text[:-1]) / 100 if self.share and text.endswith("%") else float(text)

    def example(self) -> str:
        return "0.5 or 50%" if self.share else f"{max(self.low, 0.5):g}"

    def limits(self) -> str:
        high = "" if math.isinf(self.high) else f" and {'below' if self.below else 'at most'} {self.high:g}"
        return f"at least {self.low:g}{high}"


class Whole(Number):
    """A whole number within limits."""

    name = "whole number"

    def parsed(self, text: str) -> int:
        return int(text)

    def example(self) -> str:
        return f"{max(self.low, 1):g}"


class Target(click.ParamType):
    """The share of a cost to keep, as macs=0.5."""

    name = "target"

    def __init__(self, kinds: Iterable[str]) -> None:
        self.kinds = tuple(kinds)
        self.share = Number(0, 1, share=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        kind, mark, share = str(value).partition("=")
        kind = kind.strip().lower()
        if not mark or kind not in self.kinds:
            choices = ", ".join(f"{k}=" for k in self.kinds)
            self.fail(f"{value!r} is no target; write one of {choices} and the share to keep: macs=0.5", param, ctx)
        return f"{kind}={self.share.convert(share, param, ctx):g}"


class Pair(click.ParamType):
    """NAME=VALUE; the name may hold an equals sign, as patterns of node names do."""

    name = "pair"

    def __init__(self, form: str, value: click.ParamType = click.STRING) -> None:
        self.form, self.value = form, value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, mark, given = str(value).rpartition("=")
        if not mark or not name.strip():
            self.fail(f"{value!r} is not of the form {self.form}", param, ctx)
        return name.strip(), self.value.convert(given.strip(), param, ctx)
