"""A network of overlapping regions through every form that a model goes out in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

import pixelnet_tf as px
from pixelnet_tf.api.viewing import View
from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.export import export_model
from pixelnet_tf.volumes.case_volume import prepare_case
from tests.main_job import run_main

from .conftest import CASE, slices_with_brain

REGIONS = ("ET", "WT", "TC")
#: Of the whole tumour a threshold of its own: what goes out must have settled it.
CUTS = {"WT": 0.4}


def run_of(folder: Path, config: Config) -> RunFolder:
    """A run whose network's scores of each region are of either sign."""
    run = RunFolder(str(folder))
    run.start(config, Split((CASE, "phantom_002"), ("phantom_003",)),
              ClassPriors(config.study.class_names, (), (), regions=config.scored_regions))
    model = PixelNet(config.model, channels=3, classes=len(config.score_names), seed=3)
    image = np.random.default_rng(5).normal(size=(2, 32, 32, 3)).astype(np.float32)
    scores = SliceSegmenter(model).scores(image, np.ones((2, 32, 32), bool)).numpy()
    last, factor = model.parts["cls_score_new"], 2 / scores.std(axis=(0, 1, 2)).max()
    last.kernel.assign(factor * last.kernel)
    last.bias.assign(factor * (last.bias - scores.mean(axis=(0, 1, 2))))
    run.save_model(model)
    return run


@pytest.fixture(scope="module")
def region_config(serving_config) -> Config:
    return replace(
        serving_config, model=replace(serving_config.model, region_based=True),
        prepare=replace(serving_config.prepare, bias_field=replace(
            serving_config.prepare.bias_field, enabled=False)),
        prediction=replace(serving_config.prediction, prior="sampled", region_thresholds=CUTS))


@pytest.fixture(scope="module")
def region_run(tmp_path_factory, region_config) -> RunFolder:
    return run_of(tmp_path_factory.mktemp("region_run") / "run", region_config)


@pytest.fixture(scope="module")
def here(region_run, region_config, case_files):
    """The case as it is segmented by a network in this process."""
    volume = prepare_case(Case(CASE, case_files), region_config.study, region_config.prepare)
    result = px.Segmenter.from_run(region_run.path).predict(case_files, probabilities=True)
    assert set(np.unique(result.labels)) == {0, 1, 2, 4}
    return volume, result


@pytest.fixture(scope="module")
def models(region_run, region_config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("region_models")
    export_model(region_run, region_config, out, "regions")
    return out


def test_the_saved_file_says_what_the_network_here_says(models, here):
    """Loaded as another program would: by TensorFlow alone."""
    volume, result = here
    folder = models / "regions" / "1"
    answer = tf.saved_model.load(str(folder)).signatures["segment_domain"](
        image=tf.constant(volume.images), domain=tf.constant(volume.brain))
    np.testing.assert_array_equal(
        volume.plan.from_slices(answer["labels"].numpy()), result.labels)
    np.testing.assert_allclose(volume.plan.from_slices(answer["probabilities"].numpy()),
                               result.probabilities, atol=1e-6)
    about = json.loads((folder / "serving.json").read_text())
    assert about["scores"]["of"] == list(REGIONS)
    again = px.Segmenter.from_export(folder)
    assert again.config.prediction.region_thresholds == CUTS


def test_a_server_sends_the_labels_and_the_probabilities_of_regions(models, here, case_files,
                                                                    tmp_path):
    pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
    from starlette.testclient import TestClient

    from pixelnet_tf.serving.app import build_app
    from pixelnet_tf.serving.registry import ModelRegistry

    registry = ModelRegistry(models)
    registry.look()
    client = TestClient(build_app(registry, hosts=["testserver"]))
    volume, result = here
    answer = client.post("/v1/segment", files={
        modality: (path.name, path.read_bytes()) for modality, path in case_files.items()})
    assert answer.status_code == 200, answer.text
    (tmp_path / "seg.nii.gz").write_bytes(answer.content)
    np.testing.assert_array_equal(nib.load(tmp_path / "seg.nii.gz").dataobj, result.labels)
    found = client.post("/v1/models/regions:predict", json={
        "signature_name": "segment_domain", "inputs": {
            "image": volume.images[3:4].tolist(), "domain": volume.brain[3:4].tolist()}})
    assert found.status_code == 200, found.text
    np.testing.assert_allclose(found.json()["outputs"]["probabilities"][0],
                               volume.plan.to_slices(result.probabilities)[3], atol=1e-6)


def test_onnx_gives_the_scores_of_regions(region_run, region_config, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs pip install '.[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install '.[onnx]'")
    target = export_model(region_run, region_config, tmp_path, "regions", model_format="onnx")
    session = onnxruntime.InferenceSession(str(target / "model.onnx"),
                                           providers=["CPUExecutionProvider"])
    image = slices_with_brain(2, 30, 26)
    pixels = np.array([[0, 0, 0], [1, 20, 11], [0, 29, 25]], np.int32)
    scores, = session.run(["scores"], {"image": image, "pixels": pixels})
    dense = SliceSegmenter.of(region_config.prediction, region_run.network("sampled")).scores(
        image, np.ones(image.shape[:3], bool)).numpy()
    assert scores.shape == (3, len(REGIONS))
    np.testing.assert_allclose(scores, dense[tuple(pixels.T)], atol=1e-4)


def test_one_file_holds_the_network_and_its_thresholds(region_run, here, case_files, tmp_path):
    packed = px.Segmenter.from_run(region_run.path).pack(tmp_path / "model.zip")
    again = px.Segmenter.from_run(packed)
    assert again.config.model.region_based
    assert again.config.prediction.region_thresholds == CUTS
    np.testing.assert_array_equal(again.predict(case_files).labels, here[1].labels)


def test_maps_of_regions_in_the_form_of_bids(region_run, here, study, tmp_path):
    out = tmp_path / "out"
    assert run_main("predict", "--model", region_run.path, "--data", study, "--out", out,
                    "--output", "bids", "--probabilities") == 0
    stem = out / "sub-phantom001" / "anat" / "sub-phantom001"
    about = json.loads(Path(f"{stem}_probseg.json").read_text())
    assert about == {"Description": "Probability of each region, along the fourth axis",
                     "LabelMap": list(REGIONS)}
    maps = nib.load(f"{stem}_probseg.nii.gz")
    np.testing.assert_allclose(np.asarray(maps.dataobj), here[1].probabilities, atol=1e-6)
    np.testing.assert_array_equal(nib.load(f"{stem}_dseg.nii.gz").dataobj, here[1].labels)
    # The maps are of no class, so that none is among the labels' table by number.
    assert Path(f"{stem}_dseg.tsv").read_text().splitlines()[1] == "0\tbackground"


@pytest.mark.parametrize(("setting", "words"), [
    ("planes=[axial, sagittal]", r"model\.planes is \['axial', 'sagittal'\], but the training"),
    ("region_based=false", r"model\.region_based is False, but the training settled it: True"),
    ("context_slices=3", r"model\.context_slices is 3")])
def test_what_the_training_settled_about_the_network_is_no_setting(region_run, setting, words):
    with pytest.raises(ConfigError, match=words):
        px.Segmenter.from_run(region_run.path, overrides=[f"model.{setting}"])


def test_a_single_region_is_one_map_in_every_reader(region_config, study, tmp_path):
    config = replace(
        region_config, study=replace(region_config.study, labels={0: "background", 1: "lesion"},
                                     regions={"lesion": (1,)}),
        prediction=replace(region_config.prediction, region_thresholds={}))
    run = run_of(tmp_path / "run", config)
    asked = ("predict", "--model", run.path, "--data", study, "--out", tmp_path / "out",
             "--probabilities")

    def rows():
        """All but the entropy, of which there is no map."""
        lines = (tmp_path / "out" / "lesions.tsv").read_text().splitlines()
        return [line.split("\t")[:-1] for line in lines]

    assert run_main(*asked) == 0
    maps = np.asarray(nib.load(tmp_path / "out" / "probabilities" / f"{CASE}.nii.gz").dataobj)
    assert maps.shape[3:] == (1,)
    first = rows()
    assert float(first[1][-1]) > 0.5
    # As a later call makes it again, from the files alone.
    (tmp_path / "out" / "lesions" / f"{CASE}.json").unlink()
    assert run_main(*asked) == 0
    assert rows() == first
    pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
    source = View(tmp_path / "out", data=study).source
    assert source.to_json()["maps"] == ["lesion"]
    shown, _ = source.cases[0].probabilities()
    np.testing.assert_array_equal(shown, maps)
    assert len(source.layer(0, "probabilities")) > maps.size
