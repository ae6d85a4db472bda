"""Replicas: devices of a machine, or of several, that train one network on parts of a mini-batch.

Every replica holds the whole network and its solver, and reads its own part of each mini-batch.
Gradients are those of the whole mini-batch's loss, added up over the replicas before the solver
clips and applies them, so that any number of replicas takes the same step, to rounding.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import tensorflow as tf

from pixelnet_tf.config import JOIN_SECONDS, Distribute, TrainingConfig
from pixelnet_tf.errors import ConfigError, RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.runs.cluster import Cluster
from pixelnet_tf.training.state import TrainingState

#: How long the workers of a group wait for a sign of life of one of them, in seconds.
SILENT_SECONDS = 20
#: Seconds until a worker that does not answer counts as gone, once a step has failed.
_ANSWER_SECONDS = 3.0
#: Seconds between two looks for one that is to come.
_POLL_SECONDS = 0.2

#: What a function is given or gives back in each replica of this process, in their order.
PerReplica = Sequence[Any]


class Replicas:
    """What a training asks of a strategy of `tf.distribute`.

    Args:
        strategy: with a replica for each device.
        cluster: the workers of several machines; None: all replicas are devices of this one.

    Attributes:
        count: replicas of all workers.
        local: the numbers of those of this process.
        chief: whether this process writes the run.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None):
        self.strategy, self.cluster = strategy, cluster
        self.count: int = strategy.num_replicas_in_sync
        workers, number = (1, 0) if cluster is None else (len(cluster.workers), cluster.number)
        each = self.count // workers
        self.local = range(number * each, (number + 1) * each)
        self.chief = number == 0
        # An argument is on no device, and TensorFlow asks for one.
        self._sum = self.function(lambda number: _context().all_reduce("SUM", tf.identity(number)))

    @classmethod
    def of(cls, how: str, join_seconds: int = JOIN_SECONDS, reporter: Reporter | None = None
           ) -> Replicas | None:
        """The replicas of `train --distribute`; None for a training on one device.

        It has to be asked before TensorFlow has done anything else.

        Args:
            join_seconds: how long workers that are not there yet are waited for.
            reporter: hears whom this process waits for.

        Raises:
            ConfigError: there is only one device to mirror on, or the workers are not told or told
                wrongly.
            RunError: the other workers did not come.
        """
        how = Distribute.of(how, "--distribute")
        if how == Distribute.MULTIWORKER:
            return cls._of_workers(Cluster.here(), join_seconds, reporter_or_log(reporter))
        if how == Distribute.NONE:
            return None
        devices = tf.config.list_logical_devices("GPU")
        if len(devices) > 1:
            return cls(tf.distribute.MirroredStrategy([device.name for device in devices]))
        if how == Distribute.MIRRORED:
            raise ConfigError(f"--distribute mirrored takes several GPUs, and TensorFlow sees "
                              f"{len(devices)} here", value=how.value,
                              hint="leave --distribute away; `pixelnet-tf info` lists the devices")
        return None

    @classmethod
    def _of_workers(cls, cluster: Cluster, join_seconds: int, reporter: Reporter) -> Replicas:
        from tensorflow.python.eager import context

        # The leader would wait for the others without end, and hear no signal meanwhile; they
        # listen as soon as they wait for the leader.
        if cluster.number == 0 and not _come(cluster, join_seconds, reporter):
            raise _absent(cluster, join_seconds)
        spec = tf.train.ClusterSpec(cluster.jobs)
        # The strategy would set the service up by itself, and wait for an hour for the others.
        leader = next(iter(cluster.jobs))
        context.context().configure_coordination_service(
            "standalone", service_leader=f"/job:{leader}/replica:0/task:0",
            cluster_register_timeout_in_ms=join_seconds * 1000,
            heartbeat_timeout_in_ms=SILENT_SECONDS * 1000,
            # Who has come to the end does not wait for the chief, who writes the run.
            shutdown_barrier_timeout_in_ms=0,
            # Its message is found there in every TensorFlow, whatever its own place.
            coordinated_jobs=[
                context.coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(of))
                for job, of in cluster.jobs.items()])
        gpus = len(tf.config.list_physical_devices("GPU"))
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            spec, task_type=cluster.job, task_id=cluster.task, rpc_layer="grpc",
            num_accelerators={"GPU": gpus})
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except tf.errors.DeadlineExceededError:
            raise _absent(cluster, join_seconds) from None
        except (tf.errors.OpError, RuntimeError) as error:
            told = str(getattr(error, "message", error)).splitlines()[0]
            raise RunError(f"{cluster.name} cannot join the other workers: {told}",
                           value=cluster.name, hint="see that its port is free, and that all "
                                                    "workers have the same TF_CONFIG") from None
        return cls(strategy, cluster)

    @property
    def own(self) -> str:
        """What messages call this process."""
        return "this process" if self.cluster is None else self.cluster.name

    def describe(self) -> str:
        """One sentence about them."""
        if self.cluster is None:
            return f"{self.count} replicas on this machine share each mini-batch"
        return (f"{self.count} replicas of {len(self.cluster.workers)} workers share each "
                f"mini-batch; this is {self.cluster.name}")

    def function(self, inside: Callable[..., Any]) -> Callable[[PerReplica], list[Any]]:
        """A `tf.function` that runs another one in every replica.

        It takes the arguments for each replica of this process, a tuple each, and returns what each
        of them returned.
        """
        @tf.function(reduce_retracing=True, autograph=False)
        def run(arguments: PerReplica) -> list[Any]:
            found = self.strategy.run(
                inside, args=self.strategy.experimental_distribute_values_from_function(
                    lambda about: arguments[about.replica_id_in_sync_group - self.local.start]))
            if found is None:
                return [None for _ in self.local]
            values = [self.strategy.experimental_local_results(value)
                      for value in tf.nest.flatten(found)]
            return [tf.nest.pack_sequence_as(found, [value[number] for value in values])
                    for number in range(len(self.local))]

        return run

    def state(self, model: PixelNet, training: TrainingConfig, new_layers: Collection[str],
              steps: int, scales: Mapping[str, float]) -> TrainingState:
        """The state of a training (`TrainingState`) that begins with a network's weights, in every
        replica of this process."""
        with self.strategy.scope():
            own = PixelNet(model.config, model.channels, model.classes, draw=False)
            own.set_weights(model.get_weights())
            state = TrainingState(own, training, new_layers, steps, scales=scales)
        state.plain = model
        return state

    def take_from_chief(self, variables: Sequence[tf.Variable]) -> None:
        """Give the variables of every worker the values that the chief's have."""
        if self.cluster is None:
            return

        def own() -> list[tf.Tensor]:
            first = _context().replica_id_in_sync_group == 0
            return [_context().all_reduce("SUM", tf.where(first, value, tf.zeros_like(value)))
                    for value in map(tf.convert_to_tensor, variables)]

        @tf.function(autograph=False)
        def share() -> None:
            for variable, value in zip(variables, self.strategy.run(own), strict=True):
                self.strategy.extended.update(variable, lambda mine, new: mine.assign(new),
                                              args=(value,), group=False)

        share()

    def sum(self, number: int) -> int:
        """The sum of a number that each worker names; all of them have to ask."""
        if self.cluster is None:
            return number
        found = self._sum([(tf.constant(number if place == 0 else 0),)
                           for place in range(len(self.local))])
        return int(found[0])

    def wait(self) -> None:
        """Wait until every worker has come to this point."""
        self.sum(0)

    def failure(self, error: tf.errors.OpError) -> RunError | None:
        """What to say of an error that came from another worker; None where it did not."""
        if self.cluster is None or not isinstance(error, (
                tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
                tf.errors.DeadlineExceededError, tf.errors.InternalError)):
            return None
        # The message may name one that only passes it on, and those that ended after the lost one
        # are silent, too.
        named, silent = self._named(str(error)), _silent(self.cluster)
        lost = [self.cluster.name_of(number) for number in
                sorted(named & silent or named or silent)]
        who = " and ".join(lost) or "another worker"
        return RunError(f"{who} was lost, and {self.cluster.name} cannot go on without it",
                        value=lost[0] if lost else None,
                        hint="start all workers again with --resume")

    def _named(self, text: str) -> set[int]:
        """Numbers of the other workers that TensorFlow's message speaks of."""
        assert self.cluster is not None
        found = {self.cluster.number_of(job, int(task))
                 for job, task in re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", text)}
        return found - {self.cluster.number}


def check_shared(slices: int, batch_norm: bool, replicas: int) -> None:
    """Raise `ConfigError` where a number of replicas cannot share mini-batches of so many slices,
    or a network with `model.batch_norm`."""
    if slices < replicas:
        raise ConfigError(f"training.batch_slices={slices} cannot be shared by {replicas} "
                          "replicas: each takes a slice at least", value=slices,
                          hint=f"set training.batch_slices={replicas} or more, or start fewer "
                               "replicas")
    if batch_norm:
        raise ConfigError("model.batch_norm takes its statistics of the whole mini-batch, and each "
                          "replica sees a part alone", value=True,
                          hint="train on one device (--distribute none), or without "
                               "model.batch_norm")


def _come(cluster: Cluster, seconds: int, reporter: Reporter) -> bool:
    """Wait until something listens at the addresses of all other workers; whether it does in time.
    """
    end, said = time.monotonic() + seconds, False
    while absent := _silent(cluster):
        if time.monotonic() > end:
            return False
        if not said:
            reporter.message(f"waiting for {len(absent)} of {len(cluster.workers)} workers, "
                             f"{seconds} s at most")
            said = True
        time.sleep(_POLL_SECONDS)
    return True


def _absent(cluster: Cluster, seconds: int) -> RunError:
    """What to say where workers did not come in time."""
    absent = [cluster.name_of(number) for number in sorted(_silent(cluster))]
    return RunError(
        f"{cluster.name} waited {seconds} s for the others; "
        + (f"no answer from {' and '.join(absent)}" if absent else "all of them came too late"),
        value=absent[0] if absent else None,
        hint="start all workers at the same time, with ports that are free and reachable, or give "
             "--join-seconds more where they come one by one")


def _silent(cluster: Cluster) -> set[int]:
    """Numbers of the other workers whose port does not answer."""
    others = [number for number in range(len(cluster.workers)) if number != cluster.number]
    with ThreadPoolExecutor(min(32, len(others) or 1)) as pool:
        answers = pool.map(_answers, [cluster.workers[number] for number in others])
    return {number for number, there in zip(others, answers, strict=True) if not there}


def _context() -> tf.distribute.ReplicaContext:
    return tf.distribute.get_replica_context()


def _answers(address: str) -> bool:
    """Whether anything listens at an address of the form HOST:PORT."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)),
                                                     timeout=_ANSWER_SECONDS):
        return True
    return False
