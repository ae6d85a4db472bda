"""Two replicas take the steps of one: logical devices, and workers on loopback."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import (
    JOIN_SECONDS,
    Config,
    config_from_dict,
    config_to_dict,
    config_to_yaml,
)
from pixelnet_tf.errors import ConfigError, RunError
from pixelnet_tf.runs.cluster import Cluster
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.loop import Trainer, _Steps
from pixelnet_tf.training.replicas import Replicas, check_shared
from pixelnet_tf.training.share import drawn_rows

#: A part of everything that several replicas have to agree on.
SHARED = ["training.batch_slices=3", "training.steps=20", "training.checkpoint_every=5",
          "training.loss=cross_entropy_dice", "training.class_weights=[1, 2, 3, 1]",
          "training.solver.clip_gradients=0.5", "training.solver.iter_size=2",
          "training.average_weights=0.9", "model.dropout=0.3", "sampling.hard_pixels=0.5",
          "training.validate_every=100"]
MIRRORED = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from dataclasses import replace
from pixelnet_tf.config import load_config
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.replicas import Replicas
prepared, config, out = sys.argv[1:]
study = PreparedStudy.open(prepared)
replicas = Replicas(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
Trainer(load_config(config), study, replace(study.split, validation=()), out,
        replicas=replicas).run(resume=True)
"""
#: A worker that a signal reaches after a step, and that writes down the row of each record that it
#: really reads.
WORKER = """
import os, sys
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.training import loop
at, number, before = int(os.environ["AT_STEP"]), int(os.environ["SIGNAL"]), loop._Steps._step
def step(self, function):
    before(self, function)
    if self.done == at:
        os.kill(os.getpid(), number)
loop._Steps._step = step
read, log = PreparedStudy.read_record_bytes, open(os.environ["READS"], "a", buffering=1)
def reading(self, row):
    log.write(f"{row}\\n")
    return read(self, row)
PreparedStudy.read_record_bytes = reading
from pixelnet_tf.cli import main
main(sys.argv[1:])
"""
#: So many records lie at most between the last one of a step and the last one that a worker has
#: read ahead: those of a step at work, and of mini-batches that wait or are in the making.
AHEAD = 24


#: `training.seed` of two trainings. Where the largest of a pool's cells is so by less than
#: rounding, either may get the gradient: of 28 trainings of 20 steps, some with parts of the
#: processor's instructions, three met such a place, and their weights parted by 3e-6 to 2e-4.
DRAWS = (1, 3)


@pytest.fixture(scope="module")
def shared_config(tiny_config) -> Callable[[int], Config]:
    """The configuration of a draw."""
    return lambda draw: config_from_dict(config_to_dict(tiny_config),
                                         overrides=[*SHARED, f"training.seed={draw}"])


@pytest.fixture(scope="module")
def by_one(tiny_study, shared_config, tmp_path_factory) -> Callable[[int], list[np.ndarray]]:
    """The weights that one device ends with, of a draw."""
    @cache
    def train(draw: int) -> list[np.ndarray]:
        folder = tmp_path_factory.mktemp("by_one")
        split = replace(tiny_study.split, validation=())
        return Trainer(shared_config(draw), tiny_study, split,
                       str(folder / "run")).run().get_weights()

    return train


def assert_ends_alike(train: Callable[[int, Path], RunFolder], by_one, folder: Path,
                      within: float = 1e-6) -> None:
    """That a training (draw, folder) ends with the weights of one device.

    The second draw is asked where the first one parts, by a little; what replicas share wrongly
    parts both.
    """
    apart = []
    for draw in DRAWS:
        (folder / str(draw)).mkdir()
        run = train(draw, folder / str(draw))
        apart.append(max(float(np.abs(mine - theirs).max()) for mine, theirs in
                         zip(run.model().get_weights(), by_one(draw), strict=True)))
        assert apart[-1] < 1e-3
        if apart[-1] <= within:
            return
    pytest.fail(f"weights end {apart} apart")


def test_two_devices_end_with_the_weights_of_one(tiny_study, shared_config, by_one, tmp_path):
    """Gradients clipped, of two terms of the loss, of hard pixels and several mini-batches."""
    def train(draw: int, folder: Path) -> RunFolder:
        (folder / "config.yaml").write_text(config_to_yaml(shared_config(draw)))
        subprocess.run([sys.executable, "-c", MIRRORED, tiny_study.path, folder / "config.yaml",
                        folder / "run"], check=True, capture_output=True)
        return RunFolder(str(folder / "run"))

    assert_ends_alike(train, by_one, tmp_path)


class Group:
    """Two workers on loopback, each in a process of its own, that train one run.

    Args:
        folder: of the run and the configuration; `reads<number>` there lists the rows of the
            records that each worker has read, over all of its starts.
    """

    def __init__(self, study: str, config: Config, folder: Path):
        (folder / "config.yaml").write_text(config_to_yaml(config))
        self.run, self.folder = RunFolder(str(folder / "run")), folder
        self._arguments = [
            "train", "--distribute", "multiworker", "--data", study, "--out", self.run.path,
            "--config", str(folder / "config.yaml"), "--resume", "--join-seconds", "200"]
        with ExitStack() as held:
            self._addresses = [f"127.0.0.1:{held.enter_context(each).getsockname()[1]}" for each in
                               (socket.create_server(("127.0.0.1", 0)) for _ in range(2))]

    def name(self, number: int) -> str:
        return f"worker {number} ({self._addresses[number]})"

    def ends(self, *meet: tuple[int, int]) -> tuple[list[int], list[str]]:
        """Exit codes of both, and what they said; each meets a signal after a step."""
        workers = [self._start(number, *each) for number, each in enumerate(meet)]
        told = [worker.communicate(timeout=300)[0] for worker in workers]
        return [worker.returncode for worker in workers], told

    def reads(self) -> Counter[int]:
        """How often each record was read by either."""
        return sum((Counter(map(int, (self.folder / f"reads{number}").read_text().split()))
                    for number in range(2)), Counter())

    def _start(self, number: int, at_step: int, signal: int) -> subprocess.Popen:
        environment = {**os.environ, "AT_STEP": str(at_step), "SIGNAL": str(signal),
                       "READS": str(self.folder / f"reads{number}"),
                       "TF_CONFIG": json.dumps({"cluster": {"worker": self._addresses},
                                                "task": {"type": "worker", "index": number}})}
        return subprocess.Popen([sys.executable, "-c", WORKER, *self._arguments], env=environment,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


#: Of a worker that no signal reaches.
UNHARMED = (-1, 9)


def test_a_lost_worker_ends_the_others_and_a_restart_goes_on_to_the_same_weights(
        tiny_study, shared_config, by_one, tmp_path, monkeypatch):
    """On one device, on two workers, on two again, and then on one device."""
    def train(draw: int, folder: Path) -> RunFolder:
        config = shared_config(draw)
        group = Group(str(tiny_study.path), config, folder)
        alone = Trainer(config, tiny_study, tiny_study.split, group.run.path)
        step = _Steps._step

        def stopped(self, function):
            step(self, function)
            if self.done == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(_Steps, "_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            alone.run()
        monkeypatch.undo()
        # The chief, whose loss is seen at once; that of another one, as soon as it is silent for
        # long.
        codes, told = group.ends((10, 9), UNHARMED)
        assert codes == [-9, 5], told
        assert f"{group.name(0)} was lost" in told[1]
        assert group.run.state("last")["step"] == 5
        # Every record was read by one of the two, but for what was read ahead.
        rows = [alone.schedule.row(place) for place in range(3 * 6, 10 * 6 + AHEAD)]
        assert Counter(rows[:-AHEAD]) <= group.reads() <= Counter(rows)
        # SIGTERM of one: all stop after the same step, save, and ask to be started again.
        codes, told = group.ends(UNHARMED, (13, 15))
        assert codes == [75, 75], told
        assert group.run.state("last")["step"] == 13
        Trainer(config, tiny_study, tiny_study.split, group.run.path).run(resume=True)
        return group.run

    assert_ends_alike(train, by_one, tmp_path)


@pytest.mark.skipif("PIXELNET_SCALE" not in os.environ,
                    reason="waits for a worker that is silent; set PIXELNET_SCALE=1")
def test_a_lost_worker_that_is_not_the_chief_is_named_by_the_chief(
        tiny_study, shared_config, by_one, tmp_path):
    """And two workers end as one device does."""
    def train(draw: int, folder: Path) -> RunFolder:
        group = Group(str(tiny_study.path), shared_config(draw), folder)
        codes, told = group.ends(UNHARMED, (10, 9))
        assert codes == [5, -9], told
        assert f"{group.name(1)} was lost" in told[0]
        codes, told = group.ends(UNHARMED, UNHARMED)
        assert codes == [0, 0], told
        return group.run

    assert_ends_alike(train, by_one, tmp_path)


def test_workers_that_do_not_come_are_named(monkeypatch):
    """All but the one that listens."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        workers = ["127.0.0.1:9", f"127.0.0.1:{there.getsockname()[1]}", "127.0.0.1:19"]
        monkeypatch.setenv("TF_CONFIG", json.dumps(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}))
        with pytest.raises(RunError, match=(
                r"worker 0 \(127\.0\.0\.1:9\) waited 1 s for the others; no answer from worker 2 "
                r"\(127\.0\.0\.1:19\); .*--join-seconds")) as error:
            Replicas.of("multiworker", join_seconds=1)
    assert error.value.exit_code == 5
    assert "\n" not in str(error.value)
    assert JOIN_SECONDS < 30


@pytest.mark.parametrize(("text", "told"), [
    ("{", "is no JSON"),
    ("[]", "has no mapping 'cluster'"),
    ('{"cluster": {"worker": ["a:1"]}}', "has no mapping 'task'"),
    ('{"cluster": {"worker": ["a"]}, "task": {}}', "'a' under worker, which is no HOST:PORT"),
    ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {}}', "the address a:1 twice"),
    ('{"cluster": {"ps": ["a:1"]}, "task": {}}', "names the job 'ps'"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
     "the task 'chief', which is not among the jobs"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
     "the task worker 1, and its cluster has worker 0 to 0"),
])
def test_what_is_wrong_with_tf_config_is_said_in_a_line(text, told):
    with pytest.raises(ConfigError) as error:
        Cluster.here({"TF_CONFIG": text})
    assert told in str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


def test_a_wrong_tf_config_is_said_before_tensorflow_is_loaded():
    code = ("import sys\nfrom pixelnet_tf.api.study import make_trainer\n"
            "from pixelnet_tf.errors import ConfigError\ntry:\n"
            "    make_trainer('none', 'phantom', 'none', distribute='multiworker')\n"
            "except ConfigError as error:\n"
            "    print('is no JSON' in str(error), 'tensorflow' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TF_CONFIG": "{"},
                          capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_slurms_tasks_are_counted_as_slurm_counts_them():
    """A node of a higher number comes later, however its name is sorted."""
    cluster = Cluster.here({
        "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "node[9-10]", "SLURM_JOB_ID": "3",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)"})
    assert cluster.workers == ("node9:20048", "node9:20049", "node10:20048", "node10:20049")
    assert cluster.name == "worker 2 (node10:20048)"
    with pytest.raises(ConfigError, match="SLURM_PROCID is 4"):
        Cluster.here({"SLURM_PROCID": "4", "SLURM_STEP_NODELIST": "node[9-10]",
                      "SLURM_STEP_TASKS_PER_NODE": "2(x2)"})
    with pytest.raises(ConfigError, match="neither TF_CONFIG nor SLURM_PROCID"):
        Cluster.here({})


@pytest.mark.parametrize(("slices", "batch_norm", "told"), [
    (1, False, "cannot be shared by 2 replicas"),
    (2, True, "takes its statistics of the whole mini-batch"),
])
def test_what_replicas_cannot_share_is_refused(slices, batch_norm, told):
    with pytest.raises(ConfigError, match=told):
        check_shared(slices, batch_norm, 2)


def test_drawn_rows_are_those_of_the_whole():
    seed, width = tf.constant([1, -7]), 11
    bits = tf.random.stateless_uniform([(20 * width + 1) // 2], seed, None, None, tf.uint32)
    whole = tf.reshape(tf.bitcast(bits, tf.uint16), [-1]).numpy()[:20 * width].reshape(20, width)
    for rows in ([0], [5, 6, 7], [19], [3, 9, 4], []):
        found = drawn_rows(seed, tf.constant(rows, tf.int32), tf.constant(width))
        np.testing.assert_array_equal(found.numpy().reshape(-1, width), whole[rows])
