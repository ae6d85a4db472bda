"""Class frequencies, measured over the training slices."""

import numpy as np
import pytest

from pixelnet_tf.config import SamplingConfig, load_config
from pixelnet_tf.dataset.measure_priors import measure_priors
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.volumes.phantom_study import write_phantom


@pytest.mark.parametrize("options", [
    {}, {"strategy": "uniform"}, {"lesion_free_slices": 0.3}, {"background_in_brain": True},
])
def test_measured_priors_are_what_the_pipeline_draws(small_prepared, options):
    study = PreparedStudy.open(small_prepared)
    sampling = SamplingConfig(pixels=200, **options)
    schedule = SliceSchedule(study, study.cases, sampling, seed=3)
    priors = measure_priors(study, schedule, sampling)
    assert priors.class_names == ("background", "necrosis", "edema", "enhancing")
    assert sum(priors.real) == pytest.approx(1)
    assert sum(priors.sampled) == pytest.approx(1)
    drawn, slices = np.zeros(4), 8 * schedule.epoch_slices
    for batch in training_batches(study, schedule, sampling, batch_slices=8).take(slices // 8):
        drawn += np.bincount(batch["classes"], minlength=4)
    np.testing.assert_allclose(drawn / drawn.sum(), priors.sampled, atol=0.01)


def test_real_frequencies_by_counting(small_prepared):
    study = PreparedStudy.open(small_prepared)
    schedule = SliceSchedule(study, study.cases, SamplingConfig(), seed=0)
    counts = np.zeros(4)
    for case in study.cases:
        volume = study.read_volume(case)
        busy = volume.brain.any(axis=(1, 2))
        counts += np.bincount(volume.labels[busy].ravel(), minlength=4)
    priors = measure_priors(study, schedule, SamplingConfig(pixels=50))
    np.testing.assert_allclose(priors.real, counts / counts.sum(), rtol=1e-6)
    # The whole point of balanced sampling: every lesion class gains.
    assert (np.array(priors.sampled) > priors.real).tolist() == [False, True, True, True]


def test_priors_of_mixed_lesions_are_drawn(tmp_path):
    # Large enough that a lesion finds room deep inside.
    write_phantom(tmp_path / "study", 4, 0, size=(64, 60, 10))
    config = load_config("phantom", ["prepare.bias_field.enabled=false", "split.folds=0"])
    prepare_study(config, tmp_path / "study", str(tmp_path / "out"), workers=1)
    study = PreparedStudy.open(str(tmp_path / "out"))
    plain, mixed = (SamplingConfig(pixels=100, background_in_brain=True, lesion_mixing=share)
                    for share in (0.0, 1.0))
    schedule = SliceSchedule(study, study.cases, plain, seed=3)
    one, other = (measure_priors(study, schedule, sampling) for sampling in (plain, mixed))
    assert other.real == one.real
    # Slices without a lesion have one now, so lesions are drawn more often.
    assert other.sampled[0] < one.sampled[0] - 0.02
    assert sum(other.sampled) == pytest.approx(1)
    assert measure_priors(study, schedule, mixed) == other
