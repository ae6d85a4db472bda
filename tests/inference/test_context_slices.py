"""Prediction with hypercolumns that reach into neighbouring slices: stacks of a volume."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import LatticeConfig, Mode
from pixelnet_tf.errors import ModelError
from pixelnet_tf.inference import volume as volume_module
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.inference.volume import segment_remotely, segment_volume
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.phantom_study import write_phantom

from .conftest import slices
from .test_volume import CONFIG

SMALL = {"fc7": "aligned", "border": 32, "fc_width": 8, "widths": (3, 4, 5, 6, 6),
         "head_widths": (12,)}


def uneven(count: int, height: int = 33, width: int = 36) -> np.ndarray:
    """Slices whose filled parts, and so the boxes of the trunk, differ; one has nothing."""
    image = slices("full", height, width, count)
    for n in range(count):
        image[n, :3 * (n % 3)] = image[n, 9 + 4 * n:] = 0
    image[3] = 0
    return image


def test_a_stack_in_parts_has_the_scores_of_every_slice_with_its_neighbours(narrow_net, eagerly):
    """In every mode, and in the mean with mirrored slices."""
    model, image = narrow_net(context_slices=3, **SMALL), uneven(5)
    domain = np.random.default_rng(0).random(image.shape[:3]) < 0.7
    domain[2] = False
    beside = np.array([[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 2, 4], [4, 3, 4]], np.int32)
    pixels = np.argwhere(domain).astype(np.float32)
    mirrored = pixels * [1, 1, -1] + [0, 0, image.shape[2] - 1]
    plain, turned = (model([slab, places, beside]).numpy() for slab, places in (
        (image, pixels), (image[:, :, ::-1].copy(), mirrored.astype(np.float32))))
    for mode in Mode.texts():
        expected = plain if mode == "adaptive" else (plain + turned) / 2
        segmenter = SliceSegmenter(model, mode=mode, flips=mode != "adaptive", batch_slices=2)
        assert segmenter.reach == 1
        found = segmenter.scores(image, domain).numpy()
        assert (found[~domain] == segmenter.background.numpy()).all()
        if mode == "adaptive":
            # Where it did not look it need not be exact.
            assert (found[domain].argmax(-1) == expected.argmax(-1)).mean() > 0.95
        else:
            np.testing.assert_allclose(found[domain], expected, rtol=0,
                                       atol=1e-5 * np.abs(expected).max())
            np.testing.assert_array_equal(found[domain].argmax(-1), expected.argmax(-1))


class SumOverNeighbours:
    """Stands for a segmenter of some reach: a class' score is its channel's sum over the slices."""

    batch_slices, classes, planes, sigmoid, every = 2, 3, ("axial",), False, 1
    background = tf.constant([0.0, -1e4, -1e4])

    def __init__(self, reach: int):
        self.reach, self.seen = reach, []

    def scores(self, image, domain, read_out=None):
        self.seen.append(len(image))
        padded = np.pad(np.asarray(image), [(self.reach,) * 2, (0, 0), (0, 0), (0, 0)], mode="edge")
        total = sum(padded[k:k + len(image)] for k in range(2 * self.reach + 1))
        found = np.concatenate([0 * total[..., :1], total], axis=-1)
        return tf.constant(np.where(np.asarray(domain)[..., None], found, self.background))


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A phantom with no brain in a slice amid it, and in those at its top."""
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 1, 0, size=(30, 26, 10))
    case = find_cases(folder, CONFIG.study, require_segmentation=False)[0]
    whole = prepare_case(replace(case, segmentation=None), CONFIG.study, CONFIG.prepare)
    brain = whole.brain.copy()
    brain[[4, -1, -2]] = False
    return replace(whole, brain=brain)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_a_volume_is_segmented_alike_here_and_by_an_answering_model(volume, monkeypatch, reach):
    config = replace(CONFIG, prediction=replace(CONFIG.prediction, batch_slices=2))
    sums = SumOverNeighbours(reach)
    whole = sums.scores(volume.images, np.ones(volume.brain.shape, bool)).numpy()
    expected = np.array([0, 2, 4], np.uint8)[whole.argmax(-1)] * volume.brain
    sums.seen.clear()
    found = segment_volume(sums, volume, config.study, config.prediction).labels
    np.testing.assert_array_equal(found, volume.plan.from_slices(expected))
    busy = np.flatnonzero(volume.brain.any(axis=(1, 2)))
    if reach:
        # One stack, which reaches beyond the slices that have something.
        assert sums.seen == [min(busy[-1] + reach, len(expected) - 1) - max(busy[0] - reach, 0) + 1]

    def answer(images, domain):
        return np.array([0, 2, 4], np.uint8)[sums.scores(images, domain).numpy().argmax(-1)], None

    monkeypatch.setattr(volume_module, "STACK", 3)
    sums.seen.clear()
    remote = segment_remotely(answer, volume, config.study, config.prediction, reach=reach).labels
    np.testing.assert_array_equal(remote, found)
    # With a gap between them slices are sent that others need alone.
    assert max(sums.seen) <= (3 + 1 + 2 * reach if reach else 2)


def test_networks_of_other_reach_are_not_averaged():
    assert Ensemble([SumOverNeighbours(2), SumOverNeighbours(2)]).reach == 2
    with pytest.raises(ModelError, match=r"same model\.context_slices, got \[1, 5\]"):
        Ensemble([SumOverNeighbours(0), SumOverNeighbours(2)])


def test_every_slice_passes_the_trunk_once(narrow_net, monkeypatch):
    model, image = narrow_net(context_slices=3, **SMALL), uneven(7)
    # No corner decides, and every pixel is looked at.
    segmenter = SliceSegmenter(model, mode="adaptive", batch_slices=2,
                               lattice=LatticeConfig(margin=1000.0))
    seen, whole = [], segmenter.trunk

    def counted(slices, known, read):
        tf.py_function(lambda count: seen.append(int(count)), [tf.shape(slices)[0]], [])
        return whole(slices, known, read)

    monkeypatch.setattr(segmenter, "trunk", counted)
    scores = segmenter.scores(image, np.ones(image.shape[:3], bool)).numpy()
    assert sum(seen) == 7
    reference = segmenter.scorer.reference(tf.constant(image)).numpy()
    np.testing.assert_allclose(scores, reference, rtol=0, atol=1e-5 * np.abs(reference).max())
