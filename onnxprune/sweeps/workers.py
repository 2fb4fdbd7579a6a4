"""Who does the work: processes of this machine, or the workers of Dask or Ray, all through joblib.

https://joblib.readthedocs.io/en/stable/parallel.html
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from onnxprune.errors import CheckFailed, FileError, UsageError, spelled
from onnxprune.runtime.engine import usable_cpus
from onnxprune.sweeps.job import Job, work

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
    import joblib

    local = min(workers or usable_cpus(), len(jobs))
    with _OPEN[backend](scheduler, local) as many:
        with joblib.parallel_config(backend=backend):
            parallel = joblib.Parallel(n_jobs=many, batch_size=1, return_as="generator_unordered")
        yield from parallel(joblib.delayed(work)(job) for job in jobs)


@contextmanager
def _loky(scheduler: str | None, workers: int) -> Iterator[int]:
    try:
        yield workers
    except BrokenExecutor as error:
        raise CheckFailed(LOST) from error


@contextmanager
def _dask(scheduler: str | None, workers: int) -> Iterator[int]:
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
            yield -1  # as many as the scheduler has
        except KilledWorker as error:  # several, at the same job
            raise CheckFailed(LOST) from error


@contextmanager
def _ray(scheduler: str | None, workers: int) -> Iterator[int]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'onnxprune[ray]'") from None
    register_ray()
    with ExitStack() as stack:
        if not ray.is_initialized():
            try:
                ray.init(address=scheduler, num_cpus=None if scheduler else workers, include_dashboard=False)
            except (ConnectionError, ValueError) as error:
                raise FileError(f"no Ray cluster answers at {scheduler!r}: {error}") from error
            stack.callback(ray.shutdown)
        yield int(ray.cluster_resources().get("CPU", workers))


_OPEN: dict[str, Callable[[str | None, int], AbstractContextManager[int]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
}
