"""The segmenter: one graph for every mode's every shape, and the correction of the scores."""

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import Mode
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet

from .conftest import VARIANTS, slices


def run(segmenter, image, domain=None, *read_out) -> np.ndarray:
    domain = np.ones(image.shape[:3], bool) if domain is None else domain
    return segmenter.scores(*(tf.constant(a) for a in (image, domain, *read_out))).numpy()


@pytest.mark.parametrize("mode", Mode.texts())
def test_one_trace_for_many_shapes(narrow_net, mode):
    segmenter = SliceSegmenter(narrow_net(fc7="none"), mode=mode)
    for kind, size, batch in (("inner", (33, 40), 1), ("full", (40, 33), 2),
                              ("empty", (25, 64), 3)):
        scores = run(segmenter, slices(kind, *size, batch))
        assert scores.shape == (batch, *size, 3)
    assert segmenter.graph.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_exact_is_the_reference(narrow_net, fields):
    model, image = narrow_net(**fields), slices("edge", 45, 37, 2)
    domain = np.random.default_rng(0).random(image.shape[:3]) < 0.7
    correction = np.array([0.5, -1.0, 0.25], np.float32)
    exact, reference = (run(SliceSegmenter(model, correction, mode), image, domain)
                        for mode in ("exact", "reference"))
    scale = np.abs(reference[domain]).max()
    np.testing.assert_allclose(exact, reference, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("mode", Mode.texts())
def test_outside_the_domain_is_background_beyond_doubt(narrow_net, mode):
    image = slices("full", 30, 30)
    domain = np.zeros(image.shape[:3], bool)
    domain[0, 4:20, 9:25] = True
    scores = run(SliceSegmenter(narrow_net(fc7="none"), mode=mode), image, domain)
    assert (scores[~domain] == [0, -1e4, -1e4]).all()
    assert (scores[domain] > -1e3).all()


@pytest.mark.parametrize("mode", Mode.texts())
def test_only_what_is_read_need_be_computed(narrow_net, mode):
    image, domain = slices("full", 30, 33), np.ones((1, 30, 33), bool)
    domain[:, :4] = False
    read_out = np.zeros_like(domain)
    read_out[:, 1::2, 1::2] = True
    segmenter = SliceSegmenter(narrow_net(fc7="none"), mode=mode)
    whole, read = run(segmenter, image, domain), run(segmenter, image, domain, read_out)
    np.testing.assert_allclose(read[read_out], whole[read_out], rtol=0, atol=1e-5)
    if mode == "exact":
        assert (read[~read_out] == [0, -1e4, -1e4]).all()


@pytest.mark.parametrize("mode", Mode.texts())
def test_the_correction_is_added(narrow_net, mode):
    model, image = narrow_net(fc7="none"), slices("full", 20, 28)
    correction = np.array([0.0, 2.0, -3.0], np.float32)
    plain, corrected = (run(SliceSegmenter(model, c, mode), image) for c in (None, correction))
    if mode != "adaptive":
        np.testing.assert_allclose(corrected - plain, np.broadcast_to(correction, plain.shape),
                                   rtol=0, atol=1e-5)
    assert (corrected.argmax(-1) == 1).mean() > (plain.argmax(-1) == 1).mean()


def test_later_weights_are_seen(narrow_net):
    model = PixelNet(narrow_net(fc7="none").config, 2, 3, seed=0)
    segmenter = SliceSegmenter(model)
    image = slices("full", 20, 20)
    before = run(segmenter, image)
    bias = model.parts["cls_score_new"].bias
    bias.assign([1.0, 0.0, 0.0])
    np.testing.assert_allclose(run(segmenter, image) - before,
                               np.broadcast_to([1.0, 0, 0], before.shape), atol=1e-5)


def test_an_unknown_mode(narrow_net):
    with pytest.raises(ConfigError, match=r"'exact', 'adaptive', 'reference'.*'fast'"):
        SliceSegmenter(narrow_net(fc7="none"), mode="fast")
