"""The served graph gives what local prediction gives, for every size and batch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import GuidedFilterConfig, config_from_dict, config_to_dict
from pixelnet_tf.inference.predict import CaseSource
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import segment_volume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.serving.signatures import (
    SIGNATURES,
    build_signatures,
    inside_brain,
    signatures_of,
    z_scored,
)
from pixelnet_tf.volumes.case_volume import prepare_volumes
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.normalize import z_score
from pixelnet_tf.volumes.raw_volume import RawVolume
from tests.random_weights import with_random_biases

from .conftest import CASE, slices_with_brain

VALUES = np.array([0, 1, 2, 4], np.uint8)


@pytest.fixture(scope="module")
def served(exported):
    model = tf.saved_model.load(str(exported / "tiny" / "1"))
    # The signatures live no longer than what they were loaded with.
    yield model.signatures
    del model


def test_names_of_signatures_inputs_and_outputs(served):
    found = {name: (set(f.structured_input_signature[1]), set(f.structured_outputs))
             for name, f in served.items()}
    assert found == {
        "serving_default": ({"image"}, {"labels", "probabilities"}),
        "segment_raw": ({"image", "brain"}, {"labels", "probabilities"}),
        "classify_pixels": ({"image", "pixels"}, {"scores"}),
        "segment_domain": ({"image", "domain"}, {"labels", "probabilities"}),
        "segment_encoded": ({"image_bytes", "size_yx"}, {"labels"}),
        "segment_domain_encoded": ({"image_bytes", "domain_bytes", "size_yx"}, {"labels"}),
    }
    assert {name: (set(i), set(o)) for name, (i, o) in SIGNATURES.items()} == found


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("size", [(40, 40), (48, 48), (37, 43)])
def test_labels_and_probabilities_are_the_local_ones(served, local, size, batch):
    image = slices_with_brain(batch, *size)
    scores = local.scores(image, (image != 0).any(axis=-1)).numpy()
    outputs = served["serving_default"](image=tf.constant(image))
    np.testing.assert_array_equal(outputs["labels"], VALUES[scores.argmax(axis=-1)])
    assert len(np.unique(outputs["labels"])) == 4
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], shares, atol=1e-6)


def test_the_guided_filter_is_served_too(run, serving_config, local):
    smoothed = SliceSegmenter(run.model(), smoothing=GuidedFilterConfig(4, 0.1))
    image = slices_with_brain(5, 40, 48)
    brain = (image != 0).any(axis=-1)
    _, functions = build_signatures(smoothed, serving_config)
    labels = functions["serving_default"](image)["labels"].numpy()
    np.testing.assert_array_equal(labels, VALUES[smoothed.scores(image, brain).numpy().argmax(-1)])
    assert (labels != VALUES[local.scores(image, brain).numpy().argmax(-1)])[brain].mean() > 0.05


def test_the_mean_with_mirrored_slices_is_served_too(run, serving_config, local):
    flipped = SliceSegmenter(run.model(), flips=True)
    image = slices_with_brain(5, 40, 47)
    brain = (image != 0).any(axis=-1)
    _, functions = build_signatures(flipped, serving_config)
    shares = functions["serving_default"](image)["probabilities"].numpy()[brain]
    scores = local.scores(image, brain).numpy()
    mirrored = local.scores(image[:, :, ::-1], brain[:, :, ::-1]).numpy()[:, :, ::-1]
    mean = ((scores + mirrored) / 2)[brain]
    expected = np.exp(mean) / np.exp(mean).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    alone = np.exp(scores[brain]) / np.exp(scores[brain]).sum(axis=-1, keepdims=True)
    assert np.abs(shares - alone).max() > 1e-3


def test_a_request_is_a_stack_where_hypercolumns_reach_into_other_slices(serving_config,
                                                                         eagerly):
    config = replace(serving_config, model=replace(serving_config.model, context_slices=3))
    model = with_random_biases(PixelNet(config.model, channels=3, classes=4, seed=3), 3)
    image, pixels = slices_with_brain(4, 33, 36), np.array([[0, 9, 8], [3, 30, 2]], np.int32)
    local = SliceSegmenter(model, mode="adaptive", batch_slices=3)
    _, functions = build_signatures(local, config)
    brain = (image != 0).any(axis=-1)
    scores = local.scores(image, brain).numpy()
    labels = functions["serving_default"](image)["labels"].numpy()
    np.testing.assert_array_equal(labels, VALUES[scores.argmax(-1)])
    beside = np.array([[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 2, 3]], np.int32)
    np.testing.assert_allclose(functions["classify_pixels"](image, pixels)["scores"],
                               model([image, pixels.astype(np.float32), beside]), atol=1e-5)
    texts = signatures_of(config)
    assert texts["segment_encoded"][0]["image_bytes"].endswith(
        "of one volume, consecutive and the lowest first: scores depend on up to 1 slices on each "
        "side")
    assert signatures_of(serving_config) is SIGNATURES


@pytest.mark.parametrize(("slices", "pixel", "apart"), [(6, 1.0, 2.0), (9, 0.7, 1.05)])
def test_raw_intensities_are_averaged_over_several_planes(serving_config, eagerly, slices, pixel,
                                                          apart):
    """With slices farther apart than pixels: the graph divides them as local prediction does, also
    where 13.5 rows would be one pixel each."""
    model = replace(serving_config.model, planes=("axial", "coronal", "sagittal"))
    bias_field = replace(serving_config.prepare.bias_field, enabled=False)
    config = replace(serving_config, model=model,
                     prepare=replace(serving_config.prepare, bias_field=bias_field))
    network = with_random_biases(PixelNet(model, channels=3, classes=4, seed=3), 3)
    segmenter = SliceSegmenter(network)
    raw = slices_with_brain(slices, 14, 12)
    raw += 5 * (raw != 0)
    geometry = VolumeGeometry.of((12, 14, slices), np.diag([-pixel, -pixel, apart, 1.0]))
    volume = prepare_volumes("A", {
        name: lambda k=k: RawVolume(np.moveaxis(raw[..., k], (0, 1, 2), (2, 1, 0)), geometry, "A")
        for k, name in enumerate(config.study.modalities)}, config.study, config.prepare)
    expected = segment_volume(segmenter, volume, config.study, config.prediction, True)
    _, functions = build_signatures(segmenter, config)
    none = np.zeros(raw.shape[:3], bool)
    outputs = functions["segment_raw"](raw, volume.brain, np.float32([apart, pixel, pixel]))
    np.testing.assert_array_equal(volume.plan.from_slices(outputs["labels"].numpy()),
                                  expected.labels)
    np.testing.assert_allclose(volume.plan.from_slices(outputs["probabilities"].numpy()),
                               expected.probabilities, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 4 times the other"):
        functions["segment_raw"](raw, none, np.float32([5, 1, 1]))
    inputs = signatures_of(config)["segment_raw"][0]
    assert inputs["spacing_mm"].startswith("(3,) float32, from slice to slice")
    assert "spacing_mm" not in SIGNATURES["segment_raw"][0]


def test_one_trace_for_all_sizes_and_batches(local, serving_config):
    _, functions = build_signatures(local, serving_config)
    for batch, height, width in ((1, 40, 40), (8, 48, 48), (3, 37, 43)):
        image = slices_with_brain(batch, height, width)
        functions["serving_default"](image)
        functions["segment_raw"](image, (image != 0).any(axis=-1))
        functions["classify_pixels"](image, [[0, 3, 4]])
        brain = (image != 0).any(axis=-1)
        functions["segment_domain"](image, brain)
        data = [[row.tobytes() for row in rows] for rows in (image, brain)]
        functions["segment_encoded"](data[0], [[height, width]] * batch)
        functions["segment_domain_encoded"](*data, [[height, width]] * batch)
    assert {name: f.experimental_get_tracing_count() for name, f in functions.items()} == \
        dict.fromkeys(functions, 1)


def test_raw_intensities_give_the_labels_of_a_prepared_volume(served, local, study, case_files,
                                                              serving_config):
    prepare = replace(serving_config.prepare, bias_field=replace(
        serving_config.prepare.bias_field, enabled=False))
    config = replace(serving_config, prepare=prepare)
    source = CaseSource.open(str(study), config, None)
    volume = source.read(CASE)
    expected = segment_volume(local, volume, config.study, config.prediction).labels
    raw = np.stack([volume.plan.to_slices(_intensities(case_files[m]))
                    for m in config.study.modalities], axis=-1)
    outputs = served["segment_raw"](image=tf.constant(raw), brain=tf.constant(volume.brain))
    np.testing.assert_array_equal(volume.plan.from_slices(outputs["labels"].numpy()), expected)
    assert expected.any()
    # The phantom's brain has no holes, so that its non-zero voxels are the mask.
    none = tf.zeros(volume.brain.shape, tf.bool)
    again = served["segment_raw"](image=tf.constant(raw), brain=none)
    np.testing.assert_array_equal(again["labels"], outputs["labels"])


def _intensities(path):
    from pixelnet_tf.volumes.nifti import read_volume
    return read_volume(path)[0]


def test_single_pixels_score_as_in_the_whole_slice(served, local):
    image = slices_with_brain(2, 40, 33)
    dense = local.scores(image, np.ones(image.shape[:3], bool)).numpy()
    pixels = np.array([[1, 20, 16], [0, 0, 0], [1, 39, 32], [1, 20, 16]], np.int32)
    scores = served["classify_pixels"](image=tf.constant(image), pixels=tf.constant(pixels))
    np.testing.assert_allclose(scores["scores"], dense[tuple(pixels.T)], atol=1e-5)


@pytest.mark.parametrize("pixel", [[0, 40, 0], [1, 0, 0], [0, -1, 0]])
def test_a_pixel_outside_the_image_is_refused(served, pixel):
    with pytest.raises(tf.errors.InvalidArgumentError, match="rows of n, y, x inside the image"):
        served["classify_pixels"](image=tf.zeros([1, 40, 33, 3]), pixels=tf.constant([pixel]))


def test_encoded_slices_give_the_same_labels(served):
    image = slices_with_brain(3, 37, 43)
    expected = served["serving_default"](image=tf.constant(image))["labels"]
    found = served["segment_encoded"](
        image_bytes=tf.constant([row.astype("<f4").tobytes() for row in image]),
        size_yx=tf.constant([[37, 43]] * 3))
    np.testing.assert_array_equal(found["labels"], expected)


def test_a_domain_that_is_given_is_that_of_local_prediction(run, serving_config):
    """Also where the image does not show it: padding around slices without a brain mask."""
    segmenter = SliceSegmenter(run.model(), mode="adaptive", smoothing=GuidedFilterConfig(4, 0.1))
    image = slices_with_brain(5, 48, 48)
    domain = np.zeros(image.shape[:3], bool)
    domain[:, 5:41] = True
    image[:, :5] = image[:, 41:] = 0
    scores = segmenter.scores(image, domain).numpy()
    expected = VALUES[scores.argmax(-1)]
    _, functions = build_signatures(segmenter, serving_config)
    found = functions["segment_domain"](image, domain)
    np.testing.assert_array_equal(found["labels"], expected)
    np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(scores), atol=1e-6)
    encoded = functions["segment_domain_encoded"](
        [row.tobytes() for row in image], [row.tobytes() for row in domain], [[48, 48]] * 5)
    np.testing.assert_array_equal(encoded["labels"], expected)
    # What the image shows by itself is less: the brain.
    assert (functions["serving_default"](image)["labels"].numpy() != expected).any()


@pytest.mark.parametrize("shape", [(1, 40, 40), (4, 1, 40), (4, 40, 1), (1, 1, 1), (4, 40, 39),
                                   (0, 40, 40)])
@pytest.mark.parametrize("value", [True, False])
def test_a_mask_of_another_shape_is_refused(served, shape, value):
    """None is broadcast, and an empty one, which stands for none given, has the shape too."""
    for signature, mask in (("segment_domain", "domain"), ("segment_raw", "brain")):
        with pytest.raises(tf.errors.InvalidArgumentError, match="a mask must have the slices"):
            served[signature](image=tf.ones([4, 40, 40, 3]), **{mask: tf.fill(shape, value)})


def test_raw_intensities_are_classified_where_local_prediction_does(run, serving_config):
    """Inside the brain of a skull-stripped study, whatever the z-score was taken over."""
    segmenter, image = SliceSegmenter(run.model()), slices_with_brain(3, 40, 40) * 50 + 100
    brain = np.zeros(image.shape[:3], bool)
    brain[:, 10:30, 8:33] = True
    for region in ("brain", "volume"):
        config = config_from_dict(config_to_dict(serving_config),
                                  overrides=[f"prepare.region={region}"])
        assert config.prediction.inside_brain(config.study)
        labels = build_signatures(segmenter, config)[1]["segment_raw"](image, brain)["labels"]
        assert not labels.numpy()[~brain].any()
        assert labels.numpy()[brain].any()


@pytest.mark.parametrize(("value", "text"), [
    (np.nan, "image holds NaN or infinity"), (np.inf, "image holds NaN or infinity"),
    (-np.inf, "image holds NaN or infinity"), (3e38, "the network overflows")])
def test_what_makes_no_scores_is_refused_by_every_signature(served, value, text):
    image = slices_with_brain(1, 40, 40)
    image[0, 20, 20] = value
    mask = tf.constant((image != 0).any(axis=-1))
    size = tf.constant([[40, 40]])
    inputs = {
        "serving_default": {"image": tf.constant(image)},
        "segment_raw": {"image": tf.constant(image), "brain": mask},
        "classify_pixels": {"image": tf.constant(image), "pixels": tf.constant([[0, 20, 20]])},
        "segment_domain": {"image": tf.constant(image), "domain": mask},
        "segment_encoded": {"image_bytes": tf.constant([image.tobytes()]), "size_yx": size},
        "segment_domain_encoded": {
            "image_bytes": tf.constant([image.tobytes()]), "size_yx": size,
            "domain_bytes": tf.constant([mask.numpy().tobytes()])},
    }
    assert set(inputs) == set(SIGNATURES)
    for name, values in inputs.items():
        if name == "segment_raw" and np.isfinite(value):
            # The z-score brings it into range.
            assert np.isfinite(served[name](**values)["probabilities"]).all()
            continue
        with pytest.raises(tf.errors.InvalidArgumentError, match=text):
            served[name](**values)


def test_a_zero_pixel_shut_in_is_inside_the_brain():
    image = np.zeros((1, 5, 6, 2), np.float32)
    image[0, 1:4, 1:4, 0] = 1
    image[0, 2, 2] = 0
    expected = np.zeros((1, 5, 6), bool)
    expected[0, 1:4, 1:4] = True
    np.testing.assert_array_equal(inside_brain(tf.constant(image)), expected)
    image[0, 1, 2] = 0  # Now a way leads out.
    expected[0, 1:3, 2] = False
    np.testing.assert_array_equal(inside_brain(tf.constant(image)), expected)


@pytest.mark.parametrize(("region", "side"), [("brain", 12), ("volume", 12), ("core", 12),
                                              ("core", 32)])
def test_z_score_in_the_graph(region, side):
    random = np.random.default_rng(0)
    image = (random.normal(size=(4, side, side - 3, 2)) * 50 + 300).astype(np.float32)
    image[..., 1] = 7  # A constant channel.
    # In the small head nothing is deep enough for a core.
    brain = np.zeros((4, side, side - 3), bool)
    brain[1:, 2:-1, 1:] = True
    found = z_scored(tf.constant(image), tf.constant(brain), region)
    for channel in (0, 1):
        # Here the slices come first, there last.
        expected, *_ = z_score(np.moveaxis(image[..., channel], 0, -1),
                               np.moveaxis(brain, 0, -1), region)
        expected = np.moveaxis(expected, -1, 0)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-6)


def test_it_loads_without_keras_and_without_this_project(exported):
    code = ("import sys\n"
            "sys.modules.update(dict.fromkeys(('keras', 'pixelnet_tf')))\n"
            "import tensorflow as tf\n"
            f"model = tf.saved_model.load({str(exported / 'tiny' / '1')!r})\n"
            "out = model.signatures['serving_default'](image=tf.ones([1, 40, 40, 3]))\n"
            "print(*out['labels'].shape, out['probabilities'].shape[-1])\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          check=False)
    assert done.stdout.split() == ["1", "40", "40", "4"], done.stderr[-2000:]
