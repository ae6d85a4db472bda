"""Both samplings, both priors, over folds."""

from dataclasses import replace

import pytest

from pixelnet_tf.dataset.prepare import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.training.experiment import Experiment
from pixelnet_tf.volumes.phantom_study import write_phantom


@pytest.fixture(scope="module")
def folded(tmp_path_factory, tiny_config):
    """(study folder, prepared study with two folds of two cases, configuration)."""
    folder = tmp_path_factory.mktemp("folded")
    write_phantom(folder / "study", 4, 1, size=(32, 28, 10))
    config = replace(tiny_config, split=replace(tiny_config.split, test=0.0, validation=0.0,
                                                folds=2),
                     training=replace(tiny_config.training, steps=2))
    prepare_study(config, folder / "study", str(folder / "prepared"), workers=1)
    return folder / "study", PreparedStudy.open(folder / "prepared"), config


def test_the_whole_comparison_and_its_second_call(folded, tmp_path):
    study_dir, prepared, config = folded
    said = []
    found = Experiment(config, prepared, study_dir, tmp_path / "out", say=said.append).run()
    assert list(found) == ["balanced-sampled", "balanced-corrected", "uniform-sampled",
                           "uniform-corrected"]
    for result in found.values():
        assert sorted(result.scores) == sorted(prepared.cases)
    for ending in ("txt", "md", "csv", "tex"):
        text = (tmp_path / "out" / f"tables.{ending}").read_text()
        assert all(name in text for name in found)
    assert sum("cases to train" in line for line in said) == 4
    runs = tmp_path / "out" / "balanced" / "fold0" / "model.keras"
    stamp = runs.stat().st_mtime_ns
    again = Experiment(config, prepared, study_dir, tmp_path / "out", say=said.append).run()
    assert runs.stat().st_mtime_ns == stamp
    for name, result in again.items():
        assert result.scores == found[name].scores
    # Asked for again with other settings, the old tables would be wrong.
    longer = replace(config, training=replace(config.training, steps=3))
    with pytest.raises(ConfigError, match=r"has training\.steps=3 .*: 2\); .* a new --out"):
        Experiment(longer, prepared, study_dir, tmp_path / "out").run()


def test_a_split_without_test_cases_is_refused(folded, tmp_path):
    study_dir, prepared, config = folded
    bare = PreparedStudy(prepared.path, prepared.config,
                         replace(prepared.split, test=(), folds=()), prepared.index)
    with pytest.raises(DataError, match=r"split\.folds"):
        Experiment(config, bare, study_dir, tmp_path)
