"""Presets: partial configurations that hold, each value with its reason."""

import pytest

from pixelnet_tf.config import (
    Preset,
    Setting,
    config_of,
    load_config,
    preset_settings,
    settings_tree,
)


@pytest.mark.parametrize("preset", Preset)
def test_every_value_of_a_preset_has_its_reason(preset):
    settings = preset_settings(preset)
    assert len(settings) > 8
    assert [setting.key for setting in settings if not setting.reason] == []
    assert not any(setting.key.startswith("study.") for setting in settings)
    config_of(settings)


def test_the_faithful_preset_has_the_papers_values():
    ours, paper = config_of(preset_settings(Preset.FAITHFUL)), load_config("brats2017")
    for section in ("model", "training", "sampling"):
        assert getattr(ours, section) == getattr(paper, section)
    assert ours.prepare == paper.prepare
    assert ours.prediction.decisions == paper.prediction.decisions


def test_of_one_key_the_last_setting_counts():
    made = settings_tree([Setting("training.steps", 1), Setting("split.test", 2),
                          Setting("training.steps", 3)])
    assert made == {"training": {"steps": 3}, "split": {"test": 2}}
