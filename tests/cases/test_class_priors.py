"""Class frequencies and the correction that they give."""

import numpy as np
import pytest

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.io.plain import PlainError

PRIORS = ClassPriors(("background", "lesion"), (0.98, 0.02), (0.5, 0.5), strength=0.5)


def test_corrections_by_hand():
    bayes = np.log([1.96, 0.04])
    np.testing.assert_allclose(PRIORS.correction("corrected"), bayes, rtol=1e-6)
    np.testing.assert_allclose(PRIORS.correction("fitted"), bayes / 2, rtol=1e-6)
    assert PRIORS.correction("sampled").tolist() == [0, 0]
    assert [PRIORS.strength_under(prior) for prior in ("sampled", "corrected", "fitted")] == [
        0, 1, 0.5]
    assert PRIORS.correction("corrected").dtype == np.float32


def test_the_correction_turns_one_prior_into_the_other():
    # A pixel that the network holds for a lesion by 0.9 when both are drawn equally often.
    scores = np.log([0.1, 0.9]) + PRIORS.correction("corrected")
    posterior = np.exp(scores) / np.exp(scores).sum()
    assert posterior[1] == pytest.approx(0.9 * 0.02 / (0.9 * 0.02 + 0.1 * 0.98))


def test_a_class_that_never_occurs():
    priors = ClassPriors(("a", "b", "c"), (0.9, 0.1, 0.0), (0.5, 0.5, 0.0))
    assert priors.correction("corrected")[2] == 0


def test_a_class_that_was_met_in_no_drawn_slice_gets_no_say():
    priors = ClassPriors(("a", "b", "c"), (0.95, 0.0499, 0.0001), (0.5, 0.5, 0.0))
    found = priors.correction("corrected")
    np.testing.assert_allclose(found[:2], np.log([0.95 / 0.5, 0.0499 / 0.5]), rtol=1e-6)
    assert found[2] == 0
    region = ClassPriors(priors.class_names, priors.real, priors.sampled, regions=((2,),))
    assert region.correction("corrected")[0] == pytest.approx(0, abs=2e-4)


def test_json_keeps_everything():
    assert ClassPriors.from_json(PRIORS.to_json()) == PRIORS


def test_a_region_is_shifted_by_the_difference_of_its_log_odds():
    """Of its classes together: the whole tumour, and one class of it."""
    priors = ClassPriors(("background", "edema", "core"), (0.9, 0.08, 0.02), (0.5, 0.3, 0.2), 0.5,
                         regions=((1, 2), (2,)))
    shift = np.log([0.1 / 0.9, 0.02 / 0.98]) - np.log([0.5 / 0.5, 0.2 / 0.8])
    np.testing.assert_allclose(priors.correction("corrected"), shift, rtol=1e-6)
    np.testing.assert_allclose(priors.correction("fitted"), shift / 2, rtol=1e-6)
    assert priors.correction("sampled").tolist() == [0, 0]
    # Bayes' rule where a region is sampled more often, and its classes in their true proportion.
    scored = 0.3 / 0.7
    assert np.exp(np.log(scored) + ClassPriors(("b", "l"), (0.9, 0.1), (0.5, 0.5), regions=((1,),)
                                               ).correction("corrected")[0]) == pytest.approx(
        scored * (0.1 / 0.9))
    assert ClassPriors.from_json(priors.to_json()) == priors
    assert "regions" not in PRIORS.to_json()


@pytest.mark.parametrize("regions", [[[0]], [[3]], [[]], [["1"]]])
def test_regions_of_no_class_are_refused(regions):
    tree = ClassPriors(("b", "e", "c"), (0.8, 0.1, 0.1), (0.4, 0.3, 0.3)).to_json()
    with pytest.raises(PlainError):
        ClassPriors.from_json({**tree, "regions": regions})
