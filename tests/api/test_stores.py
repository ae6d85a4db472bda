"""`prepare` and `train` into an object store: the same bytes as on a disk, however often cut short.

A transfer to a store happens whole or not at all. So a program that is killed leaves what the
transfers up to some one of them made: each of these states is made from the record of a whole work,
looked through, and gone on from by a program with an empty cache.
"""

import os
import shutil
from pathlib import Path

import pytest

import pixelnet_tf as px
from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.io import mirror
from pixelnet_tf.runs.folder import RunFolder
from tests.main_job import TINY
from tests.stores import contents, forgotten, recorded_stores, replay

#: All cuts of a training are tried where this is set; a few of them otherwise.
ALL = bool(os.environ.get("PIXELNET_ALL_CUTS"))
SETTINGS = [option.removeprefix("--set=") for option in TINY] + [
    "split.validation=0", "training.checkpoint_every=1", "training.steps=2"]


def study_of(folder: Path) -> px.Study:
    return px.Study.open(folder / "study", "phantom", SETTINGS)


@pytest.fixture(scope="module")
def two_cases(main_job, tmp_path_factory):
    """A folder with a `study` of two cases, and `disk`: prepared there and trained."""
    folder = tmp_path_factory.mktemp("stores")
    for name in ("phantom_001", "phantom_002", "phantom_003"):
        shutil.copytree(main_job / "study" / name, folder / "study" / name)
    study_of(folder).prepare(folder / "disk" / "prepared", workers=1)
    px.train(folder / "disk" / "prepared", "phantom", folder / "disk" / "run", overrides=SETTINGS)
    return folder


@pytest.fixture(scope="module")
def recorded(two_cases):
    """The transfers of the same work into a store, and how many of them were of `prepare`."""
    url = f"file://{two_cases}/store"
    with recorded_stores(two_cases / "cache") as kind:
        study_of(two_cases).prepare(f"{url}/prepared", workers=1)
        prepared = len(kind.log)
        px.train(f"{url}/prepared", "phantom", f"{url}/run", overrides=SETTINGS)
        return kind.log, prepared


def weights(run: Path):
    return [array.tobytes() for array in RunFolder(str(run)).model().get_weights()]


def test_in_a_store_lies_what_lies_on_a_disk(two_cases, recorded):
    disk, store = two_cases / "disk", two_cases / "store"
    assert contents(store / "prepared") == contents(disk / "prepared")
    assert weights(store / "run") == weights(disk / "run")
    for name in ("config.yaml", "start.json", "split.json", "priors.json"):
        assert (store / "run" / name).read_bytes() == (disk / "run" / name).read_bytes()
    assert px.check_folder(store).whole


def test_prepare_goes_on_from_whatever_transfer_was_its_last(two_cases, recorded, tmp_path):
    log, prepared = recorded
    folder = tmp_path / "store"
    states = set()
    for count in range(prepared):
        replay(log, count, folder)
        state = tuple(sorted((name, len(data)) for name, data in contents(folder).items()
                             if not name.endswith("manifest.jsonl")))
        if (folder / "prepared" / "manifest.jsonl").exists():
            assert px.check_folder(folder / "prepared").whole, count
        if state in states and not ALL:
            # It differs by the manifest alone.
            continue
        states.add(state)
        with recorded_stores(tmp_path / str(count)):
            study_of(two_cases).prepare(f"file://{folder}/prepared", workers=1)
        there = contents(folder / "prepared")
        expected = contents(two_cases / "disk" / "prepared")
        there.pop("manifest.jsonl"), expected.pop("manifest.jsonl")
        assert there == expected, count
        assert px.check_folder(folder / "prepared").whole
    assert len(states) > 8


def test_train_goes_on_from_whatever_transfer_was_its_last(two_cases, recorded, tmp_path):
    log, prepared = recorded
    folder = tmp_path / "store"
    expected = weights(two_cases / "disk" / "run")
    names = [Path(name).name for _, name, _ in log]
    second = names.index("last-2.index", prepared)
    # The second state is there whole, and not named yet.
    chosen = range(prepared, len(log)) if ALL else [names.index("state.json", second)]
    for count in range(prepared, len(log)):
        replay(log, count, folder)
        if (folder / "run" / "manifest.jsonl").exists():
            assert px.check_folder(folder / "run").whole, count
        if count not in chosen:
            continue
        with recorded_stores(tmp_path / str(count)):
            px.train(f"file://{folder}/prepared", "phantom", f"file://{folder}/run",
                     overrides=SETTINGS, resume=True)
        assert weights(folder / "run") == expected, count
        assert px.check_folder(folder / "run").whole


def test_a_store_that_goes_away_ends_prepare_and_the_same_call_goes_on(two_cases, tmp_path):
    url = f"file://{tmp_path}/store/prepared"
    with recorded_stores(tmp_path / "cache", left=7) as kind:
        with pytest.raises(RunError, match="does not answer") as gone:
            study_of(two_cases).prepare(url, workers=1)
        assert gone.value.exit_code == 5
        assert f": {url}/" in str(gone.value)
        assert "make room" not in str(gone.value)
        assert (tmp_path / "store" / "prepared" / ".lock").exists()
        # On this machine, by a program that is another one.
        (tmp_path / "store" / "prepared" / ".lock").unlink()
        kind.left = None
        with forgotten():
            study_of(two_cases).prepare(url, workers=1)
    there = contents(tmp_path / "store" / "prepared")
    expected = contents(two_cases / "disk" / "prepared")
    there.pop("manifest.jsonl"), expected.pop("manifest.jsonl")
    assert there == expected


def test_what_needs_a_file_system_that_all_see_is_refused(two_cases, tmp_path, monkeypatch):
    monkeypatch.setenv(mirror.CACHE, str(tmp_path))
    url = "s3://bucket/prepared"
    with pytest.raises(ConfigError, match="one program at a time writes to a folder there; leave"):
        study_of(two_cases).update(url, part="1/2")
    with pytest.raises(ConfigError, match="workers of a training read what the chief writes"):
        px.train(url, "phantom", "s3://bucket/run", distribute="multiworker")
    with pytest.raises(ConfigError, match="nothing is mended there"):
        px.check_folder(url, repair=True)
    with recorded_stores(tmp_path / "cache"):
        with pytest.raises(DataError, match=r"^file://.*/empty: not a prepared study"):
            px.PreparedStudy.open(f"file://{tmp_path}/empty")
