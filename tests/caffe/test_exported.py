"""What lies beside an exported Caffe network is enough to use it: description and scripts.

pycaffe is in no registry. All of the scripts is run here but Caffe's own `forward`, for which a
stand-in answers with the network that this project builds from the same two files.
"""

import importlib
import json
import sys
import types

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy.spatial.transform import Rotation

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.export import FILES, describe_network, export_caffe
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import ModelError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import PredictionGrid, segment_volume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.phantom_study import write_phantom

SMALL = ("model.widths=[2, 2, 3, 3, 4]", "model.fc7=none", "model.head_widths=[6]",
         "model.border=16", "model.head_filler=he", "prediction.batch_slices=4")
WITHOUT_N4 = "prepare.bias_field.enabled=false"
CORRECTION = np.float32([0.3, -0.1, 0.0, -0.4])
#: Settings of every kind, and how the case is stored.
SETTINGS = {
    "stripped, N4": ("LPS", ["prepare.bias_field.iterations=[6, 4]"]),
    "N4 of one modality, stored upside down": ("PIR", [
        "prepare.bias_field.modalities=[t2]", "prepare.bias_field.iterations=[5]",
        "prepare.bias_field.shrink_factor=2"]),
    "over the volume": ("RAS", [WITHOUT_N4, "prepare.region=volume"]),
    "head, core": ("SAL", [WITHOUT_N4, "study.skull_stripped=false", "prepare.region=core",
                           "prediction.brain_only=yes"]),
    "every pixel, scaled": ("ARS", [WITHOUT_N4, "prepare.slice_size=63",
                                    "prediction.brain_only=no"]),
    "scaled": ("RPI", [WITHOUT_N4, "prepare.slice_size=75"]),
    # Turned about all three axes, so far that nibabel assigns them otherwise, one by one.
    "oblique": (Rotation.from_euler("xyz", (-162.4, -44.4, -161.1), degrees=True),
                ["prepare.bias_field.iterations=[4]"]),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    """A phantom of 40x48x7 voxels, 1x1.25x3 mm, with a hole in its brain."""
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 1, 0, size=(40, 48, 7))
    names = {m: folder / "phantom_001" / f"phantom_001_{m}.nii.gz" for m in ("flair", "t1ce", "t2")}
    for path in names.values():
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        array[20:23, 18:22, 3] = 0
        nib.save(nib.Nifti1Image(array, np.diag([-1, -1.25, 3, 1])), path)
    return Case("phantom_001", names, None)


def stored(case: Case, axes: str | Rotation, folder) -> Case:
    """The case with its files' axes in another order, or with the head turned."""
    volumes = {}
    for modality, path in case.volumes.items():
        image = nib.load(path)
        if isinstance(axes, Rotation):
            affine = np.eye(4)
            affine[:3, :3] = axes.as_matrix() * (1, 1.25, 3)
            turned = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        else:
            turned = image.as_reoriented(orientations.ornt_transform(
                nib.io_orientation(image.affine), orientations.axcodes2ornt(axes)))
        volumes[modality] = folder / path.name
        nib.save(turned, volumes[modality])
    return Case(case.name, volumes, None)


class CaffeNet:
    """What the script uses of `caffe.Net`, answered by the network that this project builds."""

    class Blob:
        def __init__(self):
            self.data = np.zeros(0, np.float32)

        def reshape(self, *shape):
            self.data = np.zeros(shape, np.float32)

    def __init__(self, prototxt, caffemodel, phase):
        assert phase == "TEST"
        self.network = build_model(read_network(prototxt, caffemodel), blobs=["fc8_new"])
        self.blobs = {name: self.Blob() for name in ("data", "pixels", "fc8_new")}

    def forward(self):
        found = self.network.run_caffe({name: self.blobs[name].data
                                        for name in ("data", "pixels")})
        self.blobs["fc8_new"].data = found["fc8_new"]


@pytest.fixture
def script(monkeypatch):
    """A function that imports a script from the folder of an export."""
    monkeypatch.setitem(sys.modules, "caffe", types.SimpleNamespace(Net=CaffeNet, TEST="TEST"))

    def load(folder, name: str):
        for one in ("preparation", "segment_nifti"):
            monkeypatch.delitem(sys.modules, one, raising=False)
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module(name)

    yield load
    for one in ("preparation", "segment_nifti"):
        sys.modules.pop(one, None)


def export(config, folder):
    model = PixelNet(config.model, channels=3, classes=4, seed=3)
    for layer in model.parts.values():
        if layer.weights:
            layer.bias.assign(np.random.default_rng(1).normal(0, 0.3, layer.bias.shape))
    export_caffe(model, config, CORRECTION, folder)
    return model


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_scripts_preparation_equals_predicts(setting, case, script, tmp_path):
    axes, overrides = SETTINGS[setting]
    config = load_config("phantom", [*SMALL, *overrides])
    turned = stored(case, axes, tmp_path)
    export(config, tmp_path / "caffe")
    about = json.loads((tmp_path / "caffe" / "serving.json").read_text())
    preparation = script(tmp_path / "caffe", "preparation")
    images, wanted = preparation.prepare([nib.load(p) for p in turned.volumes.values()], about)
    volume = prepare_case(turned, config.study, config.prepare)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, volume.images, rtol=0, atol=1e-6)
    grid = PredictionGrid.of(volume, config.prediction.inside_brain(config.study))
    np.testing.assert_array_equal(wanted, grid.read_out)
    assert 0 < wanted.mean() < 1 or setting == "every pixel, scaled"


def test_the_script_takes_a_head_that_reaches_through_every_slice(case, script, tmp_path):
    config = load_config("phantom", [*SMALL, WITHOUT_N4, "study.skull_stripped=false"])
    export(config, tmp_path / "caffe")
    about = json.loads((tmp_path / "caffe" / "serving.json").read_text())
    preparation = script(tmp_path / "caffe", "preparation")
    volumes = {}
    for name, path in case.volumes.items():
        image = nib.load(path)
        array = np.repeat(np.asarray(image.dataobj)[:, :, 3:4], 4, axis=2)
        volumes[name] = tmp_path / path.name
        nib.save(nib.Nifti1Image(array, image.affine), volumes[name])
    files = [nib.load(path) for path in volumes.values()]
    images, wanted = preparation.prepare(files, about)
    volume = prepare_case(Case("slab", volumes), config.study, config.prepare)
    np.testing.assert_allclose(images, volume.images, rtol=0, atol=1e-6)
    assert volume.brain.any(axis=(1, 2)).all()
    assert wanted.any()
    empty = [nib.Nifti1Image(np.zeros(file.shape, np.float32), file.affine) for file in files]
    about["normalisation"]["skull_stripped"] = True
    with pytest.raises(SystemExit, match="no voxel belongs to the patient"):
        preparation.prepare(empty, about)


def test_the_script_gives_predicts_labels(case, script, tmp_path, monkeypatch, capsys):
    config = load_config("phantom", [*SMALL, WITHOUT_N4, "prepare.slice_size=75"])
    turned = stored(case, "RPI", tmp_path)
    found, expected = labels_of_both(turned, config, script, tmp_path, monkeypatch)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, nib.load(turned.volumes["flair"]).affine)
    # Sums of float32 in another order: a pixel between two classes may fall to either side.
    assert np.mean(np.asarray(found.dataobj) != expected) < 1e-3
    assert "reach" not in capsys.readouterr().out


def test_without_border_pixels_past_the_maps_are_left_out_and_counted(case, script, tmp_path,
                                                                      monkeypatch, capsys):
    config = load_config("phantom", [*SMALL, WITHOUT_N4, "model.border=0",
                                     "prediction.brain_only=no"])
    found, expected = labels_of_both(case, config, script, tmp_path, monkeypatch)
    # By the centres of the last cells: along 40 columns the map of rate 8 ends first (5 cells:
    # 4 * 8 + 3), along 48 rows that of rate 16 (3 cells: 2 * 16 + 7).
    assert f"{7 * (40 * 48 - 36 * 40)} pixels" in capsys.readouterr().out
    labels = np.asarray(found.dataobj)
    assert np.mean(labels[:36, :40] != expected[:36, :40]) < 1e-3
    assert not labels[36:].any()
    assert not labels[:, 40:].any()


def labels_of_both(case, config, script, folder, monkeypatch):
    """The image that the script writes, and the labels that `predict` gives."""
    model = export(config, folder / "caffe")
    segment_nifti = script(folder / "caffe", "segment_nifti")
    # A slice takes several calls of the network.
    monkeypatch.setattr(segment_nifti, "PIXELS_AT_ONCE", 1000)
    segment_nifti.main(str(folder / "labels.nii.gz"), *map(str, case.volumes.values()))
    volume = prepare_case(case, config.study, config.prepare)
    segmenter = SliceSegmenter.of(config.prediction, TrainedNetwork(model, CORRECTION))
    expected = segment_volume(segmenter, volume, config.study, config.prediction).labels
    assert len(np.unique(expected)) > 2
    return nib.load(folder / "labels.nii.gz"), expected


@pytest.mark.parametrize(("files", "message"), [
    (["flair", "t1ce"], "flair, t1ce, t2"), (["flair", "other", "t2"], "not on one grid")])
def test_the_script_refuses_other_images(files, message, case, script, tmp_path):
    export(load_config("phantom", [*SMALL, WITHOUT_N4]), tmp_path / "caffe")
    image = nib.load(case.volumes["t2"])
    moved = image.affine.copy()
    moved[0, 3] += 2
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), tmp_path / "other.nii.gz")
    paths = {**case.volumes, "other": tmp_path / "other.nii.gz"}
    segment_nifti = script(tmp_path / "caffe", "segment_nifti")
    with pytest.raises(SystemExit, match=message):
        segment_nifti.main(str(tmp_path / "x.nii.gz"), *(str(paths[name]) for name in files))


def test_the_prototxt_and_serving_json_say_how_to_feed_and_what_is_left_out(tmp_path):
    config = load_config("phantom", [
        *SMALL, "prediction.guided_filter.radius=7", "prediction.postprocess.fill_holes=true",
        "study.labels={0: background, 1: necrosis, 2: \"ede\\nma }\", 4: enhancing}"])
    export(config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    text = (tmp_path / "deploy.prototxt").read_text()
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines()
                       if line.startswith("#"))
    for words in (
            "Channels, in this order: flair, t1ce, t2.",
            "0 background (label 0), 1 necrosis (label 1), 2 ede ma } (label 2), 3 enhancing "
            "(label 4)",
            "axial slices, row 0 anterior, column 0 the patient's right",
            "mean 0 and standard deviation 1 over the brain of its volume",
            "where any channel is not 0, holes filled slice by slice",
            "N4 bias field correction of flair, t1ce, t2",
            "prior adds to fc8_new (corrected: +0.3000, -0.1000, +0.0000, -0.4000)",
            "guided filter (radius 7 pixels, epsilon 0.01)", "fill_holes: True"):
        assert words in comment, words
    # A class name with a line break stays inside the comment.
    assert read_network(tmp_path / "deploy.prototxt").inputs[0].shape == (1, 3, 256, 256)
    about = json.loads((tmp_path / "serving.json").read_text())
    left = about["not_in_the_network"]
    assert left["prior_correction"] == [float(value) for value in CORRECTION]
    assert left["guided_filter"]["radius"] == 7
    assert left["postprocess"]["fill_holes"] is True
    assert about["classes"][3] == {"index": 3, "value": 4, "name": "enhancing"}


def test_a_configuration_of_other_channels_is_refused(tmp_path):
    config = load_config("phantom", SMALL)
    with pytest.raises(ModelError, match="the model has 2 channels"):
        describe_network(PixelNet(config.model, 2, 4, seed=1), config, CORRECTION)
