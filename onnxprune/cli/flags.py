"""The options of the command line: those of the table, and what only a command line needs."""

from dataclasses import dataclass
from typing import Any

import click

from onnxprune.pipeline.declare import Option, option, options_of
from onnxprune.pipeline.kinds import Switch
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.table import ALL, MAKES, ONCE, OUTPUT
from onnxprune.pipeline.texts import Word
from onnxprune.sweeps.options import Sweeping

TALK = "What is shown"
LISTS = frozenset({"methods", "doctor"})


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is written and shown besides the model."""

    plan_out: str | None = option(None, "Write which channels stay, as JSON.", Word(), OUTPUT, MAKES, metavar="F.json")
    report: str | None = option(
        None,
        "Write the report as a page, as JSON, or its layers as a table, by the ending.",
        Word(), OUTPUT, ONCE | {"inspect"}, metavar="F.html|.json|.csv",
    )  # fmt: skip
    json: bool = option(False, "Print JSON, and nothing else, on standard output.", Switch(), TALK, ALL | LISTS)
    quiet: bool = option(False, "Print nothing but errors.", Switch(), TALK, ALL, short="-q")
    verbose: bool = option(
        False,
        "Print every group, every reason, and the trace of unexpected errors.",
        Switch(), TALK, ALL | {"methods"}, short="-v",
    )  # fmt: skip


FLAGS = tuple(o for table in (Sweeping, Request, Shown) for o in options_of(table).values() if o.typed)


class Typed(click.ParamType):
    """A value as its option reads it."""

    name = "value"

    def __init__(self, option: Option) -> None:
        self.option = option

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.option.read(value, typed=True)


def flags_of(command: str) -> tuple[Option, ...]:
    """The options that a command has on the command line, in the order of the help."""
    return tuple(flag for flag in FLAGS if command in flag.commands)


def options(command: str) -> list[click.Parameter]:
    """The options of a command for click; what is not typed stays None, False or empty."""
    return [_clicked(flag) for flag in flags_of(command)]


def _clicked(flag: Option) -> click.Option:
    names, text = [*filter(None, (flag.spelling, flag.name, flag.short))], flag.help(command_line=True)
    if flag.switch:
        return click.Option(names, is_flag=True, help=text)
    return click.Option(names, type=Typed(flag), metavar=flag.metavar, multiple=flag.kind.many, default=None, help=text)


def request_options(given: dict[str, Any]) -> dict[str, Any]:
    """Keyword options of `Request` from what click parsed: only those that were typed."""
    rows = options_of(Request)
    typed = {k: v for k, v in given.items() if k in rows and v is not None and v is not False and v != ()}
    return {name: _value(rows[name], value) for name, value in typed.items()}


def _value(row: Option, value: Any) -> Any:
    if row.switch:
        return not row.default
    return row.kind.gathered(value) if row.kind.many else value
