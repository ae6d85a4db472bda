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

import pytest

from tests.main_job import TINY, run_main

ROOT = Path(__file__).parents[2]
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
AuthInfo=socket={folder}/munge.socket
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


def job_script(words: str, **changes: str) -> str:
    """The script of docs/scale.md that holds some words, with the names of this test's folders."""
    blocks = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```", (ROOT / "docs" / "scale.md").read_text(
        encoding="utf-8"), re.MULTILINE | re.DOTALL)
    script, = (block for block in blocks if words in block)
    for old, new in changes.items():
        assert len(re.findall(old, script)) == 1, old
        script = re.sub(old, new, script)
    return script


def submit(environment: dict[str, str], folder: Path, script: str) -> None:
    """Have a script done by Slurm, to its end."""
    path = folder / "job.sh"
    path.write_text(script)
    job = told(environment, "sbatch", "--parsable", path, folder=folder)
    assert job.isdigit(), job
    deadline = time.monotonic() + 240
    while told(environment, "squeue", "-h", "-j", job):
        assert time.monotonic() < deadline, told(environment, "squeue")
        time.sleep(0.3)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.jsonl"}


def test_the_job_scripts_of_the_documentation(slurm, main_job, tmp_path):
    """Arrays of three tasks; `prepare --finish` follows the first."""
    for name in ("study", "prepared", "run"):
        (tmp_path / name).symlink_to(main_job / name, target_is_directory=True)
    settings = shlex.join(TINY)
    script = job_script(
        "pixelnet-tf prepare", **{"--array=1-[0-9]+": "--array=1-3", "source .*\n": "",
                                  "--cpus-per-task=[0-9]+": "--cpus-per-task=1",
                                  "--config brats2017": f"--config phantom {settings}",
                                  "--data BraTS17": "--data study",
                                  "--out prepared": "--out by_slurm"})
    submit(slurm, tmp_path, script)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert all(f"part {number}/3 is prepared" in logs for number in (1, 2, 3)), logs
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", tmp_path / "study",
                    "--out", tmp_path / "by_slurm", "--finish") == 0
    assert files(tmp_path / "by_slurm") == files(main_job / "prepared")
    script = job_script("pixelnet-tf predict", **{"--array=1-[0-9]+": "--array=1-3",
                                                  "--cpus-per-task=[0-9]+": "--cpus-per-task=1",
                                                  "source .*\n": ""})
    submit(slurm, tmp_path, script)
    assert run_main("predict", "--model", main_job / "run", "--data", main_job / "prepared",
                    "--out", tmp_path / "plain") == 0
    found, plain = files(tmp_path / "predictions"), files(tmp_path / "plain")
    # It names the run as it was given.
    assert found.pop("prediction.json")
    assert plain.pop("prediction.json")
    assert found == plain


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
