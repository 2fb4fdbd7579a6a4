"""Temporary folders that do not pile up: what a killed process left is removed by the next one."""

import os
import shutil
import tempfile
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows: there only the owner removes its folder
    fcntl = None  # type: ignore[assignment]

PREFIX = "onnxprune-"
LOCK = "lock"


class Folder:
    """A folder of its own in the directory for temporaries, until `cleanup` or the end of the object."""

    def __init__(self) -> None:
        sweep()
        self._made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        self.name = self._made.name
        self._lock = os.open(os.path.join(self.name, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl:
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cleanup(self) -> None:
        """Remove the folder and all that is in it."""
        self._made.cleanup()
        if self._lock >= 0:
            self._lock, descriptor = -1, self._lock
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_lock", -1) >= 0:
            self.cleanup()


def sweep() -> None:
    """Remove folders of this user whose owner is gone: its lock went with it."""
    if not fcntl:
        return
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    if entry.stat(follow_symlinks=False).st_uid != os.getuid():
        return
    descriptor = os.open(os.path.join(entry.path, LOCK), os.O_RDWR | os.O_NOFOLLOW)  # no lock, none of ours
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if the owner lives
        shutil.rmtree(entry.path, ignore_errors=True)
    finally:
        os.close(descriptor)
