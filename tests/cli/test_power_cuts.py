"""Power cuts and kills of the verbs: a sample of what scripts/power_cuts.py does.

The verbs are recorded once. A kill leaves what the record says up to its event, a power cut what a
disk may hold of it (tests/power_cut.py).
"""

import random
from pathlib import Path

import pytest

from tests import power_cut
from tests.main_job import TINY, run_main
from tests.power_cut import MODES, damage, leftovers, lost, outcome, recorded, write_state


@pytest.fixture(scope="module")
def prepares(main_job, tmp_path_factory):
    """A record of `prepare`, its folder, and a function that calls it again."""
    folder = tmp_path_factory.mktemp("power_cut") / "prepared"
    return _record(folder, "prepare", "--config", "phantom", *TINY, "--data", main_job / "study",
                   "--out", folder, "--workers", 1)


@pytest.fixture(scope="module")
def trains(main_job, tmp_path_factory):
    """The same of `train`."""
    folder = tmp_path_factory.mktemp("power_cut") / "run"
    return _record(folder, "train", "--config", "phantom", *TINY, "--data", main_job / "prepared",
                   "--out", folder, "--resume", "--set=training.checkpoint_every=1")


@pytest.fixture(scope="module")
def predicts(main_job, tmp_path_factory):
    """The same of `predict`."""
    folder = tmp_path_factory.mktemp("power_cut") / "predictions"
    return _record(folder, "predict", "--model", main_job / "run", "--data",
                   main_job / "prepared", "--out", folder, "--overlays")


class _Recorded:
    def __init__(self, record, folder, again):
        self.record, self.folder, self.again = record, folder, again
        self.right = outcome(folder)

    def cut(self, count, mode, seed):
        """Make the folder hold what a disk may hold after so many events; returns the faults."""
        state = self.record.state(count, mode, random.Random(seed))
        write_state(state, self.folder)
        return lost(self.record, count, state) + damage(self.folder)

    def go_on(self):
        self.again()
        assert leftovers(self.folder) == []
        assert damage(self.folder) == []
        assert outcome(self.folder) == self.right


def _record(folder: Path, *arguments) -> _Recorded:
    def call():
        assert run_main(*arguments) == 0

    folder.mkdir()
    with recorded(folder) as record:
        call()
    return _Recorded(record, folder, call)


@pytest.mark.parametrize("verb", ["prepares", "trains", "predicts"])
def test_after_a_power_cut_every_acknowledged_file_is_there_and_no_damage(verb, request):
    """Forty states of the disk; the last of each kind is gone on from, to the same bits."""
    one, rng = request.getfixturevalue(verb), random.Random(3)
    for number in range(40):
        count = rng.randint(0, len(one.record.events))
        mode = ("ordered", "worst")[number % 2]
        assert one.cut(count, mode, number) == [], (count, mode, number)
    one.go_on()


def test_a_power_cut_right_after_its_end_loses_nothing(prepares, trains, predicts):
    for one in (prepares, trains, predicts):
        for mode in MODES:
            assert one.cut(len(one.record.events), mode, 0) == []
            state = outcome(one.folder)
            assert {path: state[path] for path in one.right} == one.right


@pytest.mark.parametrize("number", range(6))
def test_a_kill_before_an_event_of_each_kind(number, prepares):
    """A sixth of the kinds each; of all, no file counts as damaged."""
    kinds = sorted(prepares.record.kinds().items())
    for _, places in kinds[number::6]:
        assert prepares.cut(places[len(places) // 2], "kill", 0) == []
    prepares.go_on()


def test_kills_of_a_prediction_and_of_a_training_which_goes_on(predicts, trains):
    for one in (predicts, trains):
        for _, places in sorted(one.record.kinds().items()):
            assert one.cut(places[-1], "kill", 0) == []
    # In the midst of a checkpoint.
    place = trains.record.kinds()["write", "checkpoint"][2]
    assert trains.cut(place + 1, "kill", 0) == []
    trains.go_on()


def test_a_disk_that_is_not_synced_is_seen_to_lose_files(tmp_path):
    """What these tests stand on: a file that was only written and renamed may be empty or gone."""
    with recorded(tmp_path) as record:
        (tmp_path / ".a.tmp").write_bytes(b"text")
        (tmp_path / ".a.tmp").replace(tmp_path / "a")
    assert [event.what for event in record.events] == ["create", "write", "rename", "done"]
    found = {mode: {record.state(4, mode, random.Random(seed)).get("a") for seed in range(50)}
             for mode in MODES}
    assert found["kill"] == {b"text"}
    for mode in ("ordered", "worst"):
        assert {None, b"", b"text"} <= found[mode]
        assert any(lost(record, 4, record.state(4, mode, random.Random(seed)))
                   for seed in range(50))


def test_a_kill_leaves_what_the_record_says(tmp_path):
    """Names and contents of the record, against the folder itself."""
    (tmp_path / "before").write_bytes(b"1")
    with recorded(tmp_path) as record:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "x").write_bytes(b"2")
        (tmp_path / "before").rename(tmp_path / "folder" / "y")
        (tmp_path / "folder").rename(tmp_path / "other")
        (tmp_path / "other" / "x").unlink()
    assert record.state(len(record.events), "kill", random.Random(0)) == power_cut.read_state(
        tmp_path)
