"""One input through the whole command: what may come of it is a pruned model or a refusal, soon and in little space."""

import contextlib
import faulthandler
import io
import os
import re
import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random

import onnx

import onnxprune
from fuzz import corpus
from fuzz.damage import damaged_bytes, damaged_structure
from fuzz.graphs import network
from onnxprune import OnnxPruneError

PATIENCE = 10.0  # seconds of computing until an input counts as a hang
IDLE = 60.0  # seconds of anything
ROOM = 256 << 20  # bytes that a run may add to the memory of the process, whatever small input it was given
KINDS = ("bits", "structure", "random", "random-damaged", "run")


class Finding(AssertionError):
    """Something else than success or a refusal."""


def make(kind: str, draw: Random) -> bytes:
    """The input of that kind that `draw` leads to."""
    if kind == "bits":
        return damaged_bytes(_from_corpus(draw), draw)
    if kind == "structure":
        return damaged_structure(onnx.load_model_from_string(_from_corpus(draw)), draw).SerializeToString()
    model = network(draw)
    if kind == "random-damaged" or (kind == "run" and draw.random() < 0.3):
        model = damaged_structure(model, draw)
    return model.SerializeToString()


def _from_corpus(draw: Random) -> bytes:
    return draw.choice(corpus.node_tests()) if draw.random() < 0.7 else corpus.read(draw.choice(corpus.files()))


def attempt(data: bytes, output: Path, draw: Random, *, verify: bool) -> str:
    """What comes of pruning these bytes into `output`, in a word; raises `Finding` for what must not be."""
    before = set(os.listdir(output.parent))
    options = {
        "ratio": draw.choice((0.0, 0.25, 0.5, 0.5, 0.9)),
        "method": draw.choice(("ncc", "l1", "random")),
        "compensate": "none",
        "save_as_external_data": draw.random() < 0.1,
        "round_to": 1,
    }
    peak = _peak_now()
    try:
        with _quietly():
            result = onnxprune.prune(data, output, verify=verify, measure=False, **options)
            outcome = "pruned" if result.plan.initializers else "unchanged"
    except OnnxPruneError as error:
        _check_refusal(error)
        outcome = type(error).__name__
    except Exception as error:
        raise Finding(place(error)) from error
    grown = _peak_now(reset=False) - peak
    if grown > ROOM:
        raise Finding(f"{outcome} took {grown >> 20} MiB for {len(data)} bytes")
    _check_files(output, before, outcome)
    return outcome


def place(error: BaseException) -> str:
    """An exception, and the line of onnxprune that it came through last."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "onnxprune" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "outside"
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__} at {where}: {text[:120]}"


def _check_refusal(error: OnnxPruneError) -> None:
    text = str(error)
    if not text or "\n" in text or not text.isprintable():
        raise Finding(f"a message that is not one printable line: {text[:200]!r}")
    if "internal" in text:
        raise Finding(f"an internal error: {re.sub(r'[0-9]+', '…', text)[:160]}")


def _check_files(output: Path, before: set[str], outcome: str) -> None:
    """A model that loads is there after success, and nothing at all after a refusal."""
    new = set(os.listdir(output.parent)) - before
    if outcome in ("pruned", "unchanged"):
        onnxprune.model.load(output)
        new = {name for name in new if not name.startswith("weights-")} - {output.name}
        for file in output.parent.glob("weights-*"):
            file.unlink()
        output.unlink()
    if new:
        raise Finding(f"{outcome} left {sorted(new)}")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _peak_now(*, reset: bool = True) -> int:
    """Largest resident memory since the last reset, in bytes; 0 where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def one(kind: str, seed: str, folder: Path | None = None) -> str:
    """Make and try one input: the seed alone decides which."""
    draw = Random(f"{kind}/{seed}")
    data = make(kind, draw)
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_patience())
        return attempt(data, folder / "out.onnx", draw, verify=kind == "run")


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """End the process, with a trace, when it takes too long; a machine busy with other things does not count."""
    timed = hasattr(signal, "setitimer")
    if timed:
        faulthandler.register(signal.SIGPROF, chain=True)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    faulthandler.dump_traceback_later(IDLE if timed else PATIENCE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
