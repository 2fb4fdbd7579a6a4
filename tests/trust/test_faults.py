"""The whole command while disks fail, signals come, and files change under it: the old output or the new one."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_runs import DIGITS, MIXED, ROOT, Runner
from fuzz.kills import OLD, STYLES, content, whole, words

import onnxprune
from onnxprune.cli import main
from onnxprune.model.atomic import PREFIX

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and file systems of POSIX")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What a run leaves that nobody disturbs."""
    found = {}
    for style in STYLES:
        folder = tmp_path_factory.mktemp(style)
        assert main(words(folder, style)) == 0
        found[style] = content(folder)
    return found


# --- failing calls -----------------------------------------------------------

CALLS = ("open", "write", "fsync", "replace", "lseek")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EPERM], ids=errno.errorcode.get)
@pytest.mark.parametrize("style", STYLES)
def test_each_call_fails_once(
    run: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: dict[str, dict[str, bytes]],
    style: str,
    number: int,
) -> None:
    made = 0

    def wrap(real: Callable[..., object], at: int) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal made
            made += 1
            if made - 1 == at:
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        return call

    codes = []
    for at in range(200):
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "out.onnx").write_bytes(OLD)
        made = 0
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, wrap(getattr(os, name), at))
            outcome = run(*words(folder, style))
        assert whole(content(folder), expected[style]), at
        assert outcome.code in (0, 4, 5), (at, outcome)
        assert (outcome.code == 5) == ("is in place and whole" in outcome.err), (at, outcome)
        assert outcome.err.count("\n") == (outcome.code != 0), (at, outcome)
        codes.append(outcome.code)
        if made <= at:
            break
    assert codes.count(4) >= 5
    assert codes[-1] == 0


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = Path(tempfile.mkdtemp())
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        folder.rmdir()
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("room", [0, 4096, 60_000, 150_000])
def test_a_full_disk(run: Runner, small_disk: Path, monkeypatch: pytest.MonkeyPatch, style: str, room: int) -> None:
    (small_disk / "out.onnx").write_bytes(OLD)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    for looked in (True, False):
        if not looked:  # as if the room had been taken after it was looked for
            monkeypatch.setattr("onnxprune.model.write.check_space", lambda *_: None)
        outcome = run(*words(small_disk, style))
        assert outcome.code == 4
        assert outcome.err.count("\n") == 1
        assert os.listdir(small_disk) in (["out.onnx", "ballast"], ["ballast", "out.onnx"])
        assert (small_disk / "out.onnx").read_bytes() == OLD


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")
@pytest.mark.parametrize("style", STYLES)
def test_output_on_another_file_system(run: Runner, expected: dict[str, dict[str, bytes]], style: str) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "out.onnx").write_bytes(OLD)
        assert run(*words(Path(folder), style)).code == 0
        assert content(Path(folder)) == expected[style]


# --- signals -----------------------------------------------------------------


def killed(folder: Path, times: int) -> dict[str, dict[str, int]]:
    """What `fuzz/kills.py` counts, which fails where an output is lost; in a process that has run nothing yet."""
    path = os.pathsep.join(str(p) for p in (Path(onnxprune.__file__).parents[1], ROOT / "tests"))
    command = [sys.executable, "-m", "fuzz.kills", str(folder), str(times)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_signals_at_any_time(tmp_path: Path) -> None:
    for name, counts in killed(tmp_path, 3).items():
        assert counts["runs"] == 3
        assert counts["stopped"], name


@pytest.mark.slow
def test_many_signals(tmp_path: Path) -> None:
    for name, counts in killed(tmp_path, 100).items():
        assert counts["stopped"] > 30, name


# --- files that change -------------------------------------------------------

STAGES = ("load", "analyse", "choose channels", "plan", "rewrite", "save", "verify")
CHANGES: dict[str, Callable[[Path], object]] = {
    "another model": lambda path: os.replace(shutil.copy(MIXED, f"{path}.new"), path),
    "another model in the same file": lambda path: path.write_bytes(MIXED.read_bytes()),
    "cut short": lambda path: os.truncate(path, 1000),
    "emptied": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_changes(tmp_path: Path, expected: dict[str, dict[str, bytes]], change: str) -> None:
    alone = {"inside": expected["inside"]["out.onnx"], "mixed": b""}
    onnxprune.prune(MIXED, tmp_path / "mixed.onnx", ratio=0.5, compensate="none", measure=False)
    alone["mixed"] = (tmp_path / "mixed.onnx").read_bytes()
    for stage in STAGES:
        source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
        shutil.copy(DIGITS, source)
        target.write_bytes(OLD)

        def disturb(what: str, done: int, of: int, stage: str = stage, source: Path = source) -> None:
            if what == stage and source.exists() and source.read_bytes() == DIGITS.read_bytes():
                CHANGES[change](source)

        try:
            onnxprune.prune(source, target, ratio=0.5, compensate="none", measure=False, progress=disturb)
        except onnxprune.OnnxPruneError as error:
            told = str(error)
        else:
            told = ""
        assert "\n" not in told
        assert target.read_bytes() in ([OLD] if told else alone.values()), stage  # of one state of the input
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(PREFIX)]


def test_nothing_is_written_where_nothing_may_be(run: Runner, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        outcome = run(*words(tmp_path, "inside"))
    finally:
        tmp_path.chmod(0o700)
    assert outcome.code == 4
    assert sys.platform == "win32" or not list(tmp_path.iterdir())
