"""What the value of an option may be: read from Python or from what was typed, and told in a signature.

A kind gives the value as it is used, or raises `Unfit`; the option, which knows its name, makes an error of that.
"""

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxprune.pipeline.targets import BYTES, UNITS, Limit, amount_of


class Unfit(ValueError):
    """A value that an option cannot have; its text is a hint to put behind the refusal, or nothing."""


def meant(number: float) -> str:
    """The question whether a number above 1 was to be a percentage, to be put at the end of a refusal."""
    return f"; did you mean {number:g}%?" if 1 < number < 100 else ""


@dataclass(frozen=True)
class OptionKind:
    """Any value at all.

    accepts: the type in the Python signature.
    many: whether the option is repeated on the command line.
    """

    accepts: ClassVar[Any] = Any
    many: ClassVar[bool] = False

    @property
    def words(self) -> str:
        """What is wanted, to stand behind "wants"."""
        return "a value"

    def read(self, given: Any) -> Any:
        """The value as it is used.  Raises Unfit, or what Python's own conversions raise."""
        return given

    def typed(self, text: str) -> Any:
        """The value of one word of the command line; raises likewise."""
        return self.read(text)

    def plain(self, value: Any) -> Any:
        """The value in JSON's own types."""
        return list(value) if isinstance(value, tuple) else value

    def gathered(self, values: Sequence[Any]) -> Any:
        """What Python would be given in the place of an option that was repeated."""
        return tuple(values)


@dataclass(frozen=True)
class Switch(OptionKind):
    """True or False; on the command line it has no value."""

    accepts: ClassVar[Any] = bool
    words = "True or False"

    def read(self, given: Any) -> bool:
        if given not in (True, False):
            raise Unfit
        return bool(given)


@dataclass(frozen=True)
class Number(OptionKind):
    """A number within limits; `below` leaves the upper one out."""

    low: float = -math.inf
    high: float = math.inf
    below: bool = False

    accepts: ClassVar[Any] = float

    @property
    def words(self) -> str:
        return f"a number{self.limits}"

    @property
    def limits(self) -> str:
        """The limits in words."""
        low = "" if math.isinf(self.low) else f"at least {self.low:g}"
        high = "" if math.isinf(self.high) else f"{'below' if self.below else 'at most'} {self.high:g}"
        both = " and ".join(filter(None, (low, high)))
        return f" of {both}" if both else ""

    def read(self, given: Any) -> Any:
        if isinstance(given, bool):
            raise Unfit
        number = self.number(given)
        if not self.low <= number <= self.high or (number == self.high and (self.below or math.isinf(number))):
            raise Unfit(self.hint(number))
        return number

    def number(self, given: Any) -> float:
        if isinstance(given, str):
            raise Unfit
        return float(given)

    def hint(self, number: float) -> str:
        return ""

    def typed(self, text: str) -> Any:
        return self.read(float(text))


@dataclass(frozen=True)
class Whole(Number):
    """A whole number within limits."""

    accepts: ClassVar[Any] = int

    @property
    def words(self) -> str:
        return f"a whole number{self.limits}"

    def number(self, given: Any) -> int:
        return operator.index(given)

    def typed(self, text: str) -> int:
        return self.read(int(text))


@dataclass(frozen=True)
class Share(Number):
    """A share: 0.5 and "50%" are the same, and 50 is a slip."""

    low: float = 0.0
    high: float = 1.0

    accepts: ClassVar[Any] = float | str

    @property
    def words(self) -> str:
        return f"a share{self.limits}, like 0.5 or 50%"

    def number(self, given: Any) -> float:
        text = str(given).strip()
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)

    def hint(self, number: float) -> str:
        return meant(number)

    def typed(self, text: str) -> float:
        return self.read(text)


@dataclass(frozen=True)
class Drop(Share):
    """How far a figure may fall; of one that is no share, in its own unit."""

    high: float = math.inf

    @property
    def words(self) -> str:
        return "what looks like 0.01 or 1% (one point of the metric)"


@dataclass(frozen=True)
class Amount(OptionKind):
    """Bytes, from a number or from a text like "4GiB", "500 MB" or "2g" (which is 2·10⁹)."""

    accepts: ClassVar[Any] = int | str
    words = "an amount of memory, like 4GiB or 500MB"

    def read(self, given: Any) -> int:
        found = _SIZE.fullmatch(str(given).strip().lower())
        if isinstance(given, bool) or not found or (size := int(float(found[1]) * BYTES.get(found[2], 0))) <= 0:
            raise Unfit
        return size


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(\w*)", re.ASCII)


@dataclass(frozen=True)
class Targets(OptionKind):
    """What may be left of costs, each as a share or an amount: macs=0.5, size=250KB."""

    accepts: ClassVar[Any] = str | Sequence[str]
    words = f"{', '.join(f'{c}=' for c in UNITS)} and what to keep, like macs=0.5, size=250KB or latency=5ms"
    many = True

    def read(self, given: Any) -> tuple[Limit, ...]:
        limits = tuple(map(self.limit, [given] if isinstance(given, (str, Limit)) else given))
        if not limits or len({limit.cost for limit in limits}) < len(limits):
            raise Unfit
        return limits

    def typed(self, text: str) -> Limit:
        return self.limit(text)

    def limit(self, given: Any) -> Limit:
        """One of them."""
        if isinstance(given, Limit):
            return given
        name, mark, left = str(given).partition("=")
        if not mark or (cost := name.strip().lower()) not in UNITS:
            raise Unfit
        amount = amount_of(cost, left)
        share = Share().read(left) if amount is None else None
        if not (share or amount):
            raise Unfit
        return Limit(cost, share, amount, f"{cost}={left.strip() if share is None else f'{share:.12g}'}")

    def plain(self, value: Any) -> Any:
        texts = [str(limit) for limit in value]
        return texts[0] if len(texts) == 1 else texts
