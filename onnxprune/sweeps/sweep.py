"""A sweep: all combinations of networks, targets and methods, and what becomes of each."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import COMMAND_LINE, OnnxPruneError, UsageError, spelled
from onnxprune.keyed import keyed
from onnxprune.model import load
from onnxprune.pipeline.declare import read_values
from onnxprune.pipeline.measure import cpu_name, sessions_of
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.signature import takes
from onnxprune.progress import Progress, silent
from onnxprune.report.files import write
from onnxprune.report.jsonable import line
from onnxprune.report.tradeoff import Row, Sweep, Timing, Wanted, with_fronts
from onnxprune.report.tradeoff_page import tradeoff_html
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.latency import measure
from onnxprune.runtime.specs import model_inputs
from onnxprune.sweeps.grid import combinations, find_sources, read_names, read_targets
from onnxprune.sweeps.job import Job
from onnxprune.sweeps.options import Sweeping
from onnxprune.sweeps.store import TIMES, Store, key_of
from onnxprune.sweeps.workers import done

SECONDS = 1.0  # of one measurement, original and pruned network in turns


@takes("sweep")
def sweep(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], *,
    targets: str | Sequence[str], methods: str | Sequence[str] = "auto", jobs: int | None = None, backend: str = "loky",
    scheduler: str | None = None, min_accuracy: float | str | None = None, min_snr: float | None = None,
    latency: float | str | None = None, progress: Progress = silent, **options: Any,
) -> Sweep:  # fmt: skip
    """Prune networks to every target with every method, prove each outcome, and see which are worth their cost.

    What an earlier call has left whole in the folder is not done again (`sweeps.store`).  An error in one combination
    is told in its row.

    Args:
        sources: model files, and folders of them.
        folder: for models, plans, `results.jsonl` and `index.html`; workers elsewhere see it under the same path.
        targets: "macs=0.3:0.9:0.1" (first, last, step), "params=0.5,0.7", or several of them.
        methods: names of `onnxprune.criteria`, as "ncc,obs" or one by one.
        jobs, backend, scheduler: how many run at once on this machine (None: one for each core); or "dask" or "ray",
            and its address.
        min_accuracy, min_snr, latency: what the recommended cut of a network has to hold: the share of its first
            figure, dB, seconds (or "5ms").

    Raises:
        UsageError: options that make no sense, or a backend that is not installed.
        FileError: a network cannot be read, the folder cannot be written, or no scheduler answers.
        CheckFailed: workers die; what is done is kept.
    """
    asked = {
        "targets": targets, "methods": methods, "jobs": jobs, "backend": backend, "scheduler": scheduler,
        "min_accuracy": min_accuracy, "min_snr": min_snr, "latency": latency,
    }  # fmt: skip
    own = read_values(Sweeping, asked)
    _check_wishes(own, options)
    todo = combinations(find_sources(sources), read_targets(own.targets), read_names(own.methods), options)
    store = Store(Path(folder).absolute())
    store.create()
    return _swept(store, _jobs(todo, store), own, options, progress)


def _check_wishes(own: Sweeping, options: Mapping[str, Any]) -> None:
    """Raise UsageError, before any work, where no cut could show what the recommended one has to hold."""
    data = options.get("data") is not None or options.get("test_data") is not None
    if own.min_accuracy is not None and own.min_snr is not None:
        raise UsageError(f"{spelled('min_accuracy')} and {spelled('min_snr')} are two figures; give one")
    if own.min_accuracy is not None and not data:
        raise UsageError(
            f"{spelled('min_accuracy')} measures on data: give {spelled('data')} or {spelled('test_data')}"
        )
    unseen = "latency" if own.latency is not None else "min_snr" if own.min_snr is not None and not data else ""
    if unseen and not options.get("measure", True):
        raise UsageError(f"{spelled(unseen)} has to be measured: leave the measuring on")


def _swept(store: Store, planned: Sequence[Job], own: Sweeping, options: dict[str, Any], progress: Progress) -> Sweep:
    """Do what is missing, time what is there, and write the table and the page."""
    missing = [job for job in planned if not store.whole(job.key)]
    found = Sweep(
        str(store.folder), (), Wanted(own.min_accuracy, own.min_snr, own.latency), len(planned) - len(missing)
    )
    progress("sweep", 0, len(missing))
    try:
        for number, key in enumerate(done(missing, own.jobs, own.backend, own.scheduler), 1):
            progress(_told(store.row(key)), number, len(missing))
        rows = _rows(store, planned)
        if options.get("measure", True):
            rows = _timed(store, rows, planned, progress)
    except BaseException:  # Ctrl-C above all: what is there is told
        _publish(replace(found, rows=_rows(store, planned)))
        raise
    found = replace(found, rows=rows)
    _publish(found)
    return found


def _jobs(todo: Sequence[tuple[Path, Mapping[str, Any]]], store: Store) -> list[Job]:
    """The combinations as they travel; networks of one name are told apart by their paths."""
    names, found = _names([source for source, _ in todo]), []
    for source, options in todo:
        key = key_of(source, options)
        stem = "-".join((source.stem, options["target"].replace("=", "-"), options["method"], key[:8]))
        where = str(source.absolute()), names[source], stem
        found.append(Job(key, *where, options, str(store.folder), COMMAND_LINE.get()))
    return found


def _names(sources: Sequence[Path]) -> dict[Path, str]:
    """What the networks are called: their stems, and their whole paths where those are not all different."""
    different = list(dict.fromkeys(sources))
    stems = [p.stem for p in different]
    return {p: p.stem if stems.count(p.stem) == 1 else str(p) for p in different}


def _told(row: Row | None) -> str:
    if row is None:
        return "sweep"
    return f"sweep: {row.network} {row.target} {row.method}{' failed' if row.error else ''}"


def _rows(store: Store, planned: Sequence[Job]) -> tuple[Row, ...]:
    """What is there, in the order of the plan, with the fronts of each network."""
    return _ranked([row for job in planned if (row := store.row(job.key)) is not None])


def _ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    networks = keyed((row.network, row) for row in rows)
    return tuple(row for found in networks.values() for row in with_fronts(found))


def _timed(store: Store, rows: Sequence[Row], planned: Sequence[Job], progress: Progress) -> tuple[Row, ...]:
    """The rows with their latency, one after the other."""
    jobs, found = {job.key: job for job in planned}, []
    for number, row in enumerate(rows):
        progress(f"latency of {row.network} {row.target} {row.method}", number, len(rows))
        found.append(replace(row, latency=timed(store, row, jobs[row.key])))
    return _ranked(found)


def _publish(found: Sweep) -> None:
    """Write the table and the page, each in one step."""
    folder = Path(found.folder)
    rows = found.to_json()["rows"]
    write(str(folder / "results.jsonl"), "".join(line(row) + "\n" for row in rows))
    write(str(folder / "index.html"), tradeoff_html(found))


def timed(store: Store, row: Row, job: Job) -> Timing | None:
    """How fast a result is here, next to its original; what this machine has measured before is taken again.

    None where one of them cannot be run here.
    """
    if row.error or row.model is None:
        return None
    request = Request.of(job.options)
    key = _key(row, request)
    if (stored := store.get(key, TIMES)) is not None:
        return Timing(**stored)
    try:
        model = load(job.source).network
        shapes = {name: tuple(shape) for name, shape in (row.input_shapes or {}).items()}
        feed = random_inputs(model_inputs(model.graph), shapes, seed=request.seed)[0]
        sessions = sessions_of(model, load(store.folder / row.model).network, request)
        found = measure(sessions, feed, seconds=SECONDS)
    except OnnxPruneError:
        return None
    before, after = found["before"], found["after"]
    timing = Timing(before.median, after.median, after.low, after.high)
    store.put(key, asdict(timing), TIMES)
    return timing


def _key(row: Row, request: Request) -> str:
    """Digest of the result, the machine, and how it is run there."""
    import onnxruntime

    told = [row.key, row.sha256, cpu_name(), repr(request.providers), request.threads, onnxruntime.__version__]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
