"""`check_folder`: what is wrong in each kind of folder, what is mended, and by what."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.io.files import begin_folder, write_json
from pixelnet_tf.io.locks import exclusive
from pixelnet_tf.io.manifest import MANIFEST
from pixelnet_tf.runs.folder import RunFolder
from tests.listening import Listening
from tests.main_job import TINY, run_main

CASE = "phantom_001"
FLIP_BYTES = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "flip_bytes.py"))


@pytest.fixture(scope="module")
def results(main_job, tmp_path_factory) -> Path:
    """A folder of `prepared`, `run`, `labels`, `scores`, `models`, `caffe`; not to be changed."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("prepared", "run", "study"):
        shutil.copytree(main_job / name, folder / name)
    FLIP_BYTES["make"](folder)
    shutil.rmtree(folder / "to_caffe")
    return folder


@pytest.fixture
def copy(results, tmp_path) -> Path:
    """A copy of them, to be damaged."""
    shutil.copytree(results, tmp_path / "copy")
    return tmp_path / "copy"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_every_file_of_a_sound_folder_is_as_it_was_written(results):
    for name in ("prepared", "run", "labels", "scores", "models/phantom/1", "."):
        found = px.check_folder(results / name)
        assert found.whole
        assert not found.findings
        assert found.notes == []
        assert found.files >= 2
    # All files below the five folders, but the raw study and the manifests.
    assert found.files == sum(
        path.is_file() and path.name != MANIFEST and "study" not in path.relative_to(results).parts
        for path in results.rglob("*"))


def test_every_file_that_is_damaged_cut_or_missing_is_named(copy):
    for path in [path for path in sorted(copy.rglob("*")) if path.is_file()]:
        if path.name == MANIFEST or "study" in path.relative_to(copy).parts:
            continue
        data = path.read_bytes()
        for damage in (lambda: flip(path), lambda: path.write_bytes(data[:-1]), path.unlink):  # noqa: B023
            damage()
            finding, = px.check_folder(copy).findings
            assert finding.path == str(path)
            assert finding.advice
            path.write_bytes(data)
    assert px.check_folder(copy).whole


@pytest.mark.parametrize("name", ["cases/phantom_001.tfrecord", "cases/phantom_001.json",
                                  "index.json", "config.yaml", "left_out.json"])
@pytest.mark.parametrize("repair", [True, False])
def test_preparing_again_mends_a_study(copy, results, name, repair, capsys):
    folder = copy / "prepared"
    flip(folder / name)
    if repair or name == "left_out.json":
        assert run_main("check", folder, "--repair") == 3
        assert "set aside as" in capsys.readouterr().out
        assert (folder / f"{name}.broken").exists()
        assert not (folder / name).exists()
        assert run_main("check", folder) == 3
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", copy / "study", "--out",
                    folder, "--workers", 1) == 0
    assert run_main("check", folder) == 0
    for path in (results / "prepared").rglob("*"):
        if path.is_file() and path.name != MANIFEST:
            assert (folder / path.relative_to(results / "prepared")).read_bytes() == (
                path.read_bytes())


def test_predicting_again_makes_a_broken_case_alone_anew(copy, results, capsys):
    labels = copy / "labels"
    predict = ("predict", "--model", copy / "run", "--data", copy / "prepared", "--prior",
               "corrected", "--out", labels)
    flip(labels / f"{CASE}.nii.gz")
    assert run_main(*predict) == 3
    said = capsys.readouterr().err
    assert f"{CASE}: its SHA-256 is another: it is damaged, or was corrected by hand" in said
    assert run_main("check", labels, "--repair") == 3
    times = {path: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")}
    assert run_main(*predict) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (labels / f"{CASE}.nii.gz").read_bytes() == (
        results / "labels" / f"{CASE}.nii.gz").read_bytes()
    assert run_main("check", labels) == 0


def test_resuming_makes_a_broken_model_anew(copy, results):
    run = copy / "run"
    train = ("train", "--config", "phantom", *TINY, "--data", copy / "prepared", "--out", run,
             "--resume")
    flip(run / "model.keras")
    assert run_main("check", run, "--repair") == 3
    assert not (run / "model.keras").exists()
    assert run_main(*train) == 0
    assert run_main("check", run) == 0
    for mine, theirs in zip(RunFolder(str(run)).model().get_weights(),
                            RunFolder(str(results / "run")).model().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_model_without_checkpoints_is_not_set_aside(copy):
    flip(copy / "caffe" / "net.keras")
    finding, = px.check_folder(copy / "caffe", repair=True).findings
    assert (copy / "caffe" / "net.keras").exists()
    assert "take it from a copy of the folder, or import it again" in str(finding)


def test_no_flipped_byte_or_cut_passes_unseen(copy):
    """A few for each kind of file; scripts/flip_bytes.py does 1,000 of them."""
    kinds = FLIP_BYTES["KINDS"]
    table = FLIP_BYTES["check_kinds"](copy, kinds, len(kinds), seed=1)
    assert all(row["damages"] == 1 for row in table.values())
    assert {name for name, row in table.items() if row["missed"] or row["SILENT"]} == set()
    assert sum(row["refused"] for row in table.values()) >= 24


def test_a_change_that_was_meant_is_accepted(copy, capsys):
    config = copy / "run" / "config.yaml"
    config.write_text(config.read_text() + "# mine\n")
    with pytest.raises(DataError, match=r"changed by hand; .* --accept config.yaml it takes a"):
        px.Segmenter.from_run(copy / "run")
    assert run_main("check", copy / "run", "--accept", "config.yaml") == 0
    px.Segmenter.from_run(copy / "run", prior="corrected")
    # A file that was removed, and a pattern, from a folder above.
    (copy / "labels" / f"{CASE}.nii.gz").unlink()
    flip(copy / "labels" / "phantom_002.nii.gz")
    assert run_main("check", copy) == 3
    assert run_main("check", copy, "--accept", "labels/*.nii.gz") == 0
    with pytest.raises(ConfigError, match=r"no file of .* is called so"):
        px.check_folder(copy, accept=["config.yml"])


def test_folders_of_earlier_versions_are_said_to_have_no_manifest(copy, tmp_path):
    (copy / "run" / MANIFEST).unlink()
    found = px.check_folder(copy / "run")
    assert found.whole
    note, = found.notes
    assert "an earlier version wrote it, without a manifest" in note
    assert px.check_folder(copy / "run", accept=["*"]).whole
    flip(copy / "run" / "model.keras")
    assert not px.check_folder(copy / "run").whole
    # One among others, from above.
    (copy / "labels" / MANIFEST).unlink()
    found = px.check_folder(copy)
    assert any("labels: an earlier version wrote it" in note for note in found.notes)
    px.check_folder(copy, accept=["labels/*"])
    assert px.check_folder(copy).notes == []
    # One that this version goes on with.
    begin_folder(tmp_path / "other")
    shutil.copy(copy / "run" / "split.json", tmp_path / "other")
    (tmp_path / "other" / MANIFEST).unlink()
    begin_folder(tmp_path / "other")
    write_json(tmp_path / "other" / "start.json", {})
    found = px.check_folder(tmp_path / "other")
    assert found.whole
    assert found.files == 1
    assert "1 files are of an earlier version" in found.notes[0]


def test_a_damaged_manifest_is_seen_and_mended(copy, capsys):
    manifest = copy / "prepared" / MANIFEST
    whole = manifest.read_bytes()
    lines = whole.splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-4]))
    assert any("its line in the manifest is lost" in f.problem
               for f in px.check_folder(copy / "prepared").findings)
    manifest.write_bytes(whole.replace(b"announced", b"announcfd", 1))
    finding, = px.check_folder(copy / "prepared").findings
    assert "lines 2 are damaged" in finding.problem
    px.check_folder(copy / "prepared", repair=True)
    assert px.check_folder(copy / "prepared").whole
    manifest.write_bytes(b"nothing")
    finding, = px.check_folder(copy / "prepared").findings
    assert "no line of it can be read" in finding.problem


def test_files_of_others_are_no_concern(copy):
    (copy / "run" / "notes.txt").write_text("mine")
    shutil.copy(copy / "run" / "model.keras", copy / "caffe" / "other.keras")
    found = px.check_folder(f"{copy}/")
    assert found.whole
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 files have no line in the manifest; another program, or somebody, put them there: "
        f"{name}" for name in ("other.keras", "notes.txt")]


def test_temporary_files_are_removed_by_a_repair(copy):
    (copy / "prepared" / "cases" / ".x.tfrecord.0123abcd.tmp").write_text("half")
    shutil.copytree(copy / "models" / "phantom" / "1",
                    copy / "models" / "phantom" / ".2.0123abcd.tmp")
    flip(copy / "models" / "phantom" / ".2.0123abcd.tmp" / "serving.json")
    found = px.check_folder(copy)
    assert found.whole
    assert "2 temporary files" in found.notes[0]
    px.check_folder(copy, repair=True)
    assert px.check_folder(copy).notes == []


def test_a_folder_in_use_is_looked_at_and_not_changed(copy):
    flip(copy / "prepared" / "index.json")
    with exclusive(copy / "prepared", "prepare", Listening()):
        assert len(px.check_folder(copy).findings) == 1
        for change in ({"repair": True}, {"accept": ["prepared/index.json"]}):
            with pytest.raises(RunError, match=r"prepared: is in use by `prepare`"):
                px.check_folder(copy, **change)
    assert px.check_folder(copy, accept=["prepared/index.json"]).whole


def test_other_folders_are_refused(tmp_path, results, capsys):
    with pytest.raises(DataError, match="no such folder"):
        px.check_folder(tmp_path / "x")
    with pytest.raises(DataError, match="is nothing that pixelnet-tf wrote"):
        px.check_folder(tmp_path)
    with pytest.raises(DataError, match=r"it is a part of .*run, give that"):
        px.check_folder(results / "run" / "tensorboard")
    with pytest.raises(ConfigError, match="nothing is mended there"):
        px.check_folder("gs://bucket/run", repair=True)
    assert run_main("check", tmp_path / "x") == 3


def test_a_temporary_folder_of_a_killed_program_is_no_damage(tmp_path):
    """An export that was killed: what lies in its temporary folder counts as left, not as broken.
    """
    begin_folder(tmp_path)
    write_json(tmp_path / "serving.json", {})
    left = tmp_path / ".2.12345678.tmp"
    begin_folder(left)
    write_json(left / "serving.json", {})
    (left / "serving.json").write_text("")
    found = px.check_folder(tmp_path)
    assert found.findings == []
    assert any("temporary files that a killed program left" in note for note in found.notes)
    assert px.check_folder(tmp_path, repair=True).whole
    assert not left.exists()
