"""The options of a command in the signature and the docstring of its function, where help and notebooks look."""

import inspect
import re
import textwrap
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from typing import Any, TypeVar, cast

from onnxprune.errors import COMMAND_LINE, OnnxPruneError, UsageError
from onnxprune.pipeline.declare import Option, options_of
from onnxprune.pipeline.request import Request, options_for

WIDTH = 100  # columns of a docstring
PROGRESS = "called with (what is done, how far, of how much; 0 of 0 where that is not known)."

F = TypeVar("F", bound=Callable[..., Any])


def takes(command: str) -> Callable[[F], F]:
    """Decorator: put the options of a command in the place of `**options`, and what they are under `Args:`.

    Errors that name options as a shell has them name them as Python does, unless a shell is where they were typed.
    """

    def decorate(function: F) -> F:
        options = [options_of(Request)[name] for name in options_for(command)]
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        first = [p for p in own if p.kind is not Parameter.KEYWORD_ONLY]
        rows = [Parameter(o.name, Parameter.KEYWORD_ONLY, default=o.default, annotation=type_of(o)) for o in options]
        last = [p for p in own if p.kind is Parameter.KEYWORD_ONLY]

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                if not callable(progress := kwargs.get("progress", print)):
                    raise UsageError(f"progress wants a function, not {progress!r}")
                return function(*args, **kwargs)
            except OnnxPruneError as error:
                error.args = (worded(str(error)),)
                raise

        called.__signature__ = signature.replace(parameters=[*first, *rows, *last])  # type: ignore[attr-defined]
        called.__doc__ = documented(function.__doc__ or "", options)
        return cast(F, called)

    return decorate


def worded(text: str) -> str:
    """A text with `--no-verify` and `--input-shapes` as `verify=False` and `input_shapes`, where those are typed."""
    return text if COMMAND_LINE.get() else _FLAG.sub(lambda found: _PYTHON[found[0]], text)


_PYTHON = {o.spelling: f"{o.name}=False" if o.default is True else o.name for o in options_of(Request).values()}
_FLAG = re.compile(rf"(?<![\w'-])({'|'.join(sorted(_PYTHON, key=len, reverse=True))})(?![\w-])")


def type_of(option: Option) -> Any:
    """What Python may give for an option."""
    accepts = option.kind.accepts
    return accepts | None if option.default is None and accepts is not Any else accepts


def documented(text: str, options: list[Option]) -> str:
    """A docstring with a paragraph for the progress, and one for each option, behind its other arguments."""
    lines = inspect.cleandoc(text).splitlines()
    end = lines.index("", lines.index("Args:"))
    said = {"progress": PROGRESS} | {o.name: o.help(command_line=False) for o in options}
    rows = [textwrap.fill(f"    {name}: {what}", WIDTH, subsequent_indent=" " * 8) for name, what in said.items()]
    return "\n".join([*lines[:end], *rows, *lines[end:]])
