"""Preparing a study: what is written, restarts, bad cases, the split, a full disk."""

import dataclasses
import gzip
import json
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import SplitConfig, StudyConfig
from pixelnet_tf.dataset import encode as encode_module
from pixelnet_tf.dataset import prepare_study as prepare_module
from pixelnet_tf.dataset.encode import encode_case
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.reporting import LogReporter
from pixelnet_tf.volumes.nifti import nifti_bytes, read_volume, write_labels
from tests.listening import Listening

ALL = ("phantom_001", "phantom_002", "phantom_003", "phantom_004")


@pytest.fixture
def study(small_study, tmp_path):
    """A copy of the small study that a test may change."""
    shutil.copytree(small_study, tmp_path / "study")
    return tmp_path / "study"


def shard_bytes(out):
    return {name: (out / "cases" / f"{name}.tfrecord").read_bytes() for name in ALL
            if (out / "cases" / f"{name}.tfrecord").exists()}


def test_what_is_written(small_config, small_study, tmp_path):
    ears = Listening()
    summary = prepare_study(small_config, small_study, tmp_path / "p", 1, reporter=ears)
    assert summary.prepared == ALL
    assert (summary.kept, summary.left_out, summary.notes) == ((), (), ())
    assert ears.events[-1] == ("preparing", 4, 4, "phantom_004")
    assert [event[0] for event in ears.events] == ["checking"] * 4 + ["preparing"] * 4
    assert [text.split(":")[0] for text in ears.said] == ["memory"]
    files = sorted(path.relative_to(tmp_path / "p").as_posix()
                   for path in (tmp_path / "p").rglob("*") if path.is_file())
    assert files == sorted(["config.yaml", "index.json", "left_out.json", "manifest.jsonl",
                            "split.json", *(f"cases/{name}{end}" for name in ALL
                              for end in (".json", ".tfrecord"))])
    assert json.loads((tmp_path / "p/left_out.json").read_text()) == []


def test_worker_processes_give_the_same_bytes(small_prepared, small_config, small_study, tmp_path):
    prepare_study(small_config, small_study, tmp_path, workers=2)
    assert shard_bytes(tmp_path) == shard_bytes(Path(small_prepared))


def test_a_second_run_does_only_what_changed(small_config, study, tmp_path):
    out = tmp_path / "p"
    prepare_study(small_config, study, out, 1)
    split, shards = (out / "split.json").read_bytes(), shard_bytes(out)
    again = prepare_study(small_config, study, out, 1)
    assert (again.prepared, again.kept) == ((), ALL)

    # A file that was only touched is the same file.
    os.utime(study / "phantom_002/phantom_002_t2.nii.gz", ns=(1, 1))
    (out / "cases/phantom_003.tfrecord").unlink()
    assert prepare_study(small_config, study, out, 1).prepared == ("phantom_003",)
    assert shard_bytes(out) == shards

    prepare = dataclasses.replace(small_config.prepare, region="volume", workers=1)
    changed = dataclasses.replace(small_config, prepare=prepare)
    assert prepare_study(changed, study, out).prepared == ALL
    assert shard_bytes(out) != shards
    assert (out / "split.json").read_bytes() == split
    assert PreparedStudy.open(out).config == changed


@pytest.mark.parametrize("kind", ["flair", "seg"])
def test_a_case_is_prepared_anew_when_a_content_changed(small_config, study, tmp_path, kind):
    """As long as before and as old: only the content tells."""
    out, path = tmp_path / "p", study / f"phantom_002/phantom_002_{kind}.nii.gz"
    array, geometry = read_volume(path)
    for place, value in ((0, 4), (1, 2)):
        # Stored without compression, so that the length stays.
        array[15, 13:17, 5] = value
        data = gzip.compress(nifti_bytes(path.stem, array.astype(np.int16), geometry), 0, mtime=0)
        path.write_bytes(data)
        os.utime(path, ns=(7, 7))
        summary = prepare_study(small_config, study, out, 1)
        assert summary.prepared == (("phantom_002",) if place else ALL)
    volume = PreparedStudy.open(out).read_volume("phantom_002")
    assert (volume.plan.from_slices(volume.labels)[15, 13:17, 5] == 2).all() == (kind == "seg")


def test_settings_that_do_not_touch_the_slices_keep_them(small_config, study, tmp_path):
    prepare_study(small_config, study, tmp_path / "p", 1)
    renamed = dataclasses.replace(
        small_config, study=dataclasses.replace(small_config.study, name="other"))
    assert prepare_study(renamed, study, tmp_path / "p", 1).kept == ALL


def test_a_run_that_stops_keeps_finished_cases_and_can_go_on(
        small_config, small_prepared, study, tmp_path, monkeypatch):
    """A full disk at the third shard: exit code 5, two cases stay, the next run does two."""
    out, real, calls = tmp_path / "p", prepare_module.write_shard, []

    def full(path, slices):
        calls.append(path)
        if len(calls) == 3:
            raise RunError(f"{path}: cannot be written: no space is left on the device")
        return real(path, slices)

    monkeypatch.setattr(prepare_module, "write_shard", full)
    with pytest.raises(RunError, match=r"no space is left(.|\n)*2 of 4 cases are") as error:
        prepare_study(small_config, study, out, 1)
    assert error.value.exit_code == 5
    assert set(shard_bytes(out)) == set(ALL[:2])
    with pytest.raises(DataError, match="not finished"):
        PreparedStudy.open(out)
    summary = prepare_study(small_config, study, out, 1)
    assert (summary.prepared, summary.kept) == (ALL[2:], ALL[:2])
    assert shard_bytes(out) == shard_bytes(Path(small_prepared))


def test_a_real_write_error_leaves_no_half_file(small_config, study, tmp_path):
    """The system itself refuses a file beyond a size, as a full disk would."""
    resource = pytest.importorskip("resource")
    out, before = tmp_path / "p", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"phantom_001\.tfrecord: cannot be written"):
            prepare_study(small_config, study, out, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((out / "cases").iterdir()) == []


def test_too_little_room_is_seen_before_any_work(small_config, study, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(RunError, match=r"0\.00 GB are free.*4 cases"):
        prepare_study(small_config, study, tmp_path / "p", 1)
    assert not (tmp_path / "p").exists()


class Said(LogReporter):
    """Keeps what it hears."""

    def __init__(self):
        self.messages, self.warnings = [], []

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)


@pytest.mark.parametrize(("free", "workers", "warned"), [
    (0, 3, 0), (1 << 40, 3, 0), (2.5, 2, 1), (1.5, 1, 1)])
def test_no_more_cases_are_in_work_than_there_is_memory_for(
        small_config, small_study, tmp_path, monkeypatch, free, workers, warned):
    # Cases of these sizes take what the program takes, and some part of it more.
    monkeypatch.setattr(prepare_module, "free_memory", lambda: int(free * 330 * 2**20))
    monkeypatch.setattr(prepare_module, "own_cores", lambda: 1)
    said = Said()
    prepare_study(small_config, small_study, tmp_path / "p", 3, dry_run=True, reporter=said)
    assert [text for text in said.messages if text.startswith("memory")] == [
        "memory: up to 0.34 GB for a case in work (phantom_001: 32x28x12 voxels, 3 channels), "
        f"{workers} at a time"]
    assert [text.endswith(f"{workers} cases are in work at once, not 3")
            for text in said.warnings] == [True] * warned


def test_too_little_memory_for_one_case_is_seen_before_any_work(
        small_config, study, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "free_memory", lambda: 100 << 20)
    with pytest.raises(RunError, match=r"phantom_001.*up to 0\.34 GB.*0\.10 GB are free"):
        prepare_study(small_config, study, tmp_path / "p", 1)
    assert not (tmp_path / "p").exists()


def test_bad_cases_stop_the_run_or_are_left_out(small_config, study, tmp_path):
    out = tmp_path / "p"
    (study / "phantom_002/phantom_002_t2.nii.gz").unlink()
    cut = study / "phantom_003/phantom_003_flair.nii.gz"
    cut.write_bytes(cut.read_bytes()[:999])
    with pytest.raises(DataError, match=r"2 of 4 cases(.|\n)*phantom_002.*'t2'(.|\n)*phantom_003_"
                       r"flair(.|\n)*--skip-bad-cases"):
        prepare_study(small_config, study, out, 1)
    assert not out.exists()
    without_folds = dataclasses.replace(small_config, split=SplitConfig())
    summary = prepare_study(without_folds, study, out, 1, skip_bad_cases=True)
    assert summary.prepared == (ALL[0], ALL[3])
    assert [entry["case"] for entry in json.loads((out / "left_out.json").read_text())] == [
        "phantom_002", "phantom_003"]
    assert PreparedStudy.open(out).cases == (ALL[0], ALL[3])


def test_a_case_that_fails_when_it_is_prepared_is_left_out_too(small_config, study, tmp_path,
                                                               monkeypatch):
    """What no check that only reads a case can see, such as N4 that finds no field."""
    asked = []

    def fails(case, *settings):
        asked.append(case.name)
        if case.name == "phantom_002":
            raise DataError("N4 finds no bias field", case="phantom_002")
        return encode_case(case, *settings)

    monkeypatch.setattr(encode_module, "encode_case", fails)
    out = tmp_path / "p"
    config = dataclasses.replace(small_config, split=SplitConfig(test=1, validation=1))
    with pytest.raises(DataError, match=r"1 of 4 cases.*\n  phantom_002: N4 finds.*\n.*--skip-bad"):
        prepare_study(config, study, out, 1)
    assert not (out / "split.json").exists()
    summary = prepare_study(config, study, out, 1, skip_bad_cases=True)
    assert (summary.prepared, summary.kept) == (ALL[2:], ALL[:1])
    assert [problem.case for problem in summary.left_out] == ["phantom_002"]
    prepared = PreparedStudy.open(out)
    assert prepared.cases == prepared.split.cases == (ALL[0], *ALL[2:])
    # Unchanged, it is known for bad, and not tried again.
    asked.clear()
    again = prepare_study(config, study, out, 1, skip_bad_cases=True)
    assert (again.prepared, again.split, asked) == ((), summary.split, [])
    with pytest.raises(DataError, match="phantom_002: N4 finds"):
        prepare_study(config, study, out, 1, dry_run=True)
    # Changed, it is; the split that is kept does not know it.
    monkeypatch.setattr(encode_module, "encode_case", encode_case)
    shutil.copyfile(study / "phantom_001/phantom_001_t2.nii.gz",
                    study / "phantom_002/phantom_002_t2.nii.gz")
    with pytest.raises(DataError, match=r"new: \['phantom_002'\]"):
        prepare_study(config, study, out, 1)
    assert prepare_study(config, study, out, 1, redraw_split=True).prepared == ("phantom_002",)
    assert PreparedStudy.open(out).cases == ALL


def test_a_study_without_any_lesion(small_config, study, tmp_path):
    for name in ALL:
        path = study / name / f"{name}_seg.nii.gz"
        array, geometry = read_volume(path)
        write_labels(path, np.zeros_like(array), geometry)
    with pytest.raises(DataError, match="no label but the background"):
        prepare_study(small_config, study, tmp_path / "p", 1)
    with pytest.raises(DataError, match="no case is left"):
        prepare_study(small_config, study, tmp_path / "p", 1, skip_bad_cases=True)
    summary = prepare_study(small_config, study, tmp_path / "p", 1, require_segmentation=False)
    assert summary.prepared == ALL


def test_without_segmentations(small_config, study, tmp_path):
    for name in ALL:
        (study / name / f"{name}_seg.nii.gz").unlink()
    with pytest.raises(DataError, match="segmentation is missing"):
        prepare_study(small_config, study, tmp_path / "p", 1)
    prepare_study(small_config, study, tmp_path / "p", 1, require_segmentation=False)
    prepared = PreparedStudy.open(tmp_path / "p")
    assert not prepared.labelled
    assert prepared.read_volume(ALL[0]).labels is None


def test_the_split_is_kept_until_it_is_redrawn(small_config, study, tmp_path):
    out = tmp_path / "p"
    first = prepare_study(small_config, study, out, 1).split
    other = dataclasses.replace(small_config,
                                split=SplitConfig(test=2, seed=1))
    kept = prepare_study(other, study, out, 1)
    assert kept.split == first
    assert "other settings" in kept.notes[0]
    redrawn = prepare_study(other, study, out, 1, redraw_split=True)
    assert len(redrawn.split.test) == 2
    shutil.rmtree(study / "phantom_004")
    with pytest.raises(DataError, match=r"gone: \['phantom_004'\](.|\n)*--redraw-split"):
        prepare_study(other, study, out, 1)
    assert prepare_study(other, study, out, 1, redraw_split=True).split.cases == ALL[:3]


def test_a_dry_run_writes_nothing(small_config, study, tmp_path):
    summary = prepare_study(small_config, study, tmp_path / "p", 1, dry_run=True)
    assert summary.prepared == ALL
    assert summary.index is None
    assert not (tmp_path / "p").exists()


def test_another_label_map_is_another_preparation(small_config, study, tmp_path):
    prepare_study(small_config, study, tmp_path / "p", 1)
    labels = {0: "background", 4: "enhancing", 1: "necrosis", 2: "edema"}
    changed = dataclasses.replace(small_config, study=StudyConfig(
        modalities=small_config.study.modalities, labels=labels))
    assert prepare_study(changed, study, tmp_path / "p", 1).prepared == ALL


def take_over_images(study, source: str, target: str) -> None:
    """Make one case of a study the other patient under a second name, in files of other bytes."""
    for path in (study / source).iterdir():
        if "seg" not in path.name:
            array, geometry = read_volume(path)
            twin = study / target / path.name.replace(source, target)
            twin.write_bytes(gzip.compress(nifti_bytes(twin.stem, array, geometry), 1, mtime=7))


def test_one_patient_under_two_names_stays_in_one_part(small_config, study, tmp_path):
    take_over_images(study, "phantom_001", "phantom_003")
    config = dataclasses.replace(small_config, split=SplitConfig(test=1, validation=1, folds=2))
    for seed in range(4):
        split_config = dataclasses.replace(config.split, seed=seed)
        summary = prepare_study(dataclasses.replace(config, split=split_config), study,
                                tmp_path / "p", 1, redraw_split=True)
        note, = summary.notes
        assert note == ("2 cases have equal images and count as one patient: phantom_001, "
                        "phantom_003")
        assert summary.split.patients == (("phantom_001", "phantom_003"),)
        assert not summary.split.tears(["phantom_001", "phantom_003"])
        # From the second time on the cases are kept, and the images known from before.
        assert bool(summary.kept) == (seed > 0)


def test_a_kept_split_that_tears_a_patient_is_refused(small_config, study, tmp_path):
    config = dataclasses.replace(small_config, split=SplitConfig(test=1, validation=0))
    first = prepare_study(config, study, tmp_path / "p", 1).split
    take_over_images(study, first.train[0], first.test[0])
    with pytest.raises(DataError, match=r"different parts or folds: .* a new split by --redraw"):
        prepare_study(config, study, tmp_path / "p", 1)
    again = prepare_study(config, study, tmp_path / "p", 1, redraw_split=True).split
    assert not again.tears([first.train[0], first.test[0]])


def test_cases_that_the_patients_pattern_does_not_match_are_said(small_config, small_study,
                                                                 tmp_path):
    config = dataclasses.replace(small_config, split=dataclasses.replace(
        small_config.split, patient=r"_00([12])"))
    summary = prepare_study(config, small_study, tmp_path, 1, dry_run=True)
    assert summary.notes == ("split.patient matches 2 of 4 cases; each of the others counts as a "
                             "patient of its own: phantom_003, phantom_004",)


def manifests_apart(folder):
    """Bytes of every file but the manifest, whose lines stand in the order of the work."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in Path(folder).rglob("*") if path.is_file()
            and path.name != "manifest.jsonl"}


def test_two_at_once_share_the_cases(small_config, small_study, small_prepared, tmp_path):
    """The second begins when the first has done one case; each case is done by one of them."""
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / ".old.tfrecord.12345678.tmp").touch()
    second, found = Listening(), []
    shares = threading.Event()
    second.message = lambda text: "are shared" in text and shares.set()
    thread = threading.Thread(target=lambda: found.append(
        prepare_study(small_config, small_study, tmp_path, 1, reporter=second)))

    def begin(task, done):
        if task == "preparing" and done == 1:
            # Of the first, which the second must leave alone.
            (tmp_path / "cases" / ".mine.tfrecord.12345678.tmp").touch()
            thread.start()
            assert shares.wait(60)

    first = prepare_study(small_config, small_study, tmp_path, 1, reporter=Listening(begin))
    thread.join()
    assert sorted((*first.prepared, *found[0].prepared)) == list(ALL)
    assert {*first.prepared, *first.kept} == {*found[0].prepared, *found[0].kept} == set(ALL)
    (tmp_path / "cases" / ".mine.tfrecord.12345678.tmp").unlink()
    assert manifests_apart(tmp_path) == manifests_apart(small_prepared)


def test_another_one_with_other_settings_is_refused(small_config, small_study, tmp_path):
    other = dataclasses.replace(small_config, prepare=dataclasses.replace(
        small_config.prepare, region="volume"))

    def begin(task, done):
        if task == "preparing" and done == 1:
            with pytest.raises(RunError, match=r"`prepare` \(process .* with other settings or d"):
                prepare_study(other, small_study, tmp_path, 1, reporter=Listening())

    assert prepare_study(small_config, small_study, tmp_path, 1,
                         reporter=Listening(begin)).prepared == ALL


def test_a_split_of_ones_own_is_taken_and_replaces_none_that_is_there(small_config, study,
                                                                      tmp_path):
    """Test cases need no truth; another file, or another split, is refused."""
    (study / "phantom_002" / "phantom_002_seg.nii.gz").unlink()
    file, out = tmp_path / "own.json", tmp_path / "p"
    parts = {"train": ["phantom_001", "phantom_004"], "val": ["phantom_003"],
             "test": ["phantom_002"]}
    file.write_text(json.dumps(parts))
    own = dataclasses.replace(small_config, split=SplitConfig(file=str(file)))
    first = prepare_study(own, study, out, 1)
    assert first.split == Split(train=("phantom_001", "phantom_004"),
                                validation=("phantom_003",), test=("phantom_002",))
    assert any("1 test cases have no segmentation" in note for note in first.notes)
    prepared = PreparedStudy.open(out)
    assert prepared.split == first.split
    assert prepared.read_volume("phantom_002").labels is None
    again = prepare_study(own, study, out, 1)
    assert again.kept == ALL
    assert again.split == first.split
    parts["train"], parts["val"] = parts["val"], parts["train"]
    file.write_text(json.dumps(parts))
    before = (out / "split.json").read_bytes()
    with pytest.raises(DataError, match=r"holds another split than .*own.json.*--redraw-split"):
        prepare_study(own, study, out, 1)
    assert (out / "split.json").read_bytes() == before
    assert prepare_study(own, study, out, 1, redraw_split=True).split.train == ("phantom_003",)
    # A case without truth that is to be trained on stays a bad one.
    parts["train"], parts["test"] = parts["test"], parts["train"]
    file.write_text(json.dumps(parts))
    with pytest.raises(DataError, match="phantom_002: segmentation is missing"):
        prepare_study(own, study, tmp_path / "q", 1)


@pytest.mark.parametrize("settings", [{"test": "many"}, {"patient": "("}, {"tset": 0.2},
                                      {"folds": 1}])
def test_a_split_whose_settings_are_of_another_kind_is_refused(small_config, study, tmp_path,
                                                               settings):
    out = tmp_path / "p"
    prepare_study(small_config, study, out, 1)
    tree = json.loads((out / "split.json").read_text())
    (out / "split.json").write_text(json.dumps({**tree, "settings": settings}))
    (out / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match=r"split.json: .*(settings|split)\.?"):
        prepare_study(small_config, study, out, 1)
