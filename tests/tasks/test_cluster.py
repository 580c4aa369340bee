"""Pieces of work on a real local cluster of one worker; what is asked for and not there is told."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from distributed.scheduler import KilledWorker

from tasks import cluster
from tasks.cluster import Compute, open_compute
from tomoforge.config import ClusterSettings
from tomoforge.errors import ConfigError, InputError, MaterialError, MissingComponentError, StageError

PATIENCE_S = 60.0  # for a piece to come back; reached only by a failure


@pytest.fixture(scope="module")
def compute() -> Iterator[Compute]:
    with open_compute(ClusterSettings(workers=1, memory_limit="1GiB")) as opened:
        yield opened


def test_run__on_another_process_with_one_thread(compute: Compute) -> None:
    assert compute.workers == 1
    assert compute.run(os.getpid, timeout_s=PATIENCE_S) != os.getpid()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        assert compute.run(os.getenv, name, timeout_s=PATIENCE_S) == "1"


def test_open_compute__workers_too_slow_to_end_cost_a_warning_and_no_results(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = LocalCluster.close

    def too_slow(self: LocalCluster, *arguments: object, **options: object) -> None:
        closed(self, *arguments, **options)
        raise TimeoutError

    monkeypatch.setattr(LocalCluster, "close", too_slow)
    with open_compute(ClusterSettings(workers=1, memory_limit="1GiB")) as opened:
        found = opened.run(abs, -3, timeout_s=PATIENCE_S)
    assert found == 3
    assert "did not end in time" in caplog.text


def test_open_compute__leaves_the_environment_of_this_process_alone(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with open_compute(ClusterSettings(workers=1, memory_limit="1GiB")) as opened:
        assert {name: os.environ.get(name) for name in before} == before
        assert "NUMBA_NUM_THREADS" not in os.environ
        assert opened.run(os.getenv, "OMP_NUM_THREADS", timeout_s=PATIENCE_S) == "1"
    assert "NUMBA_NUM_THREADS" not in os.environ and os.environ["OMP_NUM_THREADS"] == "7"


def test_open_compute__answers_on_loopback_only_and_not_on_dasks_own_port(compute: Compute) -> None:
    """Two flows on one machine, or a Dask of somebody else's, must not meet."""
    info = compute._client.scheduler_info(n_workers=-1)
    addresses = [info["address"], *info["workers"]]
    assert all(address.startswith("tcp://127.0.0.1:") for address in addresses)
    assert info["services"]["dashboard"] != 8787


def late_first(n: int) -> int:
    time.sleep(0.3 if n == 0 else 0.0)
    return n


def test_map__results_in_the_order_of_the_pieces(compute: Compute) -> None:
    assert compute.map(late_first, [(n,) for n in range(6)], timeout_s=PATIENCE_S) == list(range(6))


def test_map__progress_counts_to_the_end(compute: Compute) -> None:
    seen: list[tuple[int, int]] = []
    compute.map(
        late_first, [(n,) for n in range(4)], timeout_s=PATIENCE_S, progress=lambda d, t: seen.append((d, t))
    )
    assert seen == [(n, 4) for n in range(1, 5)]


def test_map__nothing_to_do(compute: Compute) -> None:
    assert compute.map(late_first, [], timeout_s=PATIENCE_S) == []


def test_map__arrays_there_and_back(compute: Compute) -> None:
    array = np.random.default_rng(1).standard_normal((50, 40)).astype(np.float32)
    (back,) = compute.map(np.negative, [(array,)], timeout_s=PATIENCE_S)
    np.testing.assert_array_equal(back, -array)
    assert back.dtype == np.float32


def append(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def test_map__equal_pieces_are_all_done(compute: Compute, tmp_path: Path) -> None:
    """A piece writes files: it must not be taken for done because an equal one was."""
    file = tmp_path / "calls"
    for _ in range(2):
        compute.map(append, [(str(file),)] * 2, timeout_s=PATIENCE_S)
    assert file.read_text() == "xxxx"


def fail(error: type[Exception]) -> None:
    raise error("of the piece")


@pytest.mark.parametrize(
    "error", [InputError, MaterialError, StageError, ZeroDivisionError, TimeoutError, OSError]
)
def test_map__what_a_piece_raises_keeps_its_type(compute: Compute, error: type[Exception]) -> None:
    with pytest.raises(error, match="of the piece") as caught:
        compute.run(fail, error, timeout_s=PATIENCE_S)
    assert caught.type is error


def mark_then_fail(path: str, n: int) -> None:
    if n == 0:
        raise InputError("the first")
    time.sleep(0.5)
    Path(path, str(n)).touch()


def test_map__a_failure_cancels_what_still_waits(compute: Compute, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        compute.map(mark_then_fail, [(str(tmp_path), n) for n in range(40)], timeout_s=PATIENCE_S)
    # The worker is free at once, not after the 20 s that the others would take.
    compute.run(os.getpid, timeout_s=PATIENCE_S)
    assert len(list(tmp_path.iterdir())) < 20


def test_map__time_is_up(compute: Compute) -> None:
    with pytest.raises(StageError, match=r"sleep did not finish within 0.3 s"):
        compute.map(time.sleep, [(0.01,), (2.0,)], timeout_s=0.3)
    compute.run(os.getpid, timeout_s=PATIENCE_S)  # the cluster is still good


def test_map__dying_workers_are_told(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_, **__) -> Iterator:
        raise KilledWorker("piece", None, 3)  # type: ignore[arg-type]
        yield

    # Really killing workers three times takes their restarts, half a minute.
    monkeypatch.setattr(Compute, "_completed", killed)
    with pytest.raises(StageError, match=r"getpid killed its worker several times; .*memory_limit"):
        compute.run(os.getpid, timeout_s=PATIENCE_S)


def die_once(path: str) -> str:
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_map__a_piece_is_done_again_when_its_worker_dies_once(compute: Compute, tmp_path: Path) -> None:
    assert compute.run(die_once, str(tmp_path / "died"), timeout_s=PATIENCE_S) == "done"


def test_open_compute__by_address_leaves_the_scheduler_running(compute: Compute) -> None:
    address = compute._client.scheduler_info()["address"]
    with open_compute(ClusterSettings(kind="address", address=address)) as other:
        assert other.run(late_first, 7, timeout_s=PATIENCE_S) == 7
    assert compute.run(late_first, 8, timeout_s=PATIENCE_S) == 8


def test_workers__all_are_counted() -> None:
    """Dask tells of five workers unless asked for all."""

    class SchedulerOfSeven:
        def scheduler_info(self, n_workers: int = 5) -> dict:
            return {"workers": {n: {} for n in range(7 if n_workers == -1 else n_workers)}}

    assert Compute(SchedulerOfSeven()).workers == 7  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_open_compute__no_scheduler_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    with (
        pytest.raises(StageError, match=f"no Dask scheduler answers at {address}"),
        open_compute(ClusterSettings(kind="address", address=address)),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense://host:8786", "host-without-port", "tls://127.0.0.1:1"])
def test_open_compute__address_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    with (
        pytest.raises(ConfigError, match=f"cluster.address '{address}' cannot be used"),
        open_compute(ClusterSettings(kind="address", address=address)),
    ):
        pass


def test_open_compute__cuda_without_dask_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with (
        pytest.raises(MissingComponentError, match=r"needs dask_cuda; install it .* or choose 'local'"),
        open_compute(ClusterSettings(kind="cuda")),
    ):
        pass
