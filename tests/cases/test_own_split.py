"""A split that the user gives: its forms, and what is refused by name."""

import json

import pytest

from pixelnet_tf.cases.own_split import OwnSplit, own_split_of
from pixelnet_tf.cases.split import draw_split
from pixelnet_tf.config import SplitConfig
from pixelnet_tf.errors import ConfigError, DataError

NAMES = ["a1", "a2", "b1", "c1", "d1", "e1"]
PLAIN = SplitConfig(validation=1)
NNUNET = [{"train": ["c1", "d1", "e1"], "val": ["a1", "a2", "b1"]},
          {"train": ["a1", "a2", "b1"], "val": ["c1", "d1", "e1"]}]


@pytest.fixture
def write(tmp_path):
    """A function from a tree (or a text) to the path of a file that holds it."""

    def make(tree, name="split.json") -> str:
        path = tmp_path / name
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return str(path)

    return make


def test_parts_are_taken_as_they_stand(write):
    path = write({"train": ["e1", "a1", "a2"], "val": ["b1"], "test": ["c1", "d1"]})
    split = OwnSplit.read(path).split(NAMES, PLAIN)
    assert split.train == ("a1", "a2", "e1")
    assert (split.validation, split.test, split.folds) == (("b1",), ("c1", "d1"), ())
    # Folds that the settings ask for are drawn of what is not set aside.
    folds = OwnSplit.read(path).split(NAMES, SplitConfig(folds=2)).folds
    assert sorted(name for fold in folds for name in fold) == ["a1", "a2", "b1", "e1"]
    text = "train: [e1, a1, a2]\nvalidation: [b1]\ntest: [c1, d1]\n"
    assert OwnSplit.read(write(text, "split.yaml")).split(NAMES, PLAIN) == split


@pytest.mark.parametrize("tree", [NNUNET, [fold["val"] for fold in NNUNET]])
def test_folds_hold_out_what_the_file_says(write, tree):
    split = OwnSplit.read(write(tree)).split(NAMES, PLAIN)
    assert split.folds == (("a1", "a2", "b1"), ("c1", "d1", "e1"))
    assert len(split.validation) == 1
    assert split.cases == tuple(NAMES)
    assert split.fold(1).test == ("c1", "d1", "e1")
    # Cases without truth are test cases of no fold.
    more = OwnSplit.read(write(tree)).split([*NAMES, "x1"], PLAIN, set_aside=["x1"])
    assert (more.test, more.folds) == (("x1",), split.folds)


def test_another_number_of_folds_than_the_files_is_refused(write):
    own = OwnSplit.read(write(NNUNET))
    assert own.split(NAMES, SplitConfig(folds=2)).folds == own.split(NAMES, SplitConfig()).folds
    with pytest.raises(ConfigError, match=r"has 2 folds, and split\.folds asks for 5"):
        own.split(NAMES, SplitConfig(folds=5))


def test_a_list_of_names_is_that_of_the_test_cases(write):
    split = OwnSplit.read(write(["c1", "a1"])).split(NAMES, PLAIN)
    assert split.test == ("a1", "c1")
    assert (len(split.train), len(split.validation)) == (3, 1)


def test_a_drawn_split_reads_back_as_itself(write):
    config = SplitConfig(folds=2, patient="^([a-z])")
    split = draw_split(NAMES, config)
    for tree in (split.to_json(), {"settings": {}, "split": split.to_json()}):
        assert OwnSplit.read(write(tree)).split(NAMES, config) == split


def test_a_case_that_cannot_be_used_is_passed_over(write):
    own = OwnSplit.read(write({"train": ["a1", "a2", "b1"], "test": ["c1", "d1", "e1"]}))
    split = own.split(NAMES[:-1], PLAIN, left_out=["e1"])
    assert split.test == ("c1", "d1")


@pytest.mark.parametrize(("tree", "words", "case"), [
    ({"train": ["a1", "a9"], "test": ["b1"]}, r"a9: .*is not in the study \(did you mean", "a9"),
    ({"train": ["a1", "b1"], "test": ["b1"]}, "case b1: .*stands 2 times among the parts", "b1"),
    ([["a1", "b1"], ["c1", "b1"]], "case b1: .*stands 2 times among the folds", "b1"),
    ({"train": ["a1", "a2"], "test": ["b1", "c1"]}, "puts 2 of the study's 6 cases nowhere: d1, e1",
     None),
    ({"train": ["a1", "b1", "c1"], "test": ["a2", "d1", "e1"]}, "one patient .*: a1, a2",
     "a1"),
    ([["a1", "b1", "c1"], ["a2", "d1", "e1"]], "one patient into several parts or folds", "a1"),
    ({"train": [], "test": NAMES}, "no case to train on", None),
    ({"test": ["a1", "a2"], "folds": [["a1", "a2", "b1"], ["c1", "d1", "e1"]]},
     "case a1: .*its part and its fold contradict", "a1"),
])
def test_what_does_not_fit_the_study_is_refused_by_name(write, tree, words, case):
    path = write(tree)
    with pytest.raises(DataError, match=words) as caught:
        OwnSplit.read(path).split(NAMES, SplitConfig(validation=1, patient="^([a-z])"))
    assert path in str(caught.value)
    assert caught.value.case == case
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("tree", "words"), [
    ("{train: [", "cannot be read as JSON"), (3, "must hold parts or folds"), ([], "must hold"),
    ({"trian": ["a1"]}, r"unknown part 'trian' \(did you mean 'train'"), ({}, "names no part"),
    ({"train": "a1"}, "train must be a list"), ({"train": [1]}, r"train\[0\] must be of type str"),
    ([["a1"]], "has one fold"), ([["a1"], []], "fold 1 is empty"),
    ([{"train": ["a1"]}, {}], "fold 0 must have train and val"),
    ([{"train": ["a1", "b1"], "val": ["a1"]}, ["b1"]], "fold 0 trains on 'a1', which it holds out"),
    ([{"train": ["c1"], "val": ["a1"]}, ["b1", "c1"]], "fold 0 must train on all .* with 'b1'"),
])
def test_a_file_that_holds_no_split(write, tree, words):
    with pytest.raises(DataError, match=f"split.json: .*{words}.*write {{train"):
        OwnSplit.read(write(tree))


def test_files_that_are_not_read(write, tmp_path):
    with pytest.raises(DataError, match="a pickle is not read"):
        OwnSplit.read(write("x", "splits_final.pkl"))
    with pytest.raises(ConfigError, match=r"split\.file is no file"):
        own_split_of(SplitConfig(file=str(tmp_path / "none.json")))
    assert own_split_of(SplitConfig()) is None


def test_patients_that_a_layout_sets_aside_are_tested_whole():
    split = draw_split(NAMES, SplitConfig(test=1, validation=1, patient="^([a-z])"),
                       set_aside=["a2"])
    assert {"a1", "a2"} < {*split.test}
    assert (len(split.test), len(split.validation), len(split.train)) == (3, 1, 2)
