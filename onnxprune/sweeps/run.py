"""A sweep: all combinations of networks, targets and methods, and what becomes of each."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxprune.errors import COMMAND_LINE, UsageError
from onnxprune.pipeline.progress import Progress, silent
from onnxprune.pipeline.share import share
from onnxprune.report.files import write
from onnxprune.report.jsonable import line
from onnxprune.report.tradeoff import Row, Sweep, Wanted, with_fronts
from onnxprune.report.tradeoff_page import tradeoff_html
from onnxprune.sweeps.grid import Combination, combinations, find_sources, read_names, read_targets
from onnxprune.sweeps.job import Job
from onnxprune.sweeps.keys import key_of
from onnxprune.sweeps.store import Store
from onnxprune.sweeps.timing import timed
from onnxprune.sweeps.workers import done

Path_ = str | os.PathLike[str]


def sweep(
    sources: Path_ | Iterable[Path_],
    folder: Path_,
    *,
    targets: str | Iterable[str],
    methods: str | Iterable[str] = "auto",
    jobs: int | None = None,
    backend: str = "loky",
    scheduler: str | None = None,
    min_accuracy: float | str | None = None,
    min_snr: float | None = None,
    latency: float | str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Sweep:
    """Prune networks to every target with every method, prove each outcome, and see which are worth their cost.

    What an earlier call has left whole in the folder is not done again: a result is kept under a digest of the
    network, the data, the options and the versions.  An error in one combination is told in its row.

    Args:
        sources: model files, and folders of them.
        folder: for the models with their plans, `results.jsonl` and `index.html`; workers on other machines have to
            see it, the networks and the data under the same paths.
        targets: "macs=0.3:0.9:0.1" (first, last, step), "params=0.5,0.7", or several of them.
        methods: names of `onnxprune.criteria`, as "ncc,obs" or one by one.
        jobs: how many run at once on this machine; None: as many as it has cores.
        backend: "loky" (processes of this machine), "dask" or "ray"; `scheduler` is the address of theirs.
        min_accuracy, min_snr, latency: what the recommended cut of a network has to hold: the share of its first
            figure, the signal to noise in dB, the time of one run (seconds, or "5ms").
        progress: called with (what is done, how far, of how much).
        options: fields of `Request`, but for the budgets and what is for one run.

    Raises:
        UsageError: options that make no sense, or a backend that is not installed.
        FileError: a network cannot be read, the folder cannot be written, or no scheduler answers.
    """
    wanted = Wanted(
        None if min_accuracy is None else share(min_accuracy, "the least accuracy"), min_snr, seconds(latency)
    )
    found = find_sources(sources)
    todo = combinations(found, read_targets(targets), read_names(methods), options)
    store = Store(Path(folder).absolute())
    store.create()
    planned = _jobs(todo, store)
    missing = [job for job in planned if not store.whole(job.key)]
    progress("sweep", 0, len(missing))
    try:
        for number, key in enumerate(done(missing, jobs, backend, scheduler), 1):
            progress(_told(store.row(key)), number, len(missing))
    except BaseException:  # Ctrl-C above all: what is there is told
        _publish(Sweep(str(store.folder), _rows(store, planned), wanted))
        raise
    rows = _rows(store, planned)
    if options.get("measure", True):
        rows = _timed(store, rows, planned, options, progress)
    outcome = Sweep(str(store.folder), rows, wanted, len(planned) - len(missing))
    _publish(outcome)
    return outcome


def seconds(given: float | str | None) -> float | None:
    """From 0.005, "5ms", "0.005s" or "500us" to seconds.  Raises UsageError."""
    if given is None:
        return None
    text = str(given).strip().lower().replace("µ", "u")
    unit = next((u for u in ("ms", "us", "s") if text.endswith(u)), "")
    try:
        value = float(text.removesuffix(unit)) * {"ms": 1e-3, "us": 1e-6}.get(unit, 1.0)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"a latency looks like 5ms, and not {given!r}")
    return value


def _jobs(todo: Sequence[Combination], store: Store) -> list[Job]:
    """The combinations as they travel; networks of one name are told apart by their paths."""
    names = _names([c.source for c in todo])
    found = []
    for combination in todo:
        key, name = key_of(combination), names[combination.source]
        words = (combination.source.stem, combination.target.replace("=", "-"), combination.method, key[:8])
        where = str(combination.source.absolute()), name, "-".join(words)
        what = combination.target, combination.method, combination.options
        found.append(Job(key, *where, *what, str(store.folder), COMMAND_LINE.get()))
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
    networks: dict[str, list[Row]] = {}
    for row in rows:
        networks.setdefault(row.network, []).append(row)
    return tuple(row for found in networks.values() for row in with_fronts(found))


def _timed(
    store: Store, rows: Sequence[Row], planned: Sequence[Job], options: dict[str, Any], progress: Progress
) -> tuple[Row, ...]:
    """The rows with their latency, one after the other."""
    sources = {job.key: Path(job.source) for job in planned}
    how = options.get("providers", "auto"), options.get("threads"), options.get("seed", 0)
    found = []
    for number, row in enumerate(rows):
        progress(f"latency of {row.network} {row.target} {row.method}", number, len(rows))
        found.append(replace(row, latency=timed(store, row, sources[row.key], *how)))
    return _ranked(found)


def _publish(found: Sweep) -> None:
    """Write the table and the page, each in one step."""
    folder = Path(found.folder)
    rows = found.to_json()["rows"]
    write(str(folder / "results.jsonl"), "".join(line(row) + "\n" for row in rows))
    write(str(folder / "index.html"), tradeoff_html(found))
