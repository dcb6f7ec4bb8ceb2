"""Which launcher has started this process among others, and what a process alone does."""

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


def test_a_process_alone_is_the_first_and_fails_as_its_work_does():
    assert processes.is_first()
    assert processes.together(lambda: 3) == 3 and processes.all_well(True) and not processes.all_well(False)
    processes.check_same("anything")

    def fail() -> None:
        raise UserError("no room")

    with pytest.raises(UserError, match="no room"):
        processes.first_alone(fail)
