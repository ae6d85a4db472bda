"""The workers of a training on several machines, as TF_CONFIG or Slurm tells of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelnet_tf.errors import ConfigError, nearest_hint, shown

#: Jobs that a worker may have; the chief writes the run, and without one the first worker does.
_JOBS = ("chief", "worker")
#: Ports of Slurm's tasks: from the first one on, by the number of the job, and one for each task of
#: a node from there on.
_FIRST_PORT, _PORTS, _STEP = 20000, 1000, 16
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


@dataclass(frozen=True)
class Cluster:
    """Workers that train together, and which of them this process is.

    Attributes:
        jobs: `chief`, where there is one, and `worker` -> addresses HOST:PORT.
        job, task: of this process.

    Examples
    --------
    >>> cluster = Cluster.here({"TF_CONFIG": '{"cluster": {"worker": ["a:2222", "b:2222"]},'
    ...                         ' "task": {"type": "worker", "index": 1}}'})
    >>> cluster.name, cluster.number
    ('worker 1 (b:2222)', 1)
    """

    jobs: Mapping[str, tuple[str, ...]]
    job: str
    task: int

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> Cluster:
        """The cluster that TF_CONFIG describes or, without it, the tasks of Slurm's job step.

        Raises:
            ConfigError: neither is there, or what they say makes no cluster.
        """
        environment = os.environ if environment is None else environment
        if "TF_CONFIG" in environment:
            return _of_tf_config(environment["TF_CONFIG"])
        if "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment:
            return _of_slurm(environment)
        raise ConfigError("--distribute multiworker needs TF_CONFIG or a job step of Slurm, and "
                          "finds neither TF_CONFIG nor SLURM_PROCID in the environment",
                          hint="start each worker with its TF_CONFIG, or all of them by srun (see "
                               "docs/scale.md)")

    @property
    def workers(self) -> tuple[str, ...]:
        """Addresses of all, the chief's first."""
        return tuple(address for job in _JOBS for address in self.jobs.get(job, ()))

    @property
    def number(self) -> int:
        """Place of this process among `workers`."""
        return self.number_of(self.job, self.task)

    @property
    def name(self) -> str:
        """What messages call this process."""
        return self.name_of(self.number)

    def number_of(self, job: str, task: int) -> int:
        """Place of a task among `workers`."""
        return task + (len(self.jobs.get("chief", ())) if job == "worker" else 0)

    def name_of(self, number: int) -> str:
        """What messages call a worker."""
        return f"worker {number} ({self.workers[number]})"


def _of_tf_config(text: str) -> Cluster:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        raise _wrong(f"is no JSON ({told}): {shown(text)}", text) from None
    cluster, task = (_mapping(tree, key) for key in ("cluster", "task"))
    if strange := [job for job in cluster if job not in (*_JOBS, "evaluator")]:
        raise _wrong(f"names the job {shown(strange[0])}{nearest_hint(str(strange[0]), _JOBS)}; "
                     f"a training has {' and '.join(_JOBS)}", strange[0])
    jobs = {job: _addresses(job, cluster[job]) for job in _JOBS if cluster.get(job)}
    if not jobs:
        raise _wrong("names no worker under cluster", cluster)
    if len(jobs.get("chief", ())) > 1:
        raise _wrong("names several chiefs, and one writes the run", len(jobs["chief"]))
    addresses = [address for each in jobs.values() for address in each]
    if len(set(addresses)) < len(addresses):
        twice = next(each for each in addresses if addresses.count(each) > 1)
        raise _wrong(f"names the address {twice} twice", twice)
    job, index = task.get("type"), task.get("index")
    if job not in jobs:
        raise _wrong(f"names the task {shown(job)}, which is not among the jobs of its cluster, "
                     f"{list(jobs)}", job)
    # A number in quotation marks is taken by TensorFlow, too.
    number = int(index) if isinstance(index, str) and re.fullmatch("[0-9]{1,6}", index) else index
    count = len(jobs[job])
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise _wrong(f"names the task {job} {shown(index)}, and its cluster has {job} 0 to "
                     f"{count - 1}", index)
    return Cluster(jobs, job, number)


def _mapping(tree: Any, key: str) -> Mapping[str, Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise _wrong(f"has no mapping {key!r}: {shown(tree)}", found)
    return found


def _addresses(job: str, found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise _wrong(f"must list the addresses of {job}, got {shown(found)}", found)
    for address in found:
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if match is None or not 0 < int(match[2]) < 2**16:
            raise _wrong(f"names {shown(address)} under {job}, which is no HOST:PORT", address)
    return tuple(found)


def _wrong(what: str, value: Any) -> ConfigError:
    return ConfigError(f"TF_CONFIG {what}", value=value, hint=(
        'set it as in {"cluster": {"worker": ["node1:2222", "node2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'))


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import (
        expand_hostlist,
        expand_tasks_per_node,
    )

    names = ("SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_PROCID")
    try:
        hosts, tasks = (expand(environment[name]) for name, expand in zip(
            names, (expand_hostlist, expand_tasks_per_node), strict=False))
        rank, job = int(environment[names[2]]), int(environment.get("SLURM_JOB_ID", "0"))
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigError(f"Slurm's variables {', '.join(names)} do not tell the job step's tasks: "
                          f"{type(error).__name__} {error}",
                          hint="start the workers by srun, or set TF_CONFIG") from None
    # In the order in which Slurm counts tasks. SlurmClusterResolver itself sorts node10 before
    # node9, and so gives tasks the addresses of others.
    port = _FIRST_PORT + job % _PORTS * _STEP
    addresses = tuple(f"{host}:{port + task}" for host, count in zip(hosts, tasks, strict=False)
                      for task in range(count))
    if not 0 <= rank < len(addresses):
        raise ConfigError(f"SLURM_PROCID is {rank}, and the job step has {len(addresses)} tasks "
                          f"({environment[names[0]]}, {environment[names[1]]})", value=rank,
                          hint="start the workers by srun, or set TF_CONFIG")
    return Cluster({"worker": addresses}, "worker", rank)
