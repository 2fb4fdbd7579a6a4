"""What an archive of the package does where it is installed: `python tests/installed.py DIST [PYTHON ...]`.

DIST holds the wheel of a release and the source archive.  In new environments of each Python, by default of this one:
the source archive beside nothing, where the first run says what is missing; the wheel beside a plain onnxruntime, which
stays, and with the extra `gpu`; this folder beside nothing, where it brings the runtime, and beside a plain one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "digits_cnn.onnx"
OURS = ("PYTHON", "VIRTUAL_ENV", "ONNXPRUNE_RELEASE")  # variables that an environment of its own shall not see


class Place:
    """An environment, and a folder to work in that is not the repository."""

    def __init__(self, python: str, folder: Path, *packages: str) -> None:
        self.folder = folder
        self.run(0, python, "-m", "venv", folder / "venv")
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        for package in packages:
            self.run(0, self.bin / "python", "-m", "pip", "install", "--quiet", package)

    def run(self, code: int, *command: object) -> str:
        """What a command prints.  Raises AssertionError for another exit code."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def program(self, code: int, *words: object) -> str:
        return self.run(code, self.bin / "onnxprune", *words)

    def wheels(self) -> list[str]:
        """Installed distributions of onnxruntime, with their versions."""
        listed = self.run(0, self.bin / "python", "-m", "pip", "list", "--format=freeze").splitlines()
        return [line for line in listed if line.startswith("onnxruntime")]


def beside_nothing(python: str, archive: Path, folder: Path) -> None:
    place = Place(python, folder, str(archive))
    assert place.program(0, "--version").startswith("onnxprune ")
    assert not place.wheels()
    told = place.program(1, MODEL, "out.onnx", "--ratio", "0.5")
    assert "onnxruntime is not installed" in told, told
    assert "pip install 'onnxruntime" in told, told
    assert len(told.splitlines()) == 1, told
    assert "none installed" in place.program(1, "doctor")


def beside_another(python: str, archive: Path, folder: Path) -> None:
    place = Place(python, folder, "onnxruntime", str(archive))
    before = place.wheels()
    assert len(before) == 1, before
    place.program(0, "doctor")
    place.program(0, MODEL, "out.onnx", "--ratio", "0.5")
    assert (folder / "out.onnx").stat().st_size < MODEL.stat().st_size / 2


def with_its_own(python: str, archive: Path, folder: Path) -> None:
    _works(Place(python, folder, f"{archive}[gpu]"))


def brings_its_own(python: str, archive: Path, folder: Path) -> None:
    _works(Place(python, folder, str(archive)))


def _works(place: Place) -> None:
    assert len(place.wheels()) == 1, place.wheels()
    place.program(0, "doctor")
    place.program(0, MODEL, "out.onnx", "--ratio", "0.5", "--no-measure")


def main(dist: Path, *pythons: str) -> None:
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    tried = [(beside_nothing, source), (beside_another, wheel), (with_its_own, wheel)]
    tried += [(brings_its_own, ROOT), (beside_another, ROOT)]
    for python in pythons or (sys.executable,):
        for check, archive in tried:
            with tempfile.TemporaryDirectory() as folder:
                check(python, archive.resolve(), Path(folder))
            print(f"{python}: {archive.name}, {check.__name__.replace('_', ' ')}: fine", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
