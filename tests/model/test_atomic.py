"""Whatever fails, and whenever: the old output is whole or the new one is, and nothing else is left behind."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from model_files import add, content, wide

from onnxprune.errors import FileError, OnnxPruneError
from onnxprune.model import ExternalStyle, load, save
from onnxprune.model.atomic import PREFIX, SUFFIX

OUTSIDE = ExternalStyle()


def environment() -> dict[str, str]:
    """For a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


CALLS = ("open", "write", "fsync", "replace", "lseek", "dup", "fstat")


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at: int | None, number: int, tmp_path: Path) -> Iterator[list[str]]:
    """The `at`-th call of the operating system fails, counted over all kinds that writing uses."""
    made: list[str] = []

    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            made.append(name)
            if len(made) - 1 == at:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield made


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPERM], ids=errno.errorcode.get)
@pytest.mark.parametrize("style", [None, OUTSIDE])
def test_any_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: ExternalStyle | None, number: int
) -> None:
    target = tmp_path / "m.onnx"
    save(add(), target)
    before = content(tmp_path)
    with failing(monkeypatch, None, 0, tmp_path) as calls:
        save(wide(), target, style=style)
    after = content(tmp_path)
    assert {"open", "write", "fsync", "replace"} <= set(calls)
    for at in range(len(calls)):
        for path in tmp_path.iterdir():
            path.unlink()
        save(add(), target)
        with failing(monkeypatch, at, number, tmp_path) as made:
            try:
                save(wide(), target, style=style)
                failed = None
            except OnnxPruneError as error:
                failed = error
        found = content(tmp_path)
        assert found in (before, after), (at, made[at])
        if failed is None:
            assert found == after, (at, made[at])
        else:
            assert isinstance(failed, FileError)
            assert "\n" not in str(failed)
            assert os.strerror(number) in str(failed)
            assert ("is in place and whole" in str(failed)) == (found == after), (at, made[at], str(failed))


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("style", ["None", "ExternalStyle()"])
def test_a_real_limit(tmp_path: Path, style: str) -> None:
    save(add(), tmp_path / "m.onnx")
    before = content(tmp_path)
    script = f"""
import resource, sys
from model_files import wide
from onnxprune.model import ExternalStyle, save
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
save(wide(), sys.argv[1], style={style})
"""
    arguments = [sys.executable, "-c", script, str(tmp_path / "m.onnx")]
    ran = subprocess.run(arguments, capture_output=True, text=True, env=environment())
    assert ran.returncode
    assert "FileError" in ran.stderr
    assert os.strerror(errno.EFBIG) in ran.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize("style", [None, OUTSIDE])
def test_everything_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: ExternalStyle | None
) -> None:
    with failing(monkeypatch, None, 0, tmp_path) as calls:
        save(wide(), tmp_path / "m.onnx", style=style)
    order = [name for name in calls if name in ("write", "fsync", "replace")]
    steps = [name for i, name in enumerate(order) if order[i - 1 : i] != [name]]
    assert steps == ["write", "fsync", "replace", "fsync"] * (2 if style else 1)


def test_what_stands_where_a_temporary_was_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    trap = tmp_path / f"{PREFIX}trap{SUFFIX}"
    trap.symlink_to(victim)
    names = iter(["trap", "trap", "free"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(names))
    save(add(), tmp_path / "m.onnx")
    assert victim.read_bytes() == b"precious"
    assert trap.is_symlink()
    assert load(tmp_path / "m.onnx").proto == add()


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[: max(1, len(data) // 3)]))
    save(wide(), tmp_path / "m.onnx", style=OUTSIDE)
    monkeypatch.undo()
    assert load(tmp_path / "m.onnx").proto == wide()


def test_a_disk_that_returns_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:-1] + b"?"))
    with pytest.raises(FileError, match="reads differently"):
        save(wide(), tmp_path / "m.onnx")
    assert content(tmp_path) == {}


def test_too_little_space_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(add(), tmp_path / "m.onnx")
    before = content(tmp_path)
    usage = type("Usage", (), {"free": 1_400_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(os, "write", None)
    for style in (None, OUTSIDE):
        with pytest.raises(FileError, match=r"needs 0\.5 MB and 1\.0 MB to spare, and the disk has 1\.4 MB free"):
            save(wide(), tmp_path / "m.onnx", style=style)
    assert content(tmp_path) == before


def test_a_read_only_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may write anyway
        real = os.open

        def fail(path: object, flags: int, *mode: int) -> int:
            if flags & os.O_CREAT:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, flags, *mode)  # type: ignore[call-overload]

        monkeypatch.setattr(os, "open", fail)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(FileError, match="Permission denied"):
            save(add(), tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)


# For every signal, style and moment: children that end themselves at their n-th call of the operating system.
KILLER = """
import os, signal, sys
from itertools import product
from pathlib import Path
from model_files import wide
from onnxprune.model import ExternalStyle, save

def wrap(real, at, number, after):
    def call(*args, **kwargs):
        global calls
        calls += 1
        mine = calls - 1 == at
        if mine and not after:
            os.kill(os.getpid(), number)
        result = real(*args, **kwargs)
        if mine and after:
            os.kill(os.getpid(), number)
        return result
    return call

def child(target, at, name, style, after):
    for call in ("open", "write", "fsync", "replace"):
        setattr(os, call, wrap(getattr(os, call), at, getattr(signal, name), after))
    try:
        save(wide(2), target, style=ExternalStyle() if style == "outside" else None)
    except SystemExit as error:
        os._exit(error.code)
    except KeyboardInterrupt:
        os._exit(130)
    os._exit(0)

directory, calls = Path(sys.argv[1]), 0
old = (directory / "old.onnx").read_bytes()
for name, style, when in product(sys.argv[2].split(), ("inline", "outside"), ("before", "after")):
    for at in range(200):
        target = directory / f"{name}-{style}-{when}" / str(at) / "m.onnx"
        target.parent.mkdir(parents=True)
        target.write_bytes(old)
        if not (pid := os.fork()):
            child(target, at, name, style, when == "after")
        status = os.waitpid(pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        (target.parent.parent / f"{at}.code").write_text(str(code))
        if not code:
            break
"""
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGKILL": -9}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory per signal, style and moment, with a directory per call at which the writer was ended."""
    directory = tmp_path_factory.mktemp("killed")
    save(add(), directory / "old.onnx")
    arguments = [sys.executable, "-c", KILLER, str(directory), " ".join(CODES)]
    subprocess.run(arguments, check=True, timeout=300, env=environment())
    return directory


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("style", ["inline", "outside"])
@pytest.mark.parametrize("name", CODES)
def test_ended_at_every_call(killed: Path, name: str, style: str, when: str) -> None:
    stages = killed / f"{name}-{style}-{when}"
    codes = {int(p.stem): int(p.read_text()) for p in stages.glob("*.code")}
    assert len(codes) > 8
    assert [codes[at] for at in range(len(codes))] == [CODES[name]] * (len(codes) - 1) + [0]
    for directory in filter(Path.is_dir, stages.iterdir()):
        found = load(directory / "m.onnx").proto  # fails if the data of a new model is missing
        assert found in (add(), wide(2))
        leftovers = [p for p in directory.iterdir() if p.name.startswith(PREFIX)]
        if name == "SIGKILL":
            for left in leftovers:
                os.utime(left, (0, 0))  # as if the run had been an hour ago
            save(wide(2), directory / "m.onnx", style=OUTSIDE if style == "outside" else None)
            found = wide(2)
        else:
            assert not leftovers
        assert len(list(directory.iterdir())) == (2 if style == "outside" and found == wide(2) else 1)


def test_temporaries_of_the_living_are_left_alone(tmp_path: Path) -> None:
    reached, released = threading.Event(), threading.Event()

    def check(path: Path) -> None:
        os.utime(path, (0, 0))  # old enough to look abandoned
        reached.set()
        assert released.wait(30)

    other = threading.Thread(target=save, args=(wide(), tmp_path / "a.onnx"), kwargs={"check": check})
    other.start()
    try:
        assert reached.wait(30)
        save(add(), tmp_path / "b.onnx")
    finally:
        released.set()
        other.join()
    assert load(tmp_path / "a.onnx").proto == wide()
    assert load(tmp_path / "b.onnx").proto == add()
    young = tmp_path / f"{PREFIX}0123{SUFFIX}"
    young.touch()
    mine = tmp_path / f"{PREFIX}0123.notes"
    mine.touch()
    os.utime(mine, (0, 0))
    save(add(), tmp_path / "b.onnx")
    assert young.exists()
    assert mine.exists()
    os.utime(young, (time.time() - 3600,) * 2)
    save(add(), tmp_path / "b.onnx")
    assert not young.exists()
