"""Data, plans and scripts that are broken or hostile: one line, the right exit code, and nothing left behind."""

import copy
import functools
import json
import operator
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runs import CUT, DIGITS, SAMPLE, Runner, nothing_written
from onnx import numpy_helper

import onnxprune
from onnxprune.model.graphs import tensors_of
from onnxprune.surgery.binding import digest

posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")
IMAGES = np.load(SAMPLE)["image"][:4]
PRUNE = (DIGITS, "out.onnx", "--ratio", 0.5, "--no-measure")


def refused(run: Runner, there: Path, codes: set[int], *words: object) -> str:
    """The one line with which a command is refused."""
    with nothing_written(there):
        outcome = run(*words)
    assert outcome.code in codes, outcome
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1
    assert "bug in onnxprune" not in outcome.err
    assert not outcome.out
    assert not (there / "pwned").exists()
    return outcome.err


# --- arrays ------------------------------------------------------------------


def arrays(**found: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **found)


def zipped(*parts: bytes) -> Callable[[Path], None]:
    """An npz whose one array is made of these bytes."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.npy", "w") as member:
            for part in parts:
                member.write(part)

    return write


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def shaped(shape: str, kind: str = "<f4") -> bytes:
    return header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}")


NPZ: dict[str, Callable[[Path], object]] = {
    "objects": arrays(image=np.array([{"a": 1}], object)),
    "other channels": arrays(image=np.zeros((4, 3, 8, 8), np.float32)),
    "text": arrays(image=np.array(["a", "b"])),
    "no samples": arrays(image=IMAGES[:0]),
    "no arrays": arrays(),
    "a scalar": arrays(image=np.float32(3)),
    "NaN": arrays(image=np.full_like(IMAGES, np.nan)),
    "infinity": arrays(image=np.full_like(IMAGES, np.inf)),
    "numbers too large": arrays(image=np.full(IMAGES.shape, 1e300)),
    "fewer labels": arrays(image=IMAGES, labels=np.arange(3)),
    "labels that are no classes": arrays(image=IMAGES, labels=np.array([0.5, 1, 2, 3])),
    "noise": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(200))),
    "cut short": lambda path: path.write_bytes(SAMPLE.read_bytes()[:5000]),
    "nothing": lambda path: path.write_bytes(b""),
    "a size of 2^34": zipped(shaped("(17179869184, 1, 8, 8)"), bytes(1000)),
    "sizes that overflow": zipped(shaped("(4, 4294967296, 4294967296, 4)"), bytes(1000)),
    "a negative size": zipped(shaped("(-4, 1, 8, 8)"), bytes(1000)),
}


@pytest.mark.parametrize("case", NPZ)
def test_archives_of_arrays(run: Runner, there: Path, case: str) -> None:
    NPZ[case](there / "d.npz")
    refused(run, there, {2, 3, 4}, *PRUNE, "--data", "d.npz")


NPY = {
    "code": header("__import__('os').system('touch pwned')"),
    "objects": shaped("(4, 1, 8, 8)", "|O"),
    "a negative size": shaped("(-1, 1, 8, 8)") + bytes(64),
    "a large size": shaped("(99999999999, 1, 8, 8)") + bytes(64),
    "brackets": header(f"{{'descr': {'[' * 3000}{']' * 3000}, 'fortran_order': False, 'shape': (1,), }}"),
    "a header without an end": header("{'descr':'<f4','fortran_order':False,'shape':__import__('os')}"),
    "records": header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 1, 8, 8), }") + bytes(1024),
}


@pytest.mark.parametrize("case", NPY)
def test_array_files(run: Runner, there: Path, case: str) -> None:
    (there / "d.npy").write_bytes(NPY[case])
    refused(run, there, {2, 4}, *PRUNE, "--data", "d.npy")


# --- images ------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


PICTURES = {
    "noise": b"\x89PNG\r\n\x1a\n" + bytes(range(50)),
    "text": b"hello",
    "3.6 gigapixels in 80 bytes": png(60000, 60000),
    "no pixels": png(0, 0),
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch pwned) (w) file\n",
}


@pytest.mark.parametrize("case", PICTURES)
def test_images(run: Runner, there: Path, case: str) -> None:
    pytest.importorskip("PIL")
    (there / "images" / "a").mkdir(parents=True)
    (there / "images" / "a" / "1.png").write_bytes(PICTURES[case])
    refused(run, there, {2, 4}, *PRUNE, "--data", "images", "--resize", "8x8")


# --- scripts and JSON --------------------------------------------------------

OTHERS = {
    "syntax.py": b"def (",
    "raises.py": b'raise RuntimeError("x\\ny\\x1b[31m")',
    "leaves.py": b"import sys; sys.exit(0)",
    "no exception.py": b"class E(BaseException): pass\ndef load_data():\n raise E('x')\n yield",
    "left early.py": b"def load_data():\n yield {}\n raise GeneratorExit",
    "speechless.py": b"class E(Exception):\n def __str__(self): raise self\nraise E",
    "no array.py": b"class A:\n def __array__(self, *_, **__): raise SystemExit\ndef load_data(): yield {'image': A()}",
    "lacks.py": b"a = 1",
    "three.py": b"def load_data(): return 3",
    "later.py": b'def load_data():\n yield {"image": 1}\n raise KeyError("z")',
    "zeros.py": b"\0\0",
    "latin.py": b"# \xe9\xff\ndef load_data(): return []",
    "deep.json": b"[" * 100_000,
    "text.json": b'[{"image": {"array": "x", "type": "ndarray"}}]',
    "pickle.json": b'[{"image": {"array": "gASVIwAA", "type": "ndarray"}}]',
    "other.pkl": b"\x80\x04.",
    "other.bin": b"abc",
}


@pytest.mark.parametrize("name", OTHERS)
def test_scripts_and_other_files(run: Runner, there: Path, name: str) -> None:
    (there / name).write_bytes(OTHERS[name])
    text = refused(run, there, {2, 4}, *PRUNE, "--data", name)
    assert "\x1b" not in text


@posix
@pytest.mark.parametrize("name", ["pipe", "pipe.npz", "pipe.npy", "pipe.json", "pipe.py"])
def test_pipes_are_not_waited_for(run: Runner, there: Path, name: str) -> None:
    os.mkfifo(there / name)
    for words in (
        (*PRUNE, "--data", name),
        ("apply", DIGITS, "out.onnx", "--plan", name),
        (name, "out.onnx", *CUT),
        (DIGITS, name, *CUT),
    ):
        refused(run, there, {2, 4}, *words)


# --- plans -------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return onnxprune.prune(DIGITS, ratio=0.5, compensate="none", measure=False, verify=False).plan.to_json()


def first(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda plan: plan["groups"][0].update(fields)


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "another version": lambda p: p.update(version=99),
    "no version": lambda p: p.pop("version"),
    "no groups": lambda p: p.pop("groups"),
    "groups in another form": lambda p: p.update(groups={"a": 1}),
    "no tensors": lambda p: p.pop("initializers"),
    "other tensors": lambda p: p.update(initializers={"conv1.weight": {"0": [0]}}),
    "axes that are no numbers": lambda p: p.update(initializers={"a": {"x": [0]}}),
    "no source": lambda p: p.update(source=None),
    "options in another form": lambda p: p.update(options=[1]),
    "a seed of letters": lambda p: p.update(options={"seed": "x"}),
    "heads in another form": lambda p: p.update(options={"heads": ["a"]}),
    "nothing stays": first(keep=[]),
    "negative channels": first(keep=[-1, 2]),
    "channels beyond": first(keep=[10_000]),
    "channels far beyond": first(keep=[10**30]),
    "halves of channels": first(keep=[1.5]),
    "letters": first(keep=["a"]),
    "yes and no": first(keep=[True, False]),
    "nothing told": first(keep=None),
    "a compensation in another form": lambda p: p.update(options={"compensate": {"a": 1}}),
    "a switch in another form": lambda p: p.update(options={"lossless": "no"}),
    "an order that loses channels": lambda p: p.update(
        alignment={"orders": {"conv1.weight": {"0": [0] * 48}}, "grouped": {}}
    ),
    "no groups to reorder": lambda p: p.update(alignment={"orders": {}, "grouped": {"conv2.weight": []}}),
    "another width": first(channels=999),
    "another name": first(name="\x1b[31mzz\n"),
    "members in another form": first(members=3),
}


@pytest.mark.parametrize("case", BROKEN)
def test_plans(run: Runner, there: Path, plan: dict[str, Any], case: str) -> None:
    broken = json.loads(json.dumps(plan))
    BROKEN[case](broken)
    (there / "p.json").write_text(json.dumps(broken))
    text = refused(run, there, {2}, "apply", DIGITS, "out.onnx", "--plan", "p.json", "--no-measure")
    assert "\x1b" not in text


OTHER_VALUES = (None, True, -1, 1.5, 10**30, float("nan"), "", "x", "\ud800", [], [[1]], {}, {"a": 1}, {"0": [0]})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values within JSON, but for the third and later ones of a list."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


ALL_FIELDS = {  # in forms that fit the network
    "alignment": {"orders": {"conv1.weight": {"0": list(range(48))}}, "grouped": {}},
    "copies": {"copy": "conv1.weight"},
    "readers": {"copy": ["conv1"]},
    "computed": {"scaled": {"from": ["conv1.weight"], "axes": {}}},
    "digests": {"fc2.bias": digest(numpy_helper.to_array(tensors_of(onnx.load(DIGITS))["fc2.bias"]))},
}
DAMAGED = 50  # plans


@pytest.mark.parametrize("fields", [{}, ALL_FIELDS], ids=["as written", "with all fields"])
@pytest.mark.parametrize("command", ["apply", "verify"])
def test_plans_with_anything_in_any_place(plan: dict[str, Any], command: str, fields: dict[str, Any]) -> None:
    """A plan that fits is taken; one that was damaged is refused in words, or taken where that says nothing else."""
    whole, refusals = json.loads(json.dumps(plan | fields)), 0
    quick = {"dry_run": True, "verify": False, "measure": False}
    pruned = onnxprune.apply(DIGITS, onnxprune.Plan.from_json(whole), **quick).model

    def carry_out(data: Any) -> None:
        read = onnxprune.Plan.from_json(json.loads(json.dumps(data)))
        onnxprune.apply(DIGITS, read, **quick) if command == "apply" else onnxprune.verify(DIGITS, pruned, read)

    carry_out(whole)
    for path, value in random.Random(0).sample([(p, v) for p in places(whole) if p for v in OTHER_VALUES], DAMAGED):
        broken = copy.deepcopy(whole)
        functools.reduce(operator.getitem, path[:-1], broken)[path[-1]] = value
        try:
            carry_out(broken)
        except onnxprune.OnnxPruneError:  # and no other error
            refusals += 1
    assert 0 < refusals < DAMAGED


NO_PLANS = {
    "empty": b"",
    "noise": bytes(range(256)),
    "a list": b"[]",
    "nothing": b"null",
    "brackets": b"[" * 200_000,
    "braces": b'{"a":' * 200_000,
    "a long number": b'{"version":' + b"9" * 5000 + b"}",
    "two-byte letters": "{}".encode("utf-16"),
}


@pytest.mark.parametrize("case", NO_PLANS)
def test_files_that_are_no_plans(run: Runner, there: Path, case: str) -> None:
    (there / "p.json").write_bytes(NO_PLANS[case])
    refused(run, there, {2}, "apply", DIGITS, "out.onnx", "--plan", "p.json")


@posix
def test_devices_are_no_plans(run: Runner, there: Path) -> None:
    for name in ("/dev/zero", "/dev/null", "."):
        refused(run, there, {2, 4}, "apply", DIGITS, "out.onnx", "--plan", name)
    for name in ("/dev/zero", "/dev/null", "."):
        refused(run, there, {2, 4}, name, "out.onnx", *CUT)
