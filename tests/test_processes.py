"""Which launcher has started this process among others, and what a process alone does."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastbert_jax import processes
from fastbert_jax.config import ProcessesConfig
from fastbert_jax.errors import UserError


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, "Slurm"),
        ({"SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}, None),
        ({"SLURM_NTASKS": "8"}, None),  # in the batch script itself, before srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_launcher_is_told_by_its_variables(environment, launcher):
    assert processes.launcher_of(environment | {"JAX_PLATFORMS": "cpu"}) == launcher


def test_settings_come_all_or_none():
    with pytest.raises(UserError, match="--processes.coordinator, --processes.count, --processes.index: expected"):
        ProcessesConfig(count=2)
    with pytest.raises(UserError, match="--processes.index: expected below 2, found 2"):
        ProcessesConfig(coordinator="localhost:1", count=2, index=2)


@pytest.mark.parametrize("coordinator", ["x", "x:", ":8482", "x:0", "x:70000", "http://x:8482", "a b:8482", "::1:8482"])
def test_a_coordinator_that_is_no_address_is_refused(coordinator):
    with pytest.raises(
        UserError, match="--processes.coordinator: expected HOST:PORT of process 0, such as node-0:8482"
    ):
        ProcessesConfig(coordinator=coordinator, count=2, index=1)


@pytest.mark.parametrize("coordinator", ["node-0:8482", "10.0.0.1:1", "[::1]:8482", "job-0.svc.cluster.local:65535"])
def test_an_address_is_taken(coordinator):
    assert ProcessesConfig(coordinator=coordinator, count=2, index=1).coordinator == coordinator


@pytest.fixture
def port(monkeypatch) -> int:
    """A free one."""
    monkeypatch.setattr(processes, "RETRY_SECONDS", 0.05)
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def _meet(port: int, *, index: int, count: int = 2, host: str = "localhost", seconds: int = 60) -> str:
    """What is wrong as a process says it; empty: all have met."""
    config = ProcessesConfig(coordinator=f"{host}:{port}", count=count, index=index, wait_seconds=seconds)
    try:
        processes._meet(config)
    except UserError as error:
        return str(error)
    return ""


def _meet_all(*each: dict) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return [future.result() for future in [pool.submit(_meet, **settings) for settings in each]]


def test_processes_meet_whichever_starts_first_and_what_is_no_process_does_not_count(port, capsys):
    with ThreadPoolExecutor() as pool:
        early = [pool.submit(_meet, port, index=index, count=3) for index in (1, 2)]
        while "waiting up to 60 s for process 0 to answer" not in capsys.readouterr().err:
            pass
        late = pool.submit(_meet, port, index=0, count=3)
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert [future.result() for future in (*early, late)] == ["", "", ""]


def test_what_is_wrong_is_said_by_all(port):
    found = _meet_all(*({"port": port, "index": index, "count": 3} for index in (0, 1, 1)))
    assert found == ["processes: expected another --processes.index for each, found 1 twice"] * 3
    found = _meet_all({"port": port, "index": 0}, {"port": port, "index": 2, "count": 3})
    assert found == ["processes: expected one --processes.count in all, found 2 and 3"] * 2
    found = _meet_all(*({"port": port, "index": index, "count": 4, "seconds": 1} for index in (0, 2)))
    assert found[0] == (
        "processes: expected 4 processes within 1 s (--processes.wait-seconds), found none with --processes.index 1, 3"
    )


def test_a_coordinator_that_cannot_be_reached_ends_the_wait_with_its_reason(port, monkeypatch):
    assert "localhost:" in (words := _meet(port, index=1, seconds=1)) and "refused" in words
    with socket.create_server(("localhost", port)):
        words = _meet(port, index=0, seconds=1)
    assert f"expected port {port} of this host to be free within 1 s (--processes.wait-seconds), found: " in words

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    words = _meet(8482, index=1, host="nohost", seconds=1)
    assert words.startswith("--processes.coordinator nohost:8482: expected process 0 to answer within 1 s")
    assert words.endswith("Name or service not known")


def test_a_process_alone_is_the_first_and_fails_as_its_work_does():
    assert processes.is_first()
    assert processes.together(lambda: 3) == 3 and processes.all_well(True) and not processes.all_well(False)
    processes.check_same("anything")

    def fail() -> None:
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        processes.first_alone(fail)
