"""Hyper-parameters that explain themselves: what each is, what it may be, and whether the paper says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Hyperparameter:
    """One hyper-parameter of a method; `published` tells a value from the paper from a reading of our own."""

    name: str
    default: Any
    text: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    published: bool = False

    def check(self, value: Any) -> Any:
        """The value in the option's type, from itself or from text. Raises `UsageError` saying what it may be."""
        kind = type(self.default)
        try:
            parsed = _PARSERS[kind](value)
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"option '{self.name}' wants {_WORDS[kind]}, not {value!r}") from None
        if self.choices and parsed not in self.choices:
            raise UsageError(f"option '{self.name}' is one of {', '.join(self.choices)}, not {value!r}")
        if (self.low is not None and not parsed >= self.low) or (self.high is not None and not parsed <= self.high):
            limits = f"at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
            raise UsageError(f"option '{self.name}' is {limits}, not {value!r}")
        return parsed


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARSERS: dict[type, Callable[[Any], Any]] = {
    bool: lambda value: _TRUTH[str(value).lower()],
    int: _whole,
    float: float,
    str: str,
}
_WORDS = {bool: "yes or no", int: "a whole number", float: "a number", str: "a word"}


def option(default: Any, text: str, **traits: Any) -> Any:
    """A dataclass field that is a `Hyperparameter`."""
    return field(default=default, metadata={"text": text, **traits})


def options_of(rule: Any) -> tuple[Hyperparameter, ...]:
    """The options of a rule: those fields of the dataclass that were made by `option`."""
    return tuple(Hyperparameter(f.name, f.default, **f.metadata) for f in fields(rule) if "text" in f.metadata)


def with_options(rule: Any, name: str, values: Mapping[str, Any]) -> Any:
    """The rule with these values. Raises `UsageError` for unknown names and for values that do not fit."""
    known = {o.name: o for o in options_of(rule)}
    for given in values:
        if given not in known:
            have = ", ".join(sorted(known)) or "none"
            raise UsageError(f"method '{name}' has no option '{given}'; it has: {have}")
    return replace(rule, **{given: known[given].check(value) for given, value in values.items()})
