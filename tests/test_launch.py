"""What launch/ and docs/launch/ promise: files that parse, one command everywhere, and scripts that end as they say."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import scaling
from fastbert_jax.commands import train_arguments
from fastbert_jax.config import Precision, PrepareConfig
from fastbert_jax.text.prepare import prepare

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
PAGES = sorted((ROOT / "docs" / "launch").glob("*.md"))
TPU_PAGE, GPU_PAGE = ((ROOT / "docs" / "launch" / name).read_text() for name in ("tpu.md", "gpu.md"))
PROCESS_FLAGS = ("--processes.coordinator", "--processes.count", "--processes.index")

FAKE_SSH = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
shift  # the host
exec bash -c "$*"
"""
PROCESS = """
import os, signal, sys, time
index = int(sys.argv[sys.argv.index("--processes.index") + 1])
print(sys.argv[1:])
if sys.argv[1] == "sleep":
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.1 * index), os._exit(42)))
    print("ready", flush=True)
    time.sleep(60)
sys.exit(int(sys.argv[1].split(",")[index]))
"""


def train_command(text: str) -> list[str]:
    """The words after `python train.py` in a shell text, up to the end of the command."""
    text = text.replace("\\\n", " ")
    words = shlex.split(re.split(r"python train\.py", text, maxsplit=1)[1].splitlines()[0].split("'")[0])
    return [word for word in words if word != "..."]


def without_process_flags(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip or word in PROCESS_FLAGS:
            skip = not skip
        else:
            kept.append(word)
    return kept


def jobset() -> dict:
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def sky() -> dict:
    return yaml.safe_load((LAUNCH / "sky.yaml").read_text())


def jobset_container() -> dict:
    [job] = jobset()["spec"]["replicatedJobs"]
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    return container


def jobset_slice() -> str:
    [job] = jobset()["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]


def slurm_options() -> dict[str, str]:
    text = (LAUNCH / "slurm.sbatch").read_text()
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))


def the_command() -> list[str]:
    """The one command, as the page that all others point to has it."""
    return train_command((ROOT / "docs" / "launch" / "README.md").read_text())


def commands() -> dict[str, list[str]]:
    """Every train.py command of launch/ and docs/launch/, by where it stands."""
    found = {
        "jobset.yaml": jobset_container()["command"][2:],
        "sky.yaml": train_command(sky()["run"]),
        "slurm.sbatch": train_command((LAUNCH / "slurm.sbatch").read_text()),
    }
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for number, place in enumerate(re.finditer(r"python train\.py", text)):
            found[f"{page.name} {number}"] = train_command(text[place.start() :])
    return found


def test_every_launcher_runs_the_same_command() -> None:
    assert jobset_container()["command"][:2] == ["python", "train.py"]
    found = commands()
    assert len(found) >= 8
    for place, words in found.items():
        assert without_process_flags(words) == the_command(), place


@pytest.mark.parametrize("place", sorted(commands()))
def test_every_flag_is_one_of_train_py(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [word.replace("$SKYPILOT_NUM_NODES", "2") for word in commands()[place]]
    words = ["1" if word == "$SKYPILOT_NODE_RANK" else word for word in words]
    words = ["node-0:8482" if word.endswith("$SKYPILOT_NODE_IPS):8482") else word for word in words]
    settings = train_arguments(words).settings
    assert settings.run == "/shared/runs/reviews"
    assert settings.data.unlabelled == "prepared:/shared/corpora/english"


def devices_by_place() -> dict[str, int]:
    """How many devices each launcher takes."""
    rows, columns = map(int, jobset_slice().split("x"))
    slurm = {key: int(value) for key, value in slurm_options().items() if value.isdecimal()}
    _, gpus = sky()["resources"]["accelerators"].split(":")
    xpk = re.search(r"--tpu-type v5litepod-(\d+) ", TPU_PAGE)
    assert xpk is not None
    return {
        "jobset.yaml": rows * columns,
        "slurm.sbatch": slurm["nodes"] * slurm["gpus-per-node"],
        "sky.yaml": sky()["num_nodes"] * int(gpus),
        "tpu.md": int(xpk[1]),
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command names in `/shared`, tiny, and the repository's configs beside it."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "data").mkdir()
    texts = [f"{label}\ta {label} film, the {number}th of {label} ones" for number in range(40) for label in "abc"]
    (folder / "data" / "reviews.tsv").write_text("\n".join(["label\ttext", *texts]), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    prepare(PrepareConfig(input=(f"{folder}/texts.txt",), output=f"{folder}/corpora/english"))
    return folder


SLICES = re.findall(r"^\| (\d+) \| (\d+)x(\d+) \| (\d+) \| (\d+) \|$", TPU_PAGE, re.M)
"""Chips, the two sides, hosts and rows of a batch, as the page gives them for other slices."""


# All places have the same command, so one run for each number of devices stands for all places with it.
@pytest.mark.parametrize(
    "devices",
    [*sorted(set(devices_by_place().values())), *(pytest.param(other, marks=pytest.mark.slow) for other in (8, 256))],
)
def test_the_command_starts_on_the_devices_of_its_launcher(devices: int, shared: Path) -> None:
    words = [word.replace("/shared", str(shared)) for word in the_command()]
    if devices not in devices_by_place().values():  # a launcher's own size needs no other words
        words += [word for chips, *_, rows in SLICES if int(chips) == devices for word in ("--distil.batch-size", rows)]
    environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *words, "--dry-run"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=shared,
    )
    assert done.returncode == 0, done.stderr
    assert f"devices     {devices} data x 1 fsdp x 1 tensor\n" in done.stdout
    settings = train_arguments(words).settings
    assert f"1 x [{settings.distil.batch_size}, {scaling.ROW_LENGTH}]\n" in done.stdout
    assert not (shared / "runs").exists()


def test_the_pod_runs_what_the_costs_are_computed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = train_arguments(jobset_container()["command"][2:]).settings
    assert settings.distil.batch_size == scaling.ROWS_PER_CHIP * devices_by_place()["jobset.yaml"]
    assert "".join(SLICES[1][1:3]) == jobset_slice().replace("x", "")
    for chips, rows, columns, hosts, batch in (map(int, numbers) for numbers in SLICES):
        assert chips == rows * columns == hosts * scaling.CHIPS_PER_HOST and batch == scaling.ROWS_PER_CHIP * chips
    assert settings.data.max_length == scaling.ROW_LENGTH
    assert settings.model.precision is Precision.BFLOAT16
    assert settings.distil.pack and settings.distil.epochs == 1


def test_settings_that_the_pages_name_exist() -> None:
    for page in PAGES:
        for flag in re.findall(r"`--((?:mesh|processes|checkpoints|distil|data)\.[a-z_-]+)", page.read_text()):
            place = train_arguments([]).settings
            for name in flag.replace("-", "_").split("."):
                assert hasattr(place, name), f"{page.name}: --{flag}"
                place = getattr(place, name)


def test_the_module_that_prepares_a_corpus_exists() -> None:
    assert (ROOT / "fastbert_jax" / "text" / "prepare.py").exists()


def test_jobset_restarts_on_all_but_a_users_mistake() -> None:
    found = jobset()
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert re.fullmatch(r"[a-z0-9-]+", found["metadata"]["name"])
    policy = found["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["rules"] == [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]
    [job] = found["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == 1 and spec["backoffLimit"] == 0 and spec["completionMode"] == "Indexed"
    evicted, mistake = spec["podFailurePolicy"]["rules"]
    assert evicted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert mistake["action"] == "FailJob"
    container = jobset_container()["name"]
    assert mistake["onExitCodes"] == {"containerName": container, "operator": "In", "values": [2]}


def test_jobset_fills_its_slice_and_mounts_what_the_command_names() -> None:
    [job] = jobset()["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod, container = spec["template"]["spec"], jobset_container()
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy allows no other
    rows, columns = map(int, jobset_slice().split("x"))
    assert spec["parallelism"] == spec["completions"]
    assert spec["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns
    assert [port["containerPort"] for port in container["ports"]] == [8471, 8482]
    [mount] = container["volumeMounts"]
    [volume] = pod["volumes"]
    assert volume["name"] == mount["name"] and volume["persistentVolumeClaim"]["claimName"]
    paths = [word.removeprefix("prepared:") for word in container["command"] if "/shared" in word]
    assert len(paths) == 3 and all(path.startswith(mount["mountPath"] + "/") for path in paths)
    assert all(isinstance(word, str) for word in container["command"])


def test_the_share_and_its_pod_fit_the_jobset() -> None:
    claim, pod = yaml.safe_load_all((LAUNCH / "shared.yaml").read_text())
    [job] = jobset()["spec"]["replicatedJobs"]
    trains, container = job["template"]["spec"]["template"]["spec"], jobset_container()
    [shell] = pod["spec"]["containers"]
    assert (claim["kind"], claim["spec"]["accessModes"]) == ("PersistentVolumeClaim", ["ReadWriteMany"])
    [volume] = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert all(pod["spec"][key] == trains[key] for key in ("volumes", "securityContext"))
    assert all(shell[key] == container[key] for key in ("image", "volumeMounts"))
    assert {"name": "JAX_PLATFORMS", "value": "cpu"} in shell["env"]
    commands = "\n".join(line for line in TPU_PAGE.splitlines() if line.startswith("kubectl"))
    assert set(re.findall(r" (?:pod/)?([\w-]+)(?::/shared| -- | --timeout)", commands)) == {pod["metadata"]["name"]}


def test_the_page_makes_the_slice_that_the_jobset_takes() -> None:
    [job] = jobset()["spec"]["replicatedJobs"]
    chips, topology, nodes = re.search(
        r"--machine-type ct5lp-hightpu-(\d)t --tpu-topology (\w+) --num-nodes (\d+)", TPU_PAGE
    ).groups()
    assert int(chips) == jobset_container()["resources"]["limits"]["google.com/tpu"]
    assert topology == jobset_slice() and int(nodes) == job["template"]["spec"]["parallelism"]
    assert f"v5litepod-{int(chips) * int(nodes)} --version" in TPU_PAGE
    assert f"jobset-name={jobset()['metadata']['name']}," in TPU_PAGE
    [placeholder] = re.findall(r"sed -i \"s\|(\S+)\|\$IMAGE\|\" launch/jobset.yaml launch/shared.yaml", TPU_PAGE)
    assert placeholder == jobset_container()["image"]


def test_the_page_gives_the_job_of_sky_its_share() -> None:
    [placeholder] = re.findall(r"sed -i 's/(\S+)/ADDRESS/' launch/sky.yaml", GPU_PAGE)
    assert f" {placeholder}:/shared /shared\n" in sky()["setup"]


def test_sky_job_recovers_and_tells_each_node_its_place() -> None:
    found = sky()
    assert found["num_nodes"] == 2 and found["resources"]["use_spot"]
    assert found["resources"]["job_recovery"]["recover_on_exit_codes"] == [42]
    for name in re.findall(r"requirements[a-z-]*\.txt", found["setup"]):
        assert (ROOT / name).exists()
    for shell in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=found[shell], text=True, check=True)
    flags = subprocess.run(
        ["bash", "-euc", f"source() {{ :; }}\npython() {{ printf '%s\\n' \"$@\"; }}\n{found['run']}"],
        env=os.environ
        | {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert flags[-6:] == [PROCESS_FLAGS[0], "10.0.0.1:8482", PROCESS_FLAGS[1], "2", PROCESS_FLAGS[2], "1"]


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_dockerfiles_copy_what_exists_and_run_as_a_user(kind: str) -> None:
    lines = (LAUNCH / f"Dockerfile.{kind}").read_text().splitlines()
    instructions = [line.split() for line in lines if re.match(r"[A-Z]+ ", line)]
    copied = [word for name, *words in instructions if name == "COPY" for word in words[:-1]]
    assert {"train.py", "infer.py", "fastbert_jax", f"requirements-{kind}.txt"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for path in copied:
        assert (ROOT / path).exists() and path not in ignored
    installed = re.findall(r"requirements[a-z-]*\.txt", " ".join(line for line in lines if line.startswith("RUN")))
    assert set(installed) == {f"requirements-{kind}.txt", "requirements-data.txt"} <= set(copied)
    [base] = [words[0] for name, *words in instructions if name == "FROM"]
    assert ":" in base and not base.endswith(":latest")
    [user] = [words[0] for name, *words in instructions if name == "USER"]
    assert user != "root" and instructions[-1][0] == "CMD"


@pytest.mark.parametrize(("kind", "extras"), [("tpu", {"tpu"}), ("gpu", {"cuda12", "cuda13"})])
def test_accelerators_take_jax_from_the_same_range(kind: str, extras: set[str]) -> None:
    lines = [line for line in (ROOT / f"requirements-{kind}.txt").read_text().splitlines() if not line.startswith("#")]
    [jax] = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("jax>")]
    assert lines[0] == "-r requirements.txt"
    extra, versions = re.fullmatch(r"jax\[(\w+)\](.*)", lines[1]).groups()
    assert extra in extras and f"jax{versions}" == jax
    assert [re.split(">=", line)[0] for line in lines[2:]] == ["gcsfs", "s3fs"]  # gs:// and s3://, see docs/launch


@pytest.mark.parametrize("script", ["multi_vm.sh", "slurm.sbatch"])
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    assert (LAUNCH / script).read_text().startswith("#!/usr/bin/env bash\n")
    assert os.access(LAUNCH / script, os.X_OK)


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (42, True), (134, False)])
def test_slurm_script_requeues_after_a_save_alone(tmp_path: Path, code: int, requeued: bool) -> None:
    _executable(tmp_path / "srun", f'#!/usr/bin/env bash\necho "$*"\nexit {code}\n')
    _executable(tmp_path / "scontrol", f'#!/usr/bin/env bash\necho "$*" > {tmp_path}/requeued\n')
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    script = LAUNCH / "slurm.sbatch"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "python train.py" in done.stdout
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_slurm_script_has_a_process_per_gpu_and_is_warned() -> None:
    options = slurm_options()
    assert options["ntasks-per-node"] == options["gpus-per-node"]  # as JAX numbers them; see docs/launch/gpu.md
    assert "gpus-per-task" not in options and "requeue" in options
    name, seconds = options["signal"].split("@")
    assert name == "TERM" and int(seconds) >= 120


@pytest.mark.parametrize(
    ("codes", "expected"),
    [("0,0,0", 0), ("0,42,42", 42), ("42,2,0", 2), ("7,42,0", 42), ("0,9,7", 9), ("130,42,1", 130)],
)
def test_multi_vm_gathers_exit_codes(tmp_path: Path, codes: str, expected: int) -> None:
    done = subprocess.run(
        _multi_vm(tmp_path, codes, "two words"), capture_output=True, text=True, check=False, **_where(tmp_path)
    )
    assert done.returncode == expected, done.stderr
    hosts = ["user@a.example.com", "b.example.com", "c.example.com"]
    assert done.stderr.splitlines() == [
        f"{host}: exit code {code}" for host, code in zip(hosts, codes.split(","), strict=True)
    ]
    for index, host in enumerate(hosts):
        flags = [PROCESS_FLAGS[0], "a.example.com:8482", PROCESS_FLAGS[1], "3", PROCESS_FLAGS[2], str(index)]
        assert f"[{index} {host}] {[codes, 'two words', *flags]}" in done.stdout.splitlines()


def test_multi_vm_passes_sigterm_on_and_waits_for_all(tmp_path: Path) -> None:
    process = subprocess.Popen(
        _multi_vm(tmp_path, "sleep"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **_where(tmp_path)
    )
    assert process.stdout is not None
    ready, deadline = 0, time.monotonic() + 50
    while ready < 3 and time.monotonic() < deadline:
        ready += process.stdout.readline().strip().endswith("ready")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 42, errors
    assert errors.count("exit code 42") == 3


@pytest.mark.parametrize("arguments", [[], ["missing.txt", "true"], ["empty.txt", "true"]])
def test_multi_vm_refuses_what_it_cannot_start(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty.txt").write_text("# nobody\n")
    command = [LAUNCH / "multi_vm.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and ("usage" in done.stderr or "expected a host" in done.stderr)


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _multi_vm(tmp_path: Path, *words: str) -> list[str | Path]:
    (tmp_path / "hosts.txt").write_text(
        "user@a.example.com\n# not this one\n\nb.example.com\nc.example.com  # the last\n"
    )
    (tmp_path / "process.py").write_text(PROCESS)
    _executable(tmp_path / "ssh", FAKE_SSH)
    return [LAUNCH / "multi_vm.sh", "hosts.txt", sys.executable, "process.py", *words]


def _where(tmp_path: Path) -> dict:
    return {"cwd": tmp_path, "env": os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}}
