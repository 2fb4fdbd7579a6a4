"""The tutorials, followed word for word: files are written as they stand there, commands run, what is shown came out.

An indented block whose lines begin with `$` is a transcript: commands, and below each of them some lines of what it
prints, in their order. Any other block is a file, whose name ends the paragraph in front of it.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_runs import ROOT

TUTORIALS = ("DETECTOR", "CI", "MICROCONTROLLER")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
CHANGE = re.compile(r"[+−]\d+\.\d+ points|unchanged")  # one sample of a hundred more or less right, on another machine
CLOSE, ANYWAY = 0.15, 0.05  # share, and amount, by which figures may differ on another machine or with other libraries


@dataclass(frozen=True)
class Command:
    """A command as it is typed, and lines that its output holds."""

    typed: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A file that the reader writes."""

    name: str
    text: str


def steps(page: str) -> list[Command | File]:
    """What a tutorial has its reader do, in order."""
    found: list[Command | File] = []
    for before, block in re.findall(r"([^\n]*)\n\n((?:    .*\n|\n(?=    |\n+    ))+)", page):
        text = re.sub(r"^    ", "", block, flags=re.MULTILINE).strip("\n") + "\n"
        if text.startswith("$ "):
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                typed, *shown = part.replace("\\\n", "").splitlines()
                found.append(Command(typed, tuple(filter(None, map(str.strip, shown)))))
        else:
            name = re.search(r"`([\w.]+)`:$", before)
            assert name, f"a block without `$` is a file, and {before!r} names none"
            assert "\n$ " not in text, f"words have to part {name[1]} from the commands behind it"
            found.append(File(name[1], text))
    return found


def alike(shown: str, printed: str) -> bool:
    """Whether a line came out: the same words, and about the same figures."""
    shown, printed = (CHANGE.sub("changed", line) for line in (shown, printed))
    one, two = (" ".join(NUMBER.sub("#", line).split()) for line in (shown, printed))
    figures = (NUMBER.findall(line) for line in (shown, printed))
    pairs = [[float(n.replace(",", "")) for n in pair] for pair in zip(*figures, strict=False)]
    return one in two and all(abs(a - b) <= ANYWAY + CLOSE * max(a, b) for a, b in pairs)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder like that of the repository: with its networks, and the program on the path."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    (tmp_path / "bin").mkdir()
    for name, what in (("onnxprune", "-m onnxprune"), ("python", "")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {what} "$@"\n')
        program.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(os.name != "posix", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_is_true(name: str, there: Path) -> None:
    where = {**os.environ, "PATH": f"{there / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = steps((ROOT / "docs" / f"{name}.md").read_text("utf-8"))
    assert sum(isinstance(step, Command) for step in done) >= 3
    for step in done:
        if isinstance(step, File):
            (there / step.name).write_text(step.text, "utf-8")
            continue
        run = subprocess.run(
            ["bash", "-c", step.typed], cwd=there, env=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", timeout=300,
        )  # fmt: skip
        printed = iter(run.stdout.splitlines())
        for line in step.shown:
            assert any(alike(line, other) for other in printed), f"{step.typed}\n{line!r} is not in\n{run.stdout}"
        assert "exit code" in step.typed or run.returncode == 0, run.stdout
