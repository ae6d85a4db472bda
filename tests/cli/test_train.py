"""`pixelnet-tf train`: what it says, what it writes, and its exit codes."""

import csv
import json
import os
import shutil
import signal
import socket

import keras
import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.runs.folder import RunFolder
from tests.listening import Listening
from tests.main_job import TINY, run_main


def train(main_job, out, *more) -> int:
    return run_main("train", "--config", "phantom", *TINY, "--data", main_job / "prepared",
                    "--out", out, *more)


def test_what_a_run_holds(main_job):
    run = main_job / "run"
    assert (run / "model.keras").is_file()
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3]
    assert rows[-1]["step"] == 3
    assert "validation/score" in rows[-1]
    with open(run / "log.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert list((run / "tensorboard").iterdir())
    priors = json.loads((run / "priors.json").read_text())
    assert priors["class_names"] == ["background", "necrosis", "edema", "enhancing"]
    split = json.loads((run / "split.json").read_text())
    assert [len(split[part]) for part in ("train", "validation", "test")] == [2, 1, 1]


def test_progress_and_frequencies_are_told(main_job, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pixelnet_tf.cli.terminal._QUIET_SECONDS", 0)
    assert train(main_job, tmp_path / "run") == 0
    captured = capsys.readouterr()
    assert "2 training and 1 validation cases" in captured.out
    assert "edema: " in captured.err
    assert "start weights: random" in captured.err
    assert f"model written to {tmp_path / 'run'}/model.keras" in captured.out
    assert "training 3/3 epoch " in captured.err
    assert "slices/s" in captured.err
    assert "left" in captured.err


def test_dry_run_writes_nothing(main_job, tmp_path, capsys):
    assert train(main_job, tmp_path / "run", "--dry-run") == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_dry_run_sees_start_weights_that_cannot_be_had(main_job, tmp_path, capsys, monkeypatch):
    def no_network(**options):
        raise Exception("URL fetch failure: no route to host")  # as Keras raises it

    monkeypatch.setattr(keras.applications, "VGG16", no_network)
    wide = "model.widths=[64, 128, 256, 512, 512]"
    asked = {"imagenet": "cannot be had (URL fetch failure", tmp_path / "w.caffemodel": "w.caffe"}
    (tmp_path / "w.caffemodel").write_bytes(b"no weights")
    for source, words in asked.items():
        assert train(main_job, tmp_path / "run", "--dry-run", "--set", wide, "--set",
                     f"training.initial_weights={source}") == 4
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_results_do_not_go_among_the_data(main_job, capsys):
    """What lies in a folder of cases, or in a prepared study, is taken for a part of it."""
    study, prepared = main_job / "study", main_job / "prepared"
    for out, arguments in (
            (study / "p", ("prepare", "--config", "phantom", "--data", study)),
            (study, ("prepare", "--config", "phantom", "--data", study)),
            (prepared / "run", ("train", "--config", "phantom", *TINY, "--data", prepared)),
            (prepared / "e", ("experiment", "--config", "phantom", *TINY, "--data", prepared,
                              "--references", study)),
            (study / "e", ("experiment", "--config", "phantom", *TINY, "--data", prepared,
                           "--references", study))):
        for more in ((), ("--dry-run",)):
            assert run_main(*arguments, "--out", out, *more) == 2
            assert f"{out}: lies within" in capsys.readouterr().err
        assert out == study or not out.exists()


def test_the_original_sampling_by_one_override(main_job, tmp_path, capsys):
    assert train(main_job, tmp_path / "run", "--set", "sampling.strategy=uniform") == 0
    assert "60 pixels each (uniform)" in capsys.readouterr().out
    assert train(main_job, tmp_path / "all", "--set", "sampling.strategy=all", "--dry-run") == 0
    assert "every pixel on a lattice of 2 each, in float32" in capsys.readouterr().out


def test_a_run_that_is_there_and_another_configuration(main_job, tmp_path, capsys):
    shutil.copytree(main_job / "run", tmp_path / "run")
    assert train(main_job, tmp_path / "run") == 5
    assert "holds a run already; go on with --resume" in capsys.readouterr().err
    assert train(main_job, tmp_path / "run", "--resume", "--set", "sampling.pixels=61") == 2
    assert "sampling.pixels=61 (not 60)" in capsys.readouterr().err
    assert train(main_job, tmp_path / "run", "--resume") == 0


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--set", "training.stepz=3"], 2, "did you mean 'steps'?"),
    (["--fold", "0"], 2, "prepared without folds"),
    (["--set", "training.initial_weights=nowhere.caffemodel"], 4, "'nowhere.caffemodel' does not"),
    (["--set", "model.border=1", "--set", "model.fc7=faithful"], 4, "too small for the hyper"),
])
def test_exit_codes(main_job, tmp_path, capsys, arguments, code, words):
    assert train(main_job, tmp_path / "run", *arguments) == code
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_prepared(main_job, tmp_path, capsys):
    assert run_main("train", "--config", "phantom", "--data", main_job / "study", "--out",
                    tmp_path / "run") == 3
    assert "not a prepared study" in capsys.readouterr().err


def test_a_broken_start_model(main_job, tmp_path, capsys):
    (tmp_path / "start.caffemodel").write_bytes(b"\x00\x01 nothing of Caffe's")
    assert train(main_job, tmp_path / "run",
                 f"--set=training.initial_weights={tmp_path}/start.caffemodel") == 4
    assert "start.caffemodel" in capsys.readouterr().err


def test_it_starts_from_a_model_of_its_own(main_job, tmp_path, capsys):
    assert train(main_job, tmp_path / "run",
                 f"--set=training.initial_weights={main_job}/run/model.keras") == 0
    assert f"start weights: {main_job}/run/model.keras" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_a_stop(main_job, tmp_path, capsys, monkeypatch, number, code):
    monkeypatch.setattr("pixelnet_tf.cli.terminal.TerminalReporter.progress",
                        lambda *arguments: os.kill(os.getpid(), number))
    assert train(main_job, tmp_path / "run") == code
    assert "the state after step 1 is saved, --resume goes on" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "last-1.index").is_file()


def test_a_dry_run_sees_what_the_run_would_refuse(main_job, tmp_path, capsys):
    assert train(main_job, main_job / "run", "--dry-run") == 5
    assert train(main_job, main_job / "run", "--dry-run", "--resume", "--set",
                 "training.seed=2") == 2
    assert train(main_job, tmp_path / "run", "--dry-run", "--set",
                 "training.initial_weights=no.keras") == 4
    assert train(main_job, tmp_path / "run", "--dry-run", "--set", "model.border=1", "--set",
                 "model.fc7=faithful") == 4
    assert "nothing was trained" not in capsys.readouterr().out


def test_the_best_state_of_a_training_that_has_not_ended(main_job, tmp_path, capsys):
    shutil.copytree(main_job / "run", tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    asked = ("--data", main_job / "prepared", "--case", "phantom_001", "--out")
    assert run_main("predict", "--model", tmp_path / "run", *asked, tmp_path / "a") == 4
    assert f"or take {tmp_path}/run/checkpoints/best" in capsys.readouterr().err
    best = tmp_path / "run" / "checkpoints" / "best"
    assert run_main("predict", "--model", best, *asked, tmp_path / "a") == 0
    # A checkpoint follows no decisions.
    assert run_main("predict", "--model", main_job / "run", *asked, tmp_path / "b", "--set",
                    "prediction.decisions=ignore") == 0
    one, other = ((tmp_path / side / "phantom_001.nii.gz").read_bytes() for side in "ab")
    assert one == other
    assert run_main("export-caffe", "--model", best, "--out", tmp_path / "caffe") == 0


def test_there_and_back_through_caffes_snapshot(main_job, tmp_path, capsys):
    export = ("export-caffe", "--model", main_job / "run", "--out", tmp_path, "--snapshot")
    assert run_main(*export, "hdf5", "--dry-run") == 0
    assert "snapshot_iter_3.solverstate.h5, snapshot_iter_3.caffemodel.h5" in (
        capsys.readouterr().out)
    assert not list(tmp_path.iterdir())
    assert run_main(*export, "binaryproto") == 0
    state = tmp_path / "snapshot_iter_3.solverstate"
    assert f"wrote {state}" in capsys.readouterr().out
    assert state.with_suffix(".caffemodel").is_file()
    dry = ("--dry-run", "--snapshot", state)
    assert train(main_job, tmp_path / "run", "--set", "training.steps=5", *dry) == 0
    assert train(main_job, tmp_path / "run", *dry) == 2
    assert "3 steps behind it, the training is to have 3" in capsys.readouterr().err
    assert train(main_job, tmp_path / "run", "--snapshot", state.with_suffix(".caffemodel")) == 2
    assert "give --snapshot a .solverstate" in capsys.readouterr().err
    assert train(main_job, tmp_path / "run", "--snapshot", tmp_path / "no.solverstate") == 4
    assert "does not exist" in capsys.readouterr().err
    state.write_bytes(state.read_bytes()[:1000])
    assert train(main_job, tmp_path / "run", "--set", "training.steps=5", *dry) == 4
    assert str(state) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_without_its_last_state(main_job, tmp_path, capsys):
    shutil.copytree(main_job / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert run_main("export-caffe", "--model", tmp_path / "run", "--out", tmp_path / "caffe",
                    "--snapshot", "hdf5") == 4
    assert "holds no state of a training" in capsys.readouterr().err
    assert not (tmp_path / "caffe").exists()


def test_a_second_training_in_the_same_folder_is_refused_and_names_the_first(
        main_job, tmp_path, capsys):
    """While one trains, another --resume ends with 5; predict takes a state of it meanwhile."""
    codes = []

    def begin(task, done):
        if task == "training" and done == 2 and not codes:
            codes.append(train(main_job, run, "--resume"))
            codes.append(run_main("predict", "--model", run / "checkpoints" / "last", "--data",
                                  main_job / "prepared", "--out", tmp_path / "p"))

    run = tmp_path / "run"
    px.train(main_job / "prepared", "phantom", run, overrides=[
        *(option.removeprefix("--set=") for option in TINY
          if not option.startswith(("--set=prepare", "--set=split"))),
        "training.checkpoint_every=1"], reporter=Listening(begin))
    assert codes == [5, 0]
    assert (f"error: {run}: is in use by `train` (process {os.getpid()} on "
            f"{socket.gethostname()}, since ") in capsys.readouterr().err
    assert not [path for path in run.rglob("*") if ".lock" in path.name]
    assert len(list((tmp_path / "p").glob("*.nii.gz"))) == 4


def test_a_training_goes_on_past_a_broken_newest_state(main_job, tmp_path, capsys):
    assert train(main_job, tmp_path / "broken", "--set", "training.checkpoint_every=1") == 0
    (tmp_path / "broken" / "model.keras").unlink()
    (tmp_path / "broken" / "checkpoints" / "last-3.data-00000-of-00001").write_bytes(b"")
    assert train(main_job, tmp_path / "broken", "--resume", "--set",
                 "training.checkpoint_every=1") == 0
    said = capsys.readouterr().err
    assert "last-3: the checkpoint does not fit this configuration or is broken" in said
    assert "the one before is taken, of step 2" in said
    assert "going on from step 2 of 3" in said
    one, other = (RunFolder(str(run)).model() for run in (main_job / "run", tmp_path / "broken"))
    for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
