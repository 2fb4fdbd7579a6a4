"""Who does the work: processes of this machine or the workers of Dask, both through joblib, or those of Ray.

https://joblib.readthedocs.io/en/stable/parallel.html
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from onnxprune.errors import CheckFailed, FileError, UsageError, spelled
from onnxprune.runtime.engine import usable_cpus
from onnxprune.sweeps.job import Job, work

Keys = Callable[[Sequence[Job]], Iterator[str]]  # does jobs, and gives their keys as they are done

SECONDS = 20  # to wait for a scheduler
LOST = "a worker died, perhaps for lack of memory: run fewer jobs at once; the same call goes on where this one stopped"


def done(jobs: Sequence[Job], workers: int | None, backend: str, scheduler: str | None) -> Iterator[str]:
    """Do the jobs, so many at once; gives their keys as they are done.

    Raises:
        UsageError: a backend that is not installed, or has no scheduler.
        FileError: the scheduler cannot be reached.
        CheckFailed: workers die.
    """
    if scheduler is not None and backend == "loky":
        raise UsageError(f"{spelled('scheduler')} is for {spelled('backend')} dask or ray")
    if not jobs:
        return
    with _OPEN[backend](scheduler, min(workers or usable_cpus(), len(jobs))) as keys:
        yield from keys(jobs)


def _by_joblib(backend: str, many: int) -> Keys:
    """Through joblib; -1 for as many at once as the backend has workers."""
    import joblib

    with joblib.parallel_config(backend=backend):
        parallel = joblib.Parallel(n_jobs=many, batch_size=1, return_as="generator_unordered")
    return lambda jobs: parallel(joblib.delayed(work)(job) for job in jobs)


@contextmanager
def _loky(scheduler: str | None, workers: int) -> Iterator[Keys]:
    try:
        yield _by_joblib("loky", workers)
    except BrokenExecutor as error:
        raise CheckFailed(LOST) from error


@contextmanager
def _dask(scheduler: str | None, workers: int) -> Iterator[Keys]:
    try:
        from dask.distributed import Client, KilledWorker, LocalCluster
    except ImportError:
        raise UsageError("Dask is not installed: pip install 'onnxprune[dask]'") from None
    with ExitStack() as stack:
        address: Any = scheduler
        if scheduler is None:
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            address = stack.enter_context(cluster)
        try:
            stack.enter_context(Client(address, timeout=SECONDS))
        except (OSError, ValueError) as error:  # a TimeoutError is the former
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FileError(f"no Dask scheduler answers at {scheduler!r}: {reason}") from error
        try:
            yield _by_joblib("dask", -1)
        except KilledWorker as error:  # several, at the same job
            raise CheckFailed(LOST) from error


@contextmanager
def _ray(scheduler: str | None, workers: int) -> Iterator[Keys]:
    """Without joblib, to which Ray's own backend hands nothing back before all is done.  What a worker that dies was
    doing Ray does again, three times at most."""
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'onnxprune[ray]'") from None
    with ExitStack() as stack:
        if not ray.is_initialized():
            options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            try:
                ray.init(address=scheduler, num_cpus=None if scheduler else workers, **options)
            except (ConnectionError, ValueError) as error:
                raise FileError(f"no Ray cluster answers at {scheduler!r}: {error}") from error
            stack.callback(ray.shutdown)

        def keys(jobs: Sequence[Job]) -> Iterator[str]:
            at_work = [ray.remote(work).remote(job) for job in jobs]
            while at_work:
                ready, at_work = ray.wait(at_work)
                yield from ray.get(ready)

        try:
            yield keys
        except ray.exceptions.RayError as error:
            raise CheckFailed(LOST) from error


_OPEN: dict[str, Callable[[str | None, int], AbstractContextManager[Keys]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
}
