"""The split: sizes, no case twice, folds, patients."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelnet_tf.cases.split import Split, draw_split, group_patients, patient_of
from pixelnet_tf.config import SplitConfig
from pixelnet_tf.errors import ConfigError

NAMES = [f"c{number:02}" for number in range(20)]


@given(st.integers(2, 40), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 3))
def test_every_case_stands_in_exactly_one_part(count, test, validation, seed):
    names = [f"c{number}" for number in range(count)]
    split = draw_split(names, SplitConfig(test=test, validation=validation, seed=seed))
    parts = (*split.train, *split.validation, *split.test)
    assert sorted(parts) == sorted(names)
    assert split.train
    assert split.cases == tuple(sorted(names))


def test_fractions_and_counts():
    split = draw_split(NAMES, SplitConfig(test=0.2, validation=0.1))
    assert (len(split.train), len(split.validation), len(split.test)) == (14, 2, 4)
    split = draw_split(NAMES, SplitConfig(test=6, validation=0))
    assert (len(split.train), len(split.validation), len(split.test)) == (14, 0, 6)


def test_two_cases_give_one_to_train_and_one_to_test():
    split = draw_split(["a", "b"], SplitConfig(test=0.2, validation=0.05))
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 0, 1)


def test_the_seed_and_the_set_of_names_decide():
    config = SplitConfig(seed=3)
    assert draw_split(NAMES, config) == draw_split(NAMES[::-1], config)
    assert draw_split(NAMES, config) != draw_split(NAMES, SplitConfig(seed=4))


def test_folds_part_the_cases_that_are_not_test():
    split = draw_split(NAMES, SplitConfig(test=0.2, validation=0.1, folds=4))
    assert [len(fold) for fold in split.folds] == [4, 4, 4, 4]
    tested = []
    for number in range(4):
        fold = split.fold(number)
        assert fold.test == split.folds[number]
        assert len(fold.validation) == 2
        assert len(fold.train) == 10
        assert fold.cases == tuple(sorted((*split.train, *split.validation)))
        tested += fold.test
    assert sorted(tested) == sorted((*split.train, *split.validation))


def test_a_fold_leaves_a_case_to_train_on():
    split = Split(train=("a",), validation=("b", "c"), folds=(("a",), ("b",), ("c",)))
    assert split.fold(0) == Split(train=("c",), validation=("b",), test=("a",))


@pytest.mark.parametrize("validation", [1, 2, 4])
def test_no_patient_stands_on_two_sides_of_a_fold(validation):
    # Two scans of each of eight patients, named so that the scans of one are never neighbours.
    names = [f"scan{scan}_P{patient}" for scan in range(2) for patient in range(8)]
    config = SplitConfig(test=2, validation=validation, folds=3, patient=r"P\d")
    split = draw_split(names, config)
    assert all(len(group) == 2 for group in split.patients)
    for number in range(3):
        fold = split.fold(number)
        parts = [fold.train, fold.validation, fold.test]
        patients = [{patient_of(name, config.patient) for name in part} for part in parts]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 7
        assert validation <= len(fold.validation) <= validation + 1
        # A split from before patients were written down knows them by its pattern.
        tree = split.to_json()
        del tree["patients"]
        assert Split.from_json(tree, config.patient).fold(number) == fold


def test_cases_that_are_the_same_are_of_one_patient():
    names = [f"c{number}" for number in range(6)]
    same = [{"c0", "c5"}, {"c5", "c3"}]
    assert group_patients(names, "", same) == [["c0", "c3", "c5"], ["c1"], ["c2"], ["c4"]]
    for seed in range(8):
        split = draw_split(names, SplitConfig(test=2, validation=1, seed=seed), same)
        assert split.patients == (("c0", "c3", "c5"),)
        parts = [split.train, split.validation, split.test]
        assert sum("c0" in part or "c3" in part or "c5" in part for part in parts) == 1


@pytest.mark.parametrize("pattern", [r"^(Q\d+)_", "crop9$", r"P\d{4}"])
def test_a_pattern_that_matches_no_case_is_refused(pattern):
    names = [f"P{patient:02}_crop{crop}" for patient in range(4) for crop in range(2)]
    with pytest.raises(ConfigError, match=r"matches none of the 8 case names, such as \['P00_cr"):
        draw_split(names, SplitConfig(patient=pattern))


def test_a_group_that_takes_no_part_in_a_match():
    assert patient_of("T2_b", r"(P\d+)?_b") == "T2_b"


def test_cases_of_a_part():
    split = Split(train=("a", "b"), validation=("c",), test=("d", "e"))
    assert split.choose("test") == ("d", "e")
    assert split.choose("test", ["e"]) == ("e",)
    with pytest.raises(ConfigError, match=r"'a' is in the part 'train' .* not among the 2 cases "
                                          r"of 'test'.*leave --split out"):
        split.choose("test", ["e", "a"])
    with pytest.raises(ConfigError, match="'x' is in no part of the run's split"):
        split.choose("train", ["x"])
    for part in ("tests", "cases", "folds"):
        with pytest.raises(ConfigError, match=f"parts train, validation, test, not '{part}'"):
            split.choose(part)


def test_no_such_fold():
    with pytest.raises(ConfigError, match="the folds are 0 to 1"):
        Split(("a", "b"), folds=(("a",), ("b",))).fold(2)
    with pytest.raises(ConfigError, match=r"split.folds is 0"):
        Split(("a",)).fold(0)


def test_cases_of_a_patient_stay_together():
    names = [f"P{patient:02}_crop{crop}" for patient in range(10) for crop in range(3)]
    config = SplitConfig(test=0.2, validation=0.1, folds=3, patient=r"^(P\d+)_")
    split = draw_split(names, config)
    parts = [split.train, split.validation, split.test]
    patients = [{patient_of(name, config.patient) for name in part} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert len(split.test) == 6
    folds = [{patient_of(name, config.patient) for name in fold} for fold in split.folds]
    assert sum(map(len, folds)) == len(set.union(*folds)) == 8


def test_a_name_that_the_pattern_does_not_match_is_its_own_patient():
    assert patient_of("X1", r"^(P\d+)") == "X1"
    assert patient_of("P3_b", r"^P\d+") == "P3"


@pytest.mark.parametrize("config", [SplitConfig(test=20), SplitConfig(test=15, validation=5)])
def test_nothing_left_to_train_on(config):
    with pytest.raises(ConfigError, match="none of 20 cases to train on"):
        draw_split(NAMES, config)


def test_more_folds_than_patients():
    with pytest.raises(ConfigError, match=r"only 16 patients"):
        draw_split(NAMES, SplitConfig(test=0.2, folds=17))


def test_json():
    split = draw_split(NAMES, SplitConfig(folds=2))
    assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split
