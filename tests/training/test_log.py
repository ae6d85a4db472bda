"""What a run says of itself, and what a resume cuts off."""

import csv
import json
import sys

import pytest
import tensorflow as tf

from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.log import COLUMNS, TrainingLog


def board_scalars(folder) -> dict[tuple[int, str], float]:
    """Every scalar of the TensorBoard files, as TensorBoard itself reads them."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found[event.step, value.tag] = value.simple_value
    return found


def test_the_same_rows_in_every_form(tmp_path):
    log = TrainingLog(str(tmp_path), columns=("validation/dice_a",))
    log.write(step=5, loss=0.5, learning_rate=0.25, epoch=0.1, slices_per_second=3.0)
    log.write(step=5, **{"validation/dice_a": 0.75})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == log.rows == RunFolder(str(tmp_path)).log_rows()
    assert [row["step"] for row in rows] == [5, 5]
    assert rows[0]["loss"] == 0.5
    with open(tmp_path / "log.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [*COLUMNS, "validation/dice_a"]
    assert (table[0]["loss"], table[0]["validation/dice_a"]) == ("0.5", "")
    assert (table[1]["loss"], table[1]["validation/dice_a"]) == ("", "0.75")
    scalars = board_scalars(tmp_path / "tensorboard")
    assert scalars == {(5, "loss"): 0.5, (5, "learning_rate"): 0.25,
                       (5, "epoch"): pytest.approx(0.1), (5, "slices_per_second"): 3.0,
                       (5, "validation/dice_a"): 0.75}


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    log = TrainingLog(str(tmp_path))
    log.write(step=1, loss=float("nan"), learning_rate=0.5)
    log.close()
    row, = RunFolder(str(tmp_path)).log_rows()
    assert "loss" not in row
    assert row["learning_rate"] == 0.5


def test_a_resume_cuts_back_to_its_first_step(tmp_path):
    log = TrainingLog(str(tmp_path))
    for step in (2, 4, 6):
        log.write(step=step, loss=float(step))
    log.close()
    seconds = log.rows[1]["seconds"]
    # The run was killed while it wrote a line.
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 8, "lo')
    log = TrainingLog(str(tmp_path), first_step=4)
    assert [row["step"] for row in log.rows] == [2, 4]
    assert log.seconds() >= seconds
    log.write(step=6, loss=-1.0)
    log.close()
    assert [(row["step"], row["loss"]) for row in RunFolder(str(tmp_path)).log_rows()] == [
        (2, 2.0), (4, 4.0), (6, -1.0)]
    assert (tmp_path / "log.csv").read_text().count("\n") == 4


def test_no_log_yet(tmp_path):
    assert RunFolder(str(tmp_path)).log_rows() == []


def test_without_the_package_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError):
        import tensorboard  # noqa: F401
    log = TrainingLog(str(tmp_path))
    log.write(step=1, loss=0.5)
    log.close()
    assert board_scalars(tmp_path / "tensorboard") == {(1, "loss"): 0.5}
