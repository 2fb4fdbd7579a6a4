"""The options of a command in the signature and the docstring of its function, where help and notebooks look."""

import inspect
import textwrap
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

from onnxprune.pipeline.declare import Option, options_of
from onnxprune.pipeline.request import Request, options_for

WIDTH = 100  # columns of a docstring

F = TypeVar("F", bound=Callable[..., Any])


def takes(command: str) -> Callable[[F], F]:
    """Decorator: put the options of a command in the place of `**options` and of its line under `Args:`."""

    def decorate(function: F) -> F:
        options = [options_of(Request)[name] for name in options_for(command)]
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        first = [p for p in own if p.kind is not Parameter.KEYWORD_ONLY]
        rows = [Parameter(o.name, Parameter.KEYWORD_ONLY, default=o.default, annotation=type_of(o)) for o in options]
        last = [p for p in own if p.kind is Parameter.KEYWORD_ONLY]
        function.__signature__ = signature.replace(parameters=[*first, *rows, *last])  # type: ignore[attr-defined]
        function.__doc__ = documented(function.__doc__ or "", options)
        return function

    return decorate


def type_of(option: Option) -> Any:
    """What Python may give for an option."""
    accepts = option.kind.accepts
    return accepts | None if option.default is None and accepts is not Any else accepts


def documented(text: str, options: list[Option]) -> str:
    """A docstring with a paragraph for each option in the place of the line about `options`."""
    lines = inspect.cleandoc(text).splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("    options:"))
    end = next((k for k in range(begin + 1, len(lines)) if not lines[k].startswith(" " * 8)), len(lines))
    rows = [
        textwrap.fill(f"    {o.name}: {o.help(command_line=False)}", WIDTH, subsequent_indent=" " * 8) for o in options
    ]
    return "\n".join([*lines[:begin], *rows, *lines[end:]])
