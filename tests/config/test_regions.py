"""Regions that are cut out, and the labels that they become."""

import pytest

from pixelnet_tf.config import StudyConfig, config_from_dict, config_from_yaml, config_to_yaml
from pixelnet_tf.errors import ConfigError

NAMES = {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
WITH_REGIONS = {"model": {"region_based": True}}


def study(regions, order=None, labels=None):
    return StudyConfig(labels=labels or NAMES, regions=regions, regions_class_order=order or {})


@pytest.mark.parametrize(("regions", "order"), [
    ({"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}, {"WT": 2, "TC": 1, "ET": 4}),
    ({"a": (1,), "b": (2,), "c": (4,)}, {"a": 1, "b": 2, "c": 4}),
    ({"rest": (1, 2), "c": (4,), "b": (2,)}, {"rest": 1, "c": 4, "b": 2}),
])
def test_the_larger_region_comes_first_with_the_label_that_is_in_no_later_one(regions, order):
    found = study(regions).region_order()
    assert list(found.items()) == list(order.items())


@pytest.mark.parametrize(("regions", "words"), [
    ({"all": (1, 2, 4), "a": (1,)}, r"region all of study\.regions become .* all has \[2, 4\]"),
    ({"all": (1, 2, 4), "a": (1,), "b": (2,), "c": (4,)}, r"region all .* all has \[\]"),
    ({"x": (1, 2), "y": (2, 4)}, r"region y .* y has \[2, 4\]"),
    ({"x": (1, 2), "z": (1, 4)}, "region z "),
    ({"c": (4,), "b": (2,)}, r"do not tell label 1 \(necrosis\) from 0 \(background\)"),
    ({"all": (0, 1)}, r"study\.regions\.all must name lesion labels alone"),
    ({"none": ()}, r"study\.regions\.none must name lesion labels alone"),
    ({}, "names no region"),
])
def test_where_no_order_follows_the_regions_are_named(regions, words):
    with pytest.raises(ConfigError, match=words):
        config_from_dict({**WITH_REGIONS, "study": {
            "labels": NAMES, "regions": {name: list(values) for name, values in regions.items()}}})


def test_the_background_is_in_no_region_even_where_none_is_cut_out():
    """Scored on the box around both masks, it was scored wrongly."""
    with pytest.raises(ConfigError, match=r"study\.regions\.background must name lesion labels "
                       r"alone, and 0 is the background, got \[0\]"):
        config_from_dict({"study": {"labels": NAMES, "regions": {"background": [0]}}})


@pytest.mark.parametrize(("order", "words"), [
    ({"WT": 2, "TC": 1}, "does not name the region 'ET'"),
    ({"WT": 2, "TC": 1, "ET": 4, "XX": 1}, r"names, and study\.regions does not, 'XX'"),
    ({"WT": 2, "TC": 2, "ET": 4}, r"regions_class_order\.TC is 2, which is none of"),
    ({"ET": 4, "TC": 1, "WT": 2}, r"makes label 2 of label 1 \(necrosis\)"),
    ({"WT": 1, "TC": 1, "ET": 4}, r"makes label 1 of label 2 \(edema\)"),
])
def test_an_order_that_does_not_lead_back_is_refused_with_and_without_region_based(order, words):
    with pytest.raises(ConfigError, match=words):
        study({"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}, order)


def test_an_order_may_say_which_label_the_union_of_all_becomes_and_what_is_not_told_apart():
    regions = {"all": (1, 2, 4), "a": (1,), "b": (2,), "c": (4,)}
    assert study(regions, {"all": 2, "a": 1, "b": 2, "c": 4}).region_order()["all"] == 2
    assert study({"all": (1, 2, 4)}, {"all": 2}).region_order() == {"all": 2}


def test_the_order_of_regions_outlives_its_file():
    config = config_from_dict({**WITH_REGIONS, "study": {
        "regions": {"TC": [1, 4], "ET": [4], "WT": [1, 2, 4]},
        "regions_class_order": {"WT": 2, "TC": 1, "ET": 4}}})
    again = config_from_yaml(config_to_yaml(config), "again")
    assert again == config
    assert list(again.study.regions_class_order) == ["WT", "TC", "ET"]
    assert again.score_names == ("TC", "ET", "WT")
    assert again.scored_regions == ((1, 3), (3,), (1, 2, 3))
    plain = config_from_dict({})
    assert (plain.score_names, plain.scored_regions) == (plain.study.class_names, ())


@pytest.mark.parametrize(("tree", "words"), [
    ({"prediction": {"region_thresholds": {"XT": 0.4}}}, "region_thresholds names 'XT'"),
    ({"prediction": {"region_thresholds": {"WT": 1.0}}}, r"region_thresholds\.WT must lie in"),
    ({**WITH_REGIONS, "prediction": {"class_offsets": {"edema": 1.0}}},
     "with model.region_based the network scores regions"),
    ({"study": {"regions": {"WT": [1, 2, 4]}}, "prediction": {"region_thresholds": {"WT": 0.4}}},
     r"region WT of study\.regions become"),
])
def test_thresholds_and_offsets_that_mean_nothing_are_refused(tree, words):
    with pytest.raises(ConfigError, match=words):
        config_from_dict(tree)
