"""Two replicas take the steps of one: logical devices, and workers on loopback."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import config_from_dict, config_to_dict, config_to_yaml
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.cluster import Cluster
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.replicas import check_shared
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
#: A worker that a signal reaches after a step.
WORKER = """
import os, sys
from pixelnet_tf.training import loop
at, number, before = int(os.environ["AT_STEP"]), int(os.environ["SIGNAL"]), loop._Steps._step
def step(self, function):
    before(self, function)
    if self.done == at:
        os.kill(os.getpid(), number)
loop._Steps._step = step
from pixelnet_tf.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def shared_config(tiny_config):
    return config_from_dict(config_to_dict(tiny_config), overrides=SHARED)


@pytest.fixture(scope="module")
def by_one(tiny_study, shared_config, tmp_path_factory):
    """The weights that one device ends with."""
    folder = tmp_path_factory.mktemp("by_one")
    split = replace(tiny_study.split, validation=())
    return Trainer(shared_config, tiny_study, split, str(folder / "run")).run().get_weights()


def assert_close(run, weights, within=1e-6) -> None:
    for mine, theirs in zip(RunFolder(str(run)).model().get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=within)


def test_two_devices_end_with_the_weights_of_one(tiny_study, shared_config, by_one, tmp_path):
    """Gradients clipped, of two terms of the loss, of hard pixels and several mini-batches."""
    (tmp_path / "config.yaml").write_text(config_to_yaml(shared_config))
    subprocess.run([sys.executable, "-c", MIRRORED, tiny_study.path, tmp_path / "config.yaml",
                    tmp_path / "run"], check=True, capture_output=True)
    assert_close(tmp_path / "run", by_one)


def start(ports, number, arguments, at_step=-1, signal=9) -> subprocess.Popen:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    environment = {**os.environ, "AT_STEP": str(at_step), "SIGNAL": str(signal),
                   "TF_CONFIG": json.dumps({"cluster": {"worker": addresses},
                                            "task": {"type": "worker", "index": number}})}
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_lost_worker_ends_the_others_and_a_restart_goes_on_to_the_same_weights(
        tiny_study, shared_config, by_one, tmp_path):
    """On two workers, on two again, and then on one device."""
    (tmp_path / "config.yaml").write_text(config_to_yaml(shared_config))
    arguments = ["train", "--distribute", "multiworker", "--data", str(tiny_study.path), "--out",
                 str(tmp_path / "run"), "--config", str(tmp_path / "config.yaml"), "--resume"]
    ports = free_ports(2)

    def ends(*meet: tuple[int, int]) -> tuple[list[int], list[str]]:
        """Exit codes of both workers and what they said; each meets a signal after a step."""
        workers = [start(ports, number, arguments, *each) for number, each in enumerate(meet)]
        told = [worker.communicate(timeout=300)[0] for worker in workers]
        return [worker.returncode for worker in workers], told

    # The chief, whose loss is seen at once; that of another one, as soon as it is silent for long.
    codes, told = ends((10, 9), (-1, 9))
    assert codes == [-9, 5], told
    assert f"worker 0 (127.0.0.1:{ports[0]}) was lost" in told[1]
    run = RunFolder(str(tmp_path / "run"))
    assert run.state("last")["step"] == 5
    # SIGTERM of one: all stop after the same step, save, and ask to be started again.
    codes, told = ends((-1, 15), (13, 15))
    assert codes == [75, 75], told
    assert run.state("last")["step"] == 13
    Trainer(shared_config, tiny_study, tiny_study.split, run.path).run(resume=True)
    assert_close(run.path, by_one)


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
