"""The same input and options give the same bytes: over hash seeds, threads, directories, file names and runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import MODELS

from onnxprune.criteria.methods import METHODS

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# What the process prints: the sha256 of the output of every method, and of its plan.
PROGRAM = """
import hashlib, json, sys
import numpy, onnx, onnxprune
source, output, data, methods = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(",")
found = {}
for method in methods:
    needs = {"data": data, "limit": 48} if method in %(data)r else {}
    needs |= {"method": method, "compensate": "auto" if method == "obs" else "none", "verify": bool(needs)}
    result = onnxprune.prune(source, output, ratio=0.5, measure=False, **needs)
    plan = json.dumps({**result.plan.to_json(), "source": None}, sort_keys=True)
    found[method] = [result.report.sha256["output"], hashlib.sha256(plan.encode()).hexdigest()]
print(json.dumps(found))
"""
WITH_DATA = tuple(name for name, method in METHODS.items() if {"images", "labels"} & set(method.needs))
ALONE = tuple(name for name in METHODS if name not in WITH_DATA)


def outputs(
    folder: Path, *, seed: str, threads: int, cwd: Path, name: str, methods: tuple[str, ...]
) -> dict[str, list[str]]:
    """What a fresh process gives for every method."""
    folder.mkdir()
    source = folder / f"{name}.onnx"
    shutil.copy(MODELS / "digits_mixed.onnx", source)
    environment = {**os.environ, "PYTHONHASHSEED": seed, **dict.fromkeys(THREADS, str(threads))}
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(p) for p in sys.path if p)
    given = os.path.relpath(source, cwd) if name == "relative" else str(source)
    command = [sys.executable, "-c", PROGRAM % {"data": WITH_DATA}, given, str(folder / f"{name}-out.onnx")]
    command += [str(MODELS / "digits_sample.npz"), ",".join(methods)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


RUNS = (
    {"seed": "0", "threads": 1, "name": "model"},
    {"seed": "1", "threads": 2, "name": "Anderer Name"},
    {"seed": "random", "threads": 16, "name": "relative"},
)


@pytest.mark.parametrize("methods", [ALONE, WITH_DATA], ids=["weights alone", "with data"])
def test_the_bytes_are_the_same(tmp_path: Path, methods: tuple[str, ...]) -> None:
    found = []
    for k, run in enumerate(RUNS):
        cwd = tmp_path / f"cwd{k}"
        cwd.mkdir()
        found.append(outputs(tmp_path / f"run{k}", cwd=cwd, methods=methods, **run))
    for method in methods:
        assert len({tuple(f[method]) for f in found}) == 1, f"{method} depends on the surroundings"
    if methods == ALONE:
        assert len({f for f, _ in found[0].values()}) > len(methods) // 2  # the methods do choose differently


def test_one_process_twice(tmp_path: Path) -> None:
    import onnxprune

    for name in ("a", "b"):
        onnxprune.prune(
            MODELS / "digits_cnn.onnx",
            tmp_path / name,
            ratio=0.4,
            compensate="none",
            method="random",
            seed=3,
            measure=False,
        )
    onnxprune.prune(
        MODELS / "digits_cnn.onnx", tmp_path / "c", ratio=0.4, compensate="none", method="random", seed=4, measure=False
    )
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
