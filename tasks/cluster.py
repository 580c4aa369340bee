"""Which Dask cluster does the work, and how tasks hand pieces of work to it.

Prefect tasks run in threads of the flow's process and only wait; pieces (a sample, a batch of angles, a slab)
run as Dask futures. A Prefect task through Dask costs ten times what it costs through a thread, and a future
a hundredth of it (docs/decisions/0001-threads-and-futures.md).
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, as_completed
from distributed.scheduler import KilledWorker

from tomoforge.config import ClusterSettings
from tomoforge.errors import ConfigError, MissingComponentError, StageError

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

# One thread a worker process: numerical libraries must not multiply it, and results of a reduction must not
# depend on how many threads there are.
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_ONE_THREAD |= {"NUMBA_NUM_THREADS": "1", "NUMBA_THREADING_LAYER": "omp"}
# Without a dashboard the scheduler still answers HTTP, and on 8787 if not told otherwise, where the cluster of
# another flow may answer already.
_ANY_PORT = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
_CONNECT_S = 30  # patience with a scheduler that is starting up


class Compute:
    """A handle on the cluster that tasks pass their pieces of work to."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])  # without a number it tells of five

    def run(self, function: Callable[..., Any], *arguments: Any, timeout_s: float) -> Any:
        """Call ``function`` once on a worker and return its result."""
        return self.map(function, [arguments], timeout_s=timeout_s)[0]

    def map(
        self,
        function: Callable[..., Any],
        pieces: Sequence[tuple],
        *,
        timeout_s: float,
        progress: Progress | None = None,
    ) -> list[Any]:
        """Call ``function(*piece)`` for each piece on the workers; results in the order of ``pieces``.

        ``timeout_s`` is for all of them together. Raises what a piece raised, StageError when workers keep
        dying of it or the time is up; the pieces still waiting are then cancelled.
        """
        # pure=False: a piece writes files, it must run although an equal one ran before.
        futures = [self._client.submit(function, *piece, pure=False) for piece in pieces]
        try:
            for done, future in enumerate(self._completed(futures, function, timeout_s), start=1):
                if future.status == "error":
                    future.result()
                if progress is not None:
                    progress(done, len(futures))
            return [future.result() for future in futures]
        except KilledWorker as error:
            raise StageError(
                f"{function.__name__} killed its worker several times; it probably needs more memory than "
                "cluster.memory_limit allows, lower the grid or the batch"
            ) from error
        finally:
            self._client.cancel(futures, force=True)

    def _completed(
        self, futures: Sequence[Future], function: Callable[..., Any], timeout_s: float
    ) -> Iterator[Future]:
        # Caught here and not in ``map``: a TimeoutError that a piece itself raises is another matter.
        waiting = as_completed(futures, loop=self._client.loop, timeout=timeout_s)
        while True:
            try:
                future = next(waiting)
            except StopIteration:
                return
            except TimeoutError as error:
                raise StageError(f"{function.__name__} did not finish within {timeout_s:g} s") from error
            yield future


@contextlib.contextmanager
def open_compute(settings: ClusterSettings) -> Iterator[Compute]:
    """The cluster that ``settings`` choose, closed when the block ends (a scheduler by address is only left).

    Raises MissingComponentError if dask_cuda or a GPU is asked for and absent, StageError if no scheduler
    answers, ConfigError if its address cannot be used.
    """
    usual = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    environment = {name: str(value) for name, value in usual.items()} | _ONE_THREAD
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        contextlib.ExitStack() as stack,
    ):
        if settings.kind == "address":
            try:
                client = stack.enter_context(
                    Client(settings.address, timeout=_CONNECT_S, set_as_default=False)
                )
            except (OSError, TimeoutError) as error:
                raise StageError(f"no Dask scheduler answers at {settings.address}: {error}") from error
            except (TypeError, ValueError) as error:  # no port, unknown scheme, TLS without certificates
                raise ConfigError(f"cluster.address {settings.address!r} cannot be used: {error}") from error
        else:
            # Given back at once: numba in this process would take the workers' one thread for its own.
            with _environment(environment):
                cluster = stack.enter_context(
                    _closing(_cuda(settings) if settings.kind == "cuda" else _local(settings))
                )
            client = stack.enter_context(Client(cluster, set_as_default=False))
        yield Compute(client)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set ``variables`` in this process for the length of the block.

    Of what a nanny is to give to its worker it takes this process's own value where there is one, sets all of it here
    as well, and leaves it so.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _closing(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """Close ``cluster`` when the block ends; on a machine too busy for its workers to end in time, leave them to the
    end of this process: what they made is made."""
    try:
        yield cluster
    finally:
        try:
            cluster.close()
        except TimeoutError:
            log.warning("the cluster's workers did not end in time; they end with this process")


def _local(settings: ClusterSettings) -> LocalCluster:
    return LocalCluster(
        n_workers=settings.workers or len(os.sched_getaffinity(0)),
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs=_ANY_PORT,
        memory_limit=settings.memory_limit,
    )


def _cuda(settings: ClusterSettings) -> LocalCluster:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise MissingComponentError(
            "cluster.kind 'cuda' needs dask_cuda; install it with `make setup EXTRAS=gpu,train`, or choose 'local'"
        ) from error
    from tomoforge.backend import require_gpu

    require_gpu()
    return LocalCUDACluster(
        n_workers=settings.workers,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs=_ANY_PORT,
        memory_limit=settings.memory_limit,
    )
