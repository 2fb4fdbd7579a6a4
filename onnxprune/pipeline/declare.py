"""An option, declared once: what the command line, Python's signatures, plans and errors say of it follows from it."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from onnxprune.errors import UsageError, spelled
from onnxprune.pipeline.kinds import OptionKind, Switch, Unfit

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One option.

    name: in Python; the command line has it with hyphens.
    text: the help, with other options as {their_name}, which becomes the word that the caller types.
    commands: those that have it.
    metavar: what stands for its value in the help of the command line; where there is none, and it is no switch, it
        can be given in Python only.
    flag: the name on the command line, where it is another one.
    short: a letter for it there.
    plan: whether it decides which channels stay, so that a plan tells it.
    """

    name: str
    default: Any
    text: str
    kind: OptionKind
    section: str
    commands: frozenset[str]
    metavar: str | None = None
    flag: str | None = None
    short: str | None = None
    plan: bool = False

    @property
    def switch(self) -> bool:
        return isinstance(self.kind, Switch)

    @property
    def typed(self) -> bool:
        """Whether it can be given on the command line."""
        return self.switch or self.metavar is not None

    @property
    def spelling(self) -> str:
        """The word of the command line; a switch that is on can be turned off there."""
        return f"--{'no-' if self.default is True else ''}{(self.flag or self.name).replace('_', '-')}"

    def help(self, *, command_line: bool) -> str:
        """What it is, in the words of the command line or of Python, with the default where that tells something."""
        text = re.sub(r"\{(\w+)\}", lambda m: f"--{m[1].replace('_', '-')}" if command_line else m[1], self.text)
        if not command_line:
            return text
        if self.default is True:
            return f"Do not {text[0].lower()}{text[1:]}"
        telling = self.default not in (None, False, "auto") and isinstance(self.default, (str, int, float))
        return text + "  Repeatable." * self.kind.many + (f"  [default: {self.default}]" if telling else "")

    def read(self, given: Any, *, typed: bool = False) -> Any:
        """The value as it is used, from Python's or from a word that was typed.

        Raises UsageError, which names the option as the caller wrote it and says what it may be.
        """
        if given is None and self.default is None:
            return None
        try:
            return self.kind.typed(given) if typed else self.kind.read(given)
        except (ValueError, TypeError, OverflowError) as error:
            hint = str(error) if isinstance(error, Unfit) else ""
            name = spelled(self.flag or self.name) if typed else spelled(self.name)
            raise UsageError(f"{name} wants {self.kind.words}, not {given!r}{hint}") from None


def option(default: Any, text: str, kind: OptionKind, section: str, commands: frozenset[str], **traits: Any) -> Any:
    """A dataclass field that is an `Option`."""
    row = {"text": text, "kind": kind, "section": section, "commands": commands, **traits}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=row)
    return field(default=default, metadata=row)


@cache
def options_of(table: type) -> Mapping[str, Option]:
    """The options of a table by name, in their order: those fields of the dataclass that `option` has made."""
    return {
        f.name: Option(f.name, f.default if f.default_factory is MISSING else f.default_factory(), **f.metadata)
        for f in fields(table)
        if "text" in f.metadata
    }


def read_values(table: type[T], given: Mapping[str, Any]) -> T:
    """A table with values as they are used, from what the user gives.  Raises UsageError as `Option.read` does."""
    rows = options_of(table)  # type: ignore[arg-type]  # mypy doubts that classes are hashable
    values = {**{name: row.default for name, row in rows.items()}, **given}
    return table(**{name: rows[name].read(value) for name, value in values.items()})
