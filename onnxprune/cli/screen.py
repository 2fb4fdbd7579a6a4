"""Where the words go: reports to standard output, all else to standard error."""

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from onnxprune.cli.interrupts import heard_again
from onnxprune.errors import FileError
from onnxprune.report.jsonable import dumps
from onnxprune.report.terminal import text_of
from onnxprune.report.words import clean

PATIENCE = 2.0  # seconds before progress is shown
SILENCE = 5.0  # seconds from one line of progress to the next where there is no terminal
ASCII = {"→": "->", "×": "x", "−": "-", "µ": "u", "…": "...", "─": "-", "≥": ">=", "≤": "<=", "·": "*"}
ASCII |= {"█": "#", "░": "."}


@dataclass
class Screen:
    """How much is said, and in which form."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    command: str | None = None  # as it was typed

    def show(self, renderable: RenderableType) -> None:
        """A report, in colours on a terminal; plain and without blanks at the ends of lines elsewhere."""
        if self.quiet or self.json:
            return
        console = Console(highlight=False, markup=False, emoji=False)
        if console.is_terminal and _speaks_unicode(sys.stdout):
            console.print(renderable, crop=False)
        else:
            _write(sys.stdout, text_of(renderable, console.width))

    def give(self, value: Any) -> None:
        """The outcome for a program, with --json."""
        if self.json:
            _write(sys.stdout, dumps(value))

    def fail(self, message: str, code: int) -> None:
        """One line on standard error; with --json, the same as an object on standard output."""
        with suppress(FileError, OSError):  # standard output may be what has failed
            self.give({"error": {"message": message, "exit_code": code}})
        if sys.stderr is None:
            return
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        if console.is_terminal and _speaks_unicode(sys.stderr):
            console.print(Text.assemble(("Error: ", "bold red"), clean(message)), soft_wrap=True)
        else:
            _mention(f"Error: {clean(message)}")

    def progress(self) -> "Bar":
        """A progress to hand to a job, as a context manager; from here on Ctrl-C is heard by what is at work."""
        heard_again()
        return Bar(sys.stderr is not None and sys.stderr.isatty(), self.quiet)


def _speaks_unicode(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")


def _write(stream: TextIO | None, text: str) -> None:
    """Text and the end of its line; what the stream's encoding lacks is spelt in ASCII."""
    if stream is None:  # closed by whoever started the program
        return
    if not _speaks_unicode(stream):
        for sign, spelling in ASCII.items():
            text = text.replace(sign, spelling)
        encoding = stream.encoding
        text = text.encode(encoding, "replace").decode(encoding)
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output(stream)
        name = "standard output" if stream is sys.stdout else "standard error"
        raise FileError(f"cannot write to {name}: {error.strerror or error}") from None


def _mention(text: str) -> None:
    """A line on standard error that no job stops for: where nobody reads it, or its disk is full, it is lost."""
    try:
        _write(sys.stderr, text)
    except (FileError, OSError, ValueError):
        drop_output(sys.stderr)


def drop_output(stream: TextIO | None) -> None:
    """Send what is still in the buffers of a standard stream nowhere, so that Python does not complain at its end."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[union-attr]


@dataclass
class Bar:
    """Progress once a job has taken two seconds: a bar on a terminal, gone when the job is done; a line now and then
    elsewhere."""

    terminal: bool
    quiet: bool = False
    stage: str = ""  # "3/8 ", or nothing where that is not known
    now: tuple[str, int, int] = ("", 0, 0)
    since: float = field(default_factory=lambda: time.monotonic())  # of what is being done
    said: float = field(default_factory=lambda: time.monotonic() + SILENCE)  # the last line; the first one can wait
    progress: Progress | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    timer: threading.Timer | None = None
    stream: TextIO | None = None

    def __call__(self, what: str, done: int, of: int) -> None:
        """What is done, how far, of how much; 0 of 0 where that is not known."""
        with self.lock:
            if of != self.now[2] or done < self.now[1]:
                self.since = time.monotonic()
            self.now = (what, done, of)
            self._update()
            if not (self.terminal or self.quiet) and time.monotonic() > self.said + SILENCE:
                self.said = time.monotonic()
                _mention(", ".join(self._told()))

    def begin(self, number: int, of: int) -> None:
        """A stage begins, the first of them being number 1."""
        self.stage = f"{number}/{of} "

    def _told(self) -> list[str]:
        """The stage and what is done in it; how much of that, and how long the rest may take, where that is known."""
        what, done, of = self.now
        told = [f"{self.stage}{clean(what)}"]
        if of:
            told.append(f"{done / of:.0%} done")
        if of and done:
            told.append(f"{(time.monotonic() - self.since) * (of - done) / done:.0f} s left")
        return told

    def tell(self, line: str) -> None:
        """A warning that cannot wait for the report, on standard error."""
        with self.lock:
            if self.progress:  # which knows where its own line stands
                self.progress.console.print(f"warning: {clean(line)}", soft_wrap=True)
            elif not self.quiet:
                _mention(f"warning: {clean(line)}")

    def __enter__(self) -> "Bar":
        if self.terminal and not self.quiet:
            self.timer = threading.Timer(PATIENCE, self._start)
            self.timer.daemon = True
            self.timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.timer:
            self.timer.cancel()
        with self.lock:
            self.quiet = True
            if self.progress:
                self.progress.stop()
            if self.stream:
                self.stream.close()

    def _start(self) -> None:
        with self.lock:
            if self.quiet:
                return
            # A descriptor of its own: standard error is turned aside while onnxruntime makes sessions.
            self.stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[far]}"))
            console = Console(file=self.stream, markup=False, emoji=False)
            self.progress = Progress(
                *columns,
                TimeElapsedColumn(),
                console=console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.progress.add_task("", total=None, far="")
            self.progress.tasks[0].start_time = self.progress.get_time() - PATIENCE
            self.progress.start()
            self._update()

    def _update(self) -> None:
        if self.progress:
            _, done, of = self.now
            what, *far = self._told()
            task = self.progress.task_ids[0]
            self.progress.update(task, description=what, completed=done, total=of or None, far=", ".join(far))
