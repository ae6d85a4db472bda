"""What fits to what: each side differs in one thing, and each purpose sees what it needs."""

from dataclasses import replace

import pytest

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import ConfigError, DataError, ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.compatibility import (
    AVERAGE,
    AVERAGE_ON_SPLIT,
    PREDICT,
    RESUME,
    WEIGHTS,
    Basis,
    check_fit,
)

CONFIG = load_config("phantom")
SPLIT = Split(("a", "b"), ("c",), ("d",), folds=(("a", "b"), ("c",)))
MINE = Basis("mine", CONFIG, SPLIT, "digest")


def configured(*overrides: str) -> Basis:
    return replace(MINE, name="theirs", config=load_config("phantom", overrides))


#: Everything that shapes a slice.
SLICES = ["prepare.region=volume", "prepare.slice_size=128", "prepare.bias_field.enabled=false",
          "prepare.bias_field.shrink_factor=2", "prepare.bias_field.iterations=[50, 50]",
          "prepare.bias_field.modalities=[t2]", "study.skull_stripped=false",
          "study.modalities=[t2, t1ce, flair]"]
#: What shapes the weights beside.
WEIGHED = ["sampling.pixels=61", "model.border=99", "training.seed=7", "training.steps=9",
           "training.solver.base_lr=0.5", "training.initial_weights=imagenet",
           "prediction.brain_only=no"]
#: What the best checkpoint is chosen for, and what is decided at the end.
PREDICTED = ["prediction.prior=sampled", "prediction.decisions=ignore", "prediction.flips=true",
             "prediction.mode=adaptive", "prediction.guided_filter.radius=8",
             "prediction.class_offsets={edema: 1}", "prediction.lattice.margin=9"]
NEITHER = ["prepare.workers=3", "study.name=x", "study.regions={WT: [1]}", "split.seed=4",
           "study.resample=true", "prediction.batch_slices=3", "evaluation.workers=2",
           "prepare.bias_field.modalities=[t2, flair, t1ce]"]


@pytest.mark.parametrize("override", SLICES)
@pytest.mark.parametrize(("purpose", "error"), [
    (RESUME, ConfigError), (AVERAGE, ConfigError), (PREDICT, DataError)])
def test_whatever_shapes_a_slice_counts(override, purpose, error):
    key = override.split("=")[0]
    with pytest.raises(error, match=rf"^theirs: has {key}=.* \(mine: .*; "):
        check_fit(MINE, configured(override), purpose)


@pytest.mark.parametrize("override", [*WEIGHED, *PREDICTED])
def test_whatever_shapes_weights_or_decisions_counts_for_a_resume(override):
    key = override.split("=")[0].replace("prediction.brain", "brain")
    with pytest.raises(ConfigError, match=f"has {key}="):
        check_fit(MINE, configured(override), RESUME)
    for purpose in (AVERAGE, AVERAGE_ON_SPLIT, PREDICT):
        check_fit(MINE, configured(override), purpose)


@pytest.mark.parametrize("override", NEITHER)
def test_what_shapes_neither_does_not_count(override):
    for purpose in (RESUME, AVERAGE_ON_SPLIT, PREDICT):
        check_fit(MINE, configured(override), purpose)


def test_labels():
    labels = ("study.labels={0: background, 1: a, 2: edema, 4: enhancing}",)
    for purpose in (RESUME, AVERAGE):
        with pytest.raises(ConfigError, match=r"has study\.labels="):
            check_fit(MINE, configured(*labels), purpose)
    # A prepared slice holds indices of values; their names are the model's business.
    check_fit(MINE, configured(*labels), PREDICT)
    with pytest.raises(DataError, match=r"has study\.label_values="):
        check_fit(MINE, configured("study.labels={0: background, 2: edema, 1: n, 4: e}"), PREDICT)


def test_split_and_slices():
    moved = replace(MINE, name="theirs", split=replace(SPLIT, train=("a",), test=("b", "d")))
    for purpose in (RESUME, AVERAGE_ON_SPLIT):
        with pytest.raises(ConfigError, match=r"has split.test=\['b', 'd'\] \(mine: \['d'\]\), "):
            check_fit(MINE, moved, purpose)
    check_fit(MINE, moved, AVERAGE)
    # How the other cases would be cut into folds has no say.
    check_fit(MINE, replace(MINE, split=replace(SPLIT, folds=())), RESUME)
    with pytest.raises(ConfigError, match="has the prepared training slices='other'"):
        check_fit(MINE, replace(MINE, name="theirs", slices="other"), RESUME)
    # A run of an earlier version does not know its slices.
    check_fit(MINE, replace(MINE, slices=""), RESUME)


def test_weights():
    config = load_config("phantom", ["model.widths=[1, 1, 1, 1, 1]", "model.head_widths=[2]"])
    model = PixelNet(config.model, 3, 4)
    check_fit(Basis("run", config), Basis("file", model=model), WEIGHTS)
    with pytest.raises(ModelError, match="file: has classes=4 "):
        check_fit(Basis("run", load_config("isles2017", [
            "model.widths=[1, 1, 1, 1, 1]", "model.head_widths=[2]"])),
            Basis("file", model=model), WEIGHTS)


def test_every_difference_is_named_at_once():
    other = configured("prepare.region=volume", "prepare.slice_size=128", "training.steps=9")
    with pytest.raises(ConfigError) as found:
        check_fit(MINE, other, RESUME)
    assert all(word in str(found.value) for word in (
        "prepare.region='volume'", "prepare.slice_size=128", "training.steps=9"))
    assert str(found.value).count("resume with the same") == 1
