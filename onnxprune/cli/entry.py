"""From the arguments to the exit code: every failure is one line, and a trace is for bugs only, under -v."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from onnxprune.cli.interrupts import INTERRUPTED
from onnxprune.cli.screen import Screen, drop_output
from onnxprune.errors import COMMAND_LINE, FileError, OnnxPruneError, Terminated, UsageError

LONGEST = 1000  # characters of a message: names in a stranger's file can have millions


def run(arguments: Sequence[str] | None) -> int:
    """Run a command line; gives the exit code.  Whatever fails is told in a line."""
    _fill_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(["onnxprune", *given])  # as a shell would take it again
    screen = Screen("--json" in given, verbose=bool({"-v", "--verbose"} & set(given)), command=command)
    code = 0
    try:
        try:
            code = _command(given, screen)
        except (BrokenPipeError, Terminated):
            raise
        except BaseException as error:  # a user's script may raise anything
            code = _failed(error, screen)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        drop_output(sys.stdout)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # what click printed goes to a full disk
        drop_output(sys.stdout)
        Screen().fail(f"cannot write to standard output: {error.strerror or error}", FileError.exit_code)
        return FileError.exit_code


def _command(given: list[str], screen: Screen) -> int:
    from click.shell_completion import shell_complete

    from onnxprune.cli.about import cli  # here, where it is told when a library cannot be loaded
    from onnxprune.cli.layout import COMPLETE

    if (instruction := os.environ.get(COMPLETE)) is not None:
        return shell_complete(cli, {}, "onnxprune", COMPLETE, instruction)
    token = COMMAND_LINE.set(True)
    try:
        with cli.make_context("onnxprune", list(given) or ["-h"], obj=screen) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as done:
        code = done.exit_code
    finally:
        COMMAND_LINE.reset(token)
    return int(code or 0) if given else UsageError.exit_code


def _failed(error: BaseException, screen: Screen) -> int:
    """Tell of a failure; gives its exit code."""
    message, code = _explained(error)
    message = message if len(message) <= LONGEST else f"{message[: LONGEST // 2]}…{message[-LONGEST // 2 :]}"
    screen.fail(message, code)
    if screen.verbose and code == 1 and not isinstance(error, OnnxPruneError):
        traceback.print_exception(error)
    return code


def _explained(error: BaseException) -> tuple[str, int]:
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(error, OnnxPruneError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message().rstrip(".") + _hint(error), UsageError.exit_code
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or give smaller --input-shapes", 1
    if isinstance(error, OSError):
        where = f" {error.filename!r}" if error.filename else ""
        return f"the system refuses{where}: {error.strerror or error}", FileError.exit_code
    first = (str(error).splitlines() or [""])[0]
    report = "this is a bug in onnxprune; please report it with what the same command says under -v"
    return f"{type(error).__name__}: {first}: {report}", 1


def _hint(error: click.ClickException) -> str:
    """Where to read on, unless the message says it all."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None or type(error) is click.BadParameter:
        return ""
    return f" (`{context.command_path.removesuffix(' prune')} --help` says what there is)"


def _fill_standard_streams() -> None:
    """Open what the caller closed of the three standard streams, on nothing.

    Else the next file that is opened, perhaps the output, takes the number of one, and libraries print into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (numpy before 2.1 wants one)
