"""Files that appear whole or not at all, whatever the disk, the user or the kernel does.

A temporary in the same directory is written, flushed to the disk and renamed; a rename is the one change that POSIX
makes all at once.  https://pubs.opengroup.org/onlinepubs/9799919799/functions/rename.html
"""

import hashlib
import os
import secrets
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from onnxprune.errors import FileError, Terminated
from onnxprune.model.tensors import quoted

try:
    import fcntl
except ImportError:  # Windows: there an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".onnxprune-", ".tmp"
MINUTE = 60.0  # seconds; a younger temporary may be one whose owner has not locked it yet
SPARE = 1 << 20  # bytes left free on the disk
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def reported(target: Path) -> Iterator[None]:
    """Failures of the file system, told as one line about the file that was to be written."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write {quoted(str(target))}: {error.strerror or error}; nothing was put in its place"
        ) from error


class Temporary:
    """A file beside `target` under a name of its own; locked while its owner lives, so that others see it is in use."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = self._name()
        self.descriptor = -1
        self.identity: os.stat_result | None = None

    def _name(self) -> Path:
        return self.target.parent / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"

    def create(self) -> None:
        """Make the file, under a name where nothing is yet, not even a link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with reported(self.target):
            while self.descriptor < 0:
                with suppress(FileExistsError):
                    self.path = self._name()
                    self.descriptor = os.open(self.path, flags, 0o666)  # less the umask, as for any new file
            self.identity = os.fstat(self.descriptor)
        if fcntl:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, chunks: Iterable[bytes | memoryview]) -> tuple[str, int]:
        """Write, flush to the disk and read back; gives the sha256 and the number of bytes.

        Raises:
            FileError: the disk is full or failing.
        """
        digest, size = hashlib.sha256(), 0
        with reported(self.target):
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                view = memoryview(chunk)
                while len(view):
                    view = view[os.write(self.descriptor, view) :]
            os.fsync(self.descriptor)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            with os.fdopen(os.dup(self.descriptor), "rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != digest.hexdigest():
            raise FileError(f"what was written for {quoted(str(self.target))} reads differently: the disk is failing")
        return found, size

    def publish(self, final: Path) -> None:
        """Put the file in place of `final`, in one step."""
        if not fcntl:  # Windows does not rename an open file
            self.close()
        with reported(self.target):
            os.replace(self.path, final)

    def is_at(self, final: Path) -> bool:
        """Whether `final` is this file; asked of the disk, since an interrupt can come between a rename and a note."""
        try:
            found = os.lstat(final)
        except OSError:
            return False
        return self.identity is not None and os.path.samestat(found, self.identity)

    def close(self) -> None:
        """Give the file and its lock back."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


@contextmanager
def temporary(target: Path) -> Iterator[Temporary]:
    """A temporary beside `target` that is gone afterwards, unless it was published."""
    made = Temporary(target)
    try:
        made.create()
        yield made
    finally:
        made.close()
        with suppress(OSError):
            made.path.unlink()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else who asks for it does anything in the directory meanwhile; for moments only.

    No lock where the system or the file system has none.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY) if fcntl else -1
    try:
        if fcntl:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if fcntl:
            os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk; nothing to do where directories cannot be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(target: Path, needed: int) -> None:
    """Refuse, before anything is written, what the disk has no room for.

    Raises:
        FileError: there are fewer than `needed` bytes and the spare ones.
    """
    with reported(target):
        free = shutil.disk_usage(target.parent).free
    if free < needed + SPARE:
        raise FileError(
            f"cannot write {quoted(str(target))}: it needs {needed / 1e6:,.1f} MB and {SPARE / 1e6:,.1f} MB to spare, "
            f"and the disk has {free / 1e6:,.1f} MB free; make room, or write elsewhere"
        )


def sweep(directory: Path) -> None:
    """Remove temporaries whose owner was killed before it could; its lock went with it."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX):
                with suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or time.time() - status.st_mtime < MINUTE:
        return
    if not fcntl:
        os.unlink(entry.path)
        return
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if the owner lives
        os.unlink(entry.path)
    finally:
        os.close(descriptor)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program through its `finally` clauses, as Ctrl-C does.

    Only where nobody else handles them, and in the main thread, where Python allows it.
    """
    main = threading.current_thread() is threading.main_thread()
    taken = [s for s in SIGNALS if main and signal.getsignal(s) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, _end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)
