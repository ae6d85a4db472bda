"""The job scripts of docs/scale.md and `--scheduler slurm`, on a Slurm of one node.

It is started here, from Debian's slurm-wlm and munge, without a service manager. As its jobs take a
minute, PIXELNET_SLURM=1 asks for them (scripts/nightly.sh does).
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.runs.folder import RunFolder
from tests.main_job import TINY, run_main

ROOT = Path(__file__).parents[2]
SCRIPT = "#!/bin/bash\n"
DAEMONS = ("munged", "slurmctld", "slurmd")
TOOLS = (*DAEMONS, "sbatch", "srun", "squeue", "sinfo")
LACKING = [tool for tool in TOOLS if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")]
pytestmark = [
    pytest.mark.skipif(bool(LACKING), reason=f"needs Slurm (slurm-wlm, munge): no {LACKING}"),
    pytest.mark.skipif("PIXELNET_SLURM" not in os.environ,
                       reason="takes a minute; set PIXELNET_SLURM=1"),
]
CONFIGURATION = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of a user of a Slurm whose one node is this machine; `pixelnet-tf` is the
    product under test."""
    # A socket's path has 108 bytes at most.
    folder = Path(os.path.realpath(tmp_path_factory.mktemp("slurm")))
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(
        host=host, user=getpass.getuser(), folder=folder, ports=(free_port(), free_port()),
        cpus=os.cpu_count()))
    program = folder / "bin" / "pixelnet-tf"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pixelnet_tf "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"),
                   "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:/usr/sbin",
                   "PYTHONPATH": str(ROOT)}
    commands = {
        # Forced: the parents of the socket's folder are this user's alone.
        "munged": ["munged", "--foreground", "--force", f"--key-file={key}",
                   *(f"--{name}={folder}/munge.{name[:4]}" for name in
                     ("pid-file", "log-file", "seed-file")), f"--socket={folder}/munge.socket"],
        "slurmctld": ["slurmctld", "-D"], "slurmd": ["slurmd", "-D", "-N", host]}
    processes = []
    try:
        for name in DAEMONS:
            with open(folder / f"{name}.log", "wb") as log:
                processes.append(subprocess.Popen(commands[name], env=environment, stdout=log,
                                                  stderr=subprocess.STDOUT))
            time.sleep(0.5)
        deadline = time.monotonic() + 30
        while "idle" not in told(environment, "sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < deadline, "".join(
                (folder / f"{name}.log").read_text(errors="replace") for name in DAEMONS)
            time.sleep(0.2)
        yield environment
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def told(environment: dict[str, str], *command: object, folder: Path | None = None) -> str:
    return subprocess.run([str(word) for word in command], env=environment, cwd=folder,
                          capture_output=True, text=True, check=False, timeout=60).stdout.strip()


def block(start: str, words: str, **changes: str) -> str:
    """The lines of docs/scale.md that begin with something and hold some words, with the names of
    this test's folders."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "scale.md").read_text(
        encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found, = (each for each in blocks if each.startswith(start) and words in each)
    return substituted(found, **changes)


def substituted(text: str, **changes: str) -> str:
    """A text of the documentation with the names of this test's folders."""
    for old, new in changes.items():
        assert len(re.findall(old, text)) == 1, old
        text = re.sub(old, new, text)
    return text


def submit(environment: dict[str, str], folder: Path, lines: str) -> None:
    """Type some lines that submit jobs, and wait until Slurm has done all of them."""
    submitted = told(environment, "bash", "-ec", lines, folder=folder)
    assert re.search(r"Submitted batch job [0-9]+$", submitted), submitted
    deadline = time.monotonic() + 900
    while told(environment, "squeue", "-h"):
        assert time.monotonic() < deadline, told(environment, "squeue")
        time.sleep(0.3)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.jsonl"}


def test_the_job_scripts_of_the_documentation(slurm, main_job, tmp_path):
    """Arrays of three tasks; `prepare --finish` waits for the first one."""
    for name in ("study", "prepared", "run"):
        (tmp_path / name).symlink_to(main_job / name, target_is_directory=True)
    settings = shlex.join(TINY)
    folders = {"--config brats2017": f"--config phantom {settings}",
               "--data BraTS17": "--data study", "--out prepared": "--out by_slurm"}
    small = {"--array=1-[0-9]+": "--array=1-3", "source .*\n": "",
             "--cpus-per-task=[0-9]+": "--cpus-per-task=1"}
    (tmp_path / "prepare.sh").write_text(block(SCRIPT, "pixelnet-tf prepare", **small, **folders))
    submit(slurm, tmp_path, block("job=", "--finish", **folders))
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert all(f"part {number}/3 is prepared" in logs for number in (1, 2, 3)), logs
    assert files(tmp_path / "by_slurm") == files(main_job / "prepared")
    (tmp_path / "predict.sh").write_text(block(SCRIPT, "pixelnet-tf predict", **small))
    submit(slurm, tmp_path, "sbatch predict.sh")
    assert run_main("predict", "--model", main_job / "run", "--data", main_job / "prepared",
                    "--out", tmp_path / "plain") == 0
    found, plain = files(tmp_path / "predictions"), files(tmp_path / "plain")
    # It names the run as it was given.
    assert found.pop("prediction.json")
    assert plain.pop("prediction.json")
    assert found == plain


#: The product, whose second task gets Slurm's notice after the second step of its first start.
NOTICED = f"""\
#!{sys.executable}
import os, signal
from pathlib import Path
from pixelnet_tf.training import loop
before, there = loop._Steps._step, Path("noticed")
def step(self, function):
    before(self, function)
    if self.done == 2 and os.environ["SLURM_PROCID"] == "1" and not there.exists():
        there.touch()
        os.kill(os.getpid(), signal.SIGTERM)
loop._Steps._step = step
from pixelnet_tf.cli import main
main()
"""


def test_a_training_on_several_tasks_is_put_back_into_the_queue_and_goes_on(
        slurm, main_job, tmp_path):
    """Two tasks of one node; the job that was put back ends with the weights of one process."""
    program = tmp_path / "bin" / "pixelnet-tf"
    program.parent.mkdir()
    program.write_text(NOTICED)
    program.chmod(0o755)
    (tmp_path / "prepared").symlink_to(main_job / "prepared", target_is_directory=True)
    settings = shlex.join([*TINY, "--set=training.steps=5"])
    (tmp_path / "train.sh").write_text(block(SCRIPT, "pixelnet-tf train", **{
        "--nodes=2": "--nodes=1", "--ntasks-per-node=1": "--ntasks-per-node=2",
        "#SBATCH --gpus-per-task=1\n": "", "--config lgg": f"--config phantom {settings}"}))
    submit({**slurm, "PATH": f"{program.parent}:{slurm['PATH']}"}, tmp_path, "sbatch train.sh")
    output, = tmp_path.glob("slurm-*.out")
    logged = output.read_text()
    assert (tmp_path / "noticed").exists(), logged
    assert "stopped; the state after step 2 is saved" in logged
    assert "going on from step 2 of 5" in logged
    assert run_main("train", "--config", "phantom", *TINY, "--set=training.steps=5", "--data",
                    main_job / "prepared", "--out", tmp_path / "plain") == 0
    for mine, theirs in zip(RunFolder(str(tmp_path / "run")).model().get_weights(),
                            RunFolder(str(tmp_path / "plain")).model().get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


def test_workers_that_are_jobs_of_slurm(slurm, main_job, tmp_path, monkeypatch):
    for name in ("SLURM_CONF", "PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, slurm[name])
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "jobqueue.yaml").write_text(
        "jobqueue:\n  slurm:\n    cores: 1\n    memory: 2GB\n    queue: all\n"
        f"    walltime: '00:10:00'\n    log-directory: {tmp_path}\n")
    call = [sys.executable, "-m", "pixelnet_tf", "prepare", "--config", "phantom", *TINY,
            "--data", main_job / "study", "--out", tmp_path / "out", "--scheduler", "slurm:2"]
    done = subprocess.run([str(word) for word in call], capture_output=True, text=True, timeout=240,
                          env={**slurm, "DASK_CONFIG": str(tmp_path / "dask")}, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 jobs of Slurm are asked for" in done.stderr
    assert files(tmp_path / "out") == files(main_job / "prepared")
    # Its jobs end with it.
    deadline = time.monotonic() + 30
    while told(slurm, "squeue", "-h"):
        assert time.monotonic() < deadline, told(slurm, "squeue")
        time.sleep(0.3)
