"""Predictions of many cases: files, geometry, and what is kept."""

import hashlib
import json
import shutil
import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import config_to_dict, load_config
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.inference import predict as predict_module
from pixelnet_tf.inference.predict import CaseSource, predict_cases, write_cases
from pixelnet_tf.inference.volume import SegmentedVolume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.volumes.case_volume import prepare_case
from pixelnet_tf.volumes.phantom_study import write_phantom

CONFIG = load_config("phantom", [
    "prepare.bias_field.enabled=false", "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]",
    "model.border=16", "prediction.prior=sampled"])
NO_CORRECTION = np.zeros(4, np.float32)

#: A scan that was tilted, flipped and anisotropic, with different qform and sform codes.
TILTED = np.array([[-1.9, 0.3, 0.1, 91.25], [0.31, 1.88, -0.2, -70.5], [0.05, 0.22, 2.9, 13.125],
                   [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_phantom(folder, 3, 0, size=(30, 26, 8))
    for path in (folder / "phantom_002").iterdir():
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        tilted = nib.Nifti1Image(array, None, header=image.header)
        tilted.header.set_qform(TILTED, code=1, strip_shears=True)
        tilted.header.set_sform(tilted.header.get_qform(), code=2)
        tilted.header["descrip"] = b"tilted"
        nib.save(tilted, path)
    return folder


@pytest.fixture(scope="module")
def prepared(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare_study(CONFIG, study, str(out), workers=1)
    return out


@pytest.fixture(scope="module")
def model():
    return PixelNet(CONFIG.model, 3, 4, seed=2)


class Said:
    """A reporter that remembers."""

    def __init__(self):
        self.messages, self.warnings, self.done = [], [], []

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)

    def progress(self, task, done, total, detail=""):
        if task == "segmenting":
            self.done.append(detail)


def predict(model, data, out, config=CONFIG, names=None, model_name="", truth=False, **options):
    source = CaseSource.open(str(data), config, names, truth=truth)
    said = Said()
    predict_cases([TrainedNetwork(model, NO_CORRECTION, model_name)], source, config, out,
                  reporter=said, **options)
    return said


def segment(volume):
    """Labels of whatever lies high in the images: any function of them does to keep books."""
    classes = np.where(volume.images.sum(axis=-1) > 1, 2, 0).astype(np.uint8)
    return SegmentedVolume(volume.plan.from_slices(classes), np.ones(
        (*volume.geometry.shape, 4), np.float32))


def write(data, out, config=CONFIG, names=None, weights="w", truth=False, **options):
    """As `predict`, with a stand-in for the network, which takes a second to be traced."""
    said = Said()
    write_cases(segment, {"networks": [{"model": "m", "weights": weights, "correction": [0.0]}]},
                CaseSource.open(str(data), config, names, truth=truth), config, out,
                reporter=said, **options)
    return said


def test_one_file_a_case_with_the_geometry_of_the_input(model, study, prepared, tmp_path):
    said = predict(model, prepared, tmp_path / "out", model_name="run")
    assert said.done == ["phantom_001", "phantom_002", "phantom_003"]
    for case in ("phantom_001", "phantom_002", "phantom_003"):
        given = nib.load(study / case / f"{case}_flair.nii.gz")
        written = nib.load(tmp_path / "out" / f"{case}.nii.gz")
        assert written.get_data_dtype() == np.uint8
        for field in ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c",
                      "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y",
                      "srow_z", "xyzt_units"):
            assert given.header[field].tobytes() == written.header[field].tobytes(), field
        np.testing.assert_array_equal(given.affine, written.affine)
        labels = np.asarray(written.dataobj)
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        assert labels.any()
        # Outside the brain a skull-stripped volume is zero, and there is no lesion there.
        assert not labels[np.asarray(given.dataobj) == 0].any()
    about = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert about["cases"] == ["phantom_001", "phantom_002", "phantom_003"]
    network, = about["networks"]
    assert network["model"] == "run"
    assert network["correction"] == [0.0] * 4
    assert about["config"] == json.loads(json.dumps(config_to_dict(CONFIG)))


def test_raw_images_are_prepared_as_for_the_training(model, study, prepared, tmp_path):
    predict(model, prepared, tmp_path / "a")
    predict(model, study, tmp_path / "b")
    for path in (tmp_path / "a").glob("*.nii.gz"):
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj),
                                      np.asarray(nib.load(tmp_path / "b" / path.name).dataobj))


def test_probabilities(model, prepared, tmp_path):
    config = replace(CONFIG, prediction=replace(CONFIG.prediction, probability_maps=True))
    predict(model, prepared, tmp_path / "out", config, ["phantom_001"])
    maps = nib.load(tmp_path / "out" / "probabilities" / "phantom_001.nii.gz")
    assert maps.shape == (30, 26, 8, 4)
    labels = np.asarray(nib.load(tmp_path / "out" / "phantom_001.nii.gz").dataobj)
    best = np.array([0, 1, 2, 4])[np.asarray(maps.dataobj).argmax(-1)]
    assert (best == labels).mean() > 0.999


def test_another_network_is_told_by_its_weights(model):
    network = TrainedNetwork(model, NO_CORRECTION)
    assert network.digest() == TrainedNetwork(model, NO_CORRECTION, "elsewhere").digest()
    other = TrainedNetwork(PixelNet(CONFIG.model, 3, 4, seed=3), NO_CORRECTION)
    assert len({network.digest(), other.digest()}) == 2
    # As earlier versions wrote it: the arrays one after the other.
    arrays = hashlib.sha256(b"".join(array.tobytes() for array in model.get_weights()))
    assert network.digest() == arrays.hexdigest()


def test_finished_cases_are_kept(prepared, tmp_path):
    out = tmp_path / "out"
    write(prepared, out)
    kept = out / "phantom_001.nii.gz"
    before = kept.stat().st_mtime_ns
    (out / "phantom_003.nii.gz").unlink()
    said = write(prepared, out)
    assert said.messages == ["2 finished cases are kept"]
    assert said.done == ["phantom_003"]
    assert kept.stat().st_mtime_ns == before
    assert (out / "phantom_003.nii.gz").is_file()


def test_a_failure_keeps_what_is_finished(prepared, tmp_path):
    def draw(volume, labels):
        if volume.name == "phantom_002":
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(prepared, tmp_path / "out", draw=draw)
    assert (tmp_path / "out" / "phantom_001.nii.gz").is_file()
    assert not (tmp_path / "out" / "phantom_002.nii.gz").exists()
    said = write(prepared, tmp_path / "out")
    assert said.messages == ["1 finished cases are kept"]


def test_results_of_another_model_or_setting_are_refused(prepared, tmp_path):
    out = tmp_path / "out"
    write(prepared, out, names=["phantom_001"])
    before = (out / "phantom_001.nii.gz").read_bytes()
    other_mode = replace(CONFIG, prediction=replace(CONFIG.prediction, mode="reference"))
    # Of another case, too: a folder holds the results of one model.
    for names in (["phantom_001"], ["phantom_002"]):
        with pytest.raises(DataError, match="phantom_001: other settings of the prediction"):
            write(prepared, out, other_mode, names)
    # The same path and settings, other weights: the run was trained anew.
    with pytest.raises(DataError, match=r"phantom_001: another network\n.*--overwrite"):
        write(prepared, out, weights="others")
    assert (out / "phantom_001.nii.gz").read_bytes() == before
    assert json.loads((out / "prediction.json").read_text())["cases"] == ["phantom_001"]
    # More cases of the same model complete the folder.
    write(prepared, out, names=["phantom_003"])
    write(prepared, out, names=["phantom_002"])
    assert len(list(out.glob("*.nii.gz"))) == 3
    assert sorted(json.loads((out / "prediction.json").read_text())["cases"]) == [
        "phantom_001", "phantom_002", "phantom_003"]
    said = write(prepared, out, names=["phantom_002"], weights="others", overwrite=True)
    assert "3 segmentations that were made from something else are removed" in said.warnings[0]
    assert [path.name for path in out.glob("*.nii.gz")] == ["phantom_002.nii.gz"]
    assert json.loads((out / "prediction.json").read_text())["cases"] == ["phantom_002"]


def with_case(study, folder, case, source, **changes):
    """A study of one case with the images of `source`; {modality: function} changes them."""
    for path in (study / source).iterdir():
        modality = path.name.removesuffix(".nii.gz").rsplit("_", 1)[1]
        (folder / case).mkdir(parents=True, exist_ok=True)
        target = folder / case / f"{case}_{modality}.nii.gz"
        if modality in changes:
            image = nib.load(path)
            array = changes[modality](np.asarray(image.dataobj).copy())
            image.header.set_data_dtype(array.dtype)
            nib.save(nib.Nifti1Image(array, None, image.header), target)
        else:
            target.write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["raw", "prepared"])
def test_a_case_of_the_same_name_with_other_images_is_another_case(study, tmp_path, kind):
    """Another hospital's case of one name, and the same case with a corrected image."""
    out = tmp_path / "out"

    def data(name, *arguments, **changes):
        folder = with_case(study, tmp_path / name, "p1", *arguments, **changes)
        if kind == "prepared":
            prepare_study(CONFIG, folder, str(tmp_path / f"{name}_prepared"), workers=1)
            return tmp_path / f"{name}_prepared"
        return folder

    first = data("a", "phantom_001")
    write(first, out)
    before = (out / "p1.nii.gz").read_bytes()
    others = (data("b", "phantom_003"),
              data("c", "phantom_001", t2=lambda array: array + (array == array.max())))
    for other in others:
        with pytest.raises(DataError, match="p1: other images"):
            write(other, out)
        with pytest.raises(DataError, match="p1: other images"):
            write(other, out, dry_run=True)
        assert (out / "p1.nii.gz").read_bytes() == before
        write(other, tmp_path / f"{other.name}_alone")
        write(other, out, overwrite=True)
        assert (out / "p1.nii.gz").read_bytes() == (
            tmp_path / f"{other.name}_alone" / "p1.nii.gz").read_bytes()
        write(first, out, overwrite=True)
    # Kept: the same contents elsewhere, another truth.
    again = data("d", "phantom_001", seg=lambda array: 0 * array + (array > 0))
    assert write(again, out).messages == ["1 finished cases are kept"]


def test_prepared_and_raw_images_complete_one_folder(study, prepared, tmp_path):
    write(prepared, tmp_path / "out", names=["phantom_001"])
    said = write(study, tmp_path / "out")
    assert said.messages == ["1 finished cases are kept"]


def test_a_segmentation_of_unknown_origin_is_not_taken_for_finished(prepared, tmp_path):
    write(prepared, tmp_path / "out", names=["phantom_001"])
    (tmp_path / "out" / "manifest.jsonl").unlink()
    about = json.loads((tmp_path / "out" / "prediction.json").read_text())
    del about["made_from"]
    (tmp_path / "out" / "prediction.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="phantom_001: nothing says what it was made from"):
        write(prepared, tmp_path / "out")


BAD_IMAGES = {
    "NaN": (lambda array: np.where(array > 0, np.nan, 0).astype(np.float32), "NaN or infinite"),
    "zero": (lambda array: 0 * array, "every voxel is 0"),
    "constant": (lambda array: 0 * array + 5, "every voxel is 5"),
    "another grid": (lambda array: array[1:], "not on the grid"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_every_case_is_checked_before_any_work(study, tmp_path, kind):
    change, words = BAD_IMAGES[kind]
    folder = with_case(study, tmp_path / "study", "p1", "phantom_001")
    with_case(study, folder, "p2", "phantom_003", t1ce=change)
    for dry_run in (True, False):
        with pytest.raises(DataError, match=f"1 of 2 cases(.|\n)*p2: .*{words}") as error:
            write(folder, tmp_path / "out", dry_run=dry_run)
        assert "--skip-bad-cases" in str(error.value)
        assert not (tmp_path / "out").exists()
    said = write(folder, tmp_path / "out", skip_bad_cases=True)
    assert "left out p2: " in said.warnings[0]
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["p1.nii.gz"]
    about = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [entry["case"] for entry in about["left_out"]] == ["p2"]
    # Whoever scores the folder is to notice that a case is missing.
    assert about["cases"] == ["p1", "p2"]


def test_a_missing_modality_is_seen_before_any_work(study, tmp_path):
    folder = with_case(study, tmp_path / "study", "p1", "phantom_001")
    with_case(study, folder, "p2", "phantom_003")
    (folder / "p2" / "p2_t2.nii.gz").unlink()
    with pytest.raises(DataError, match=r"p2: modality 't2' is missing"):
        write(folder, tmp_path / "out", dry_run=True)


def test_slices_too_small_for_the_network_are_seen_before_any_work(study, tmp_path):
    config = load_config("phantom", ["model.fc7=faithful", "model.border=16"])
    source = CaseSource.open(str(study), config)
    sound, problems = source.check()
    assert sound.names == ()
    assert {problem.case for problem in problems} == set(source.names)
    assert "too small" in problems[0].message


def test_a_broken_shard_is_seen_before_any_work(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "p")
    shard = tmp_path / "p" / "cases" / "phantom_003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"phantom_003.*missing or cut short"):
        write(tmp_path / "p", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_case_that_fails_later_is_left_out_too(study, tmp_path, monkeypatch):
    def fails(case, *settings):
        if case.name == "phantom_002":
            raise DataError("no field can be fitted", case="phantom_002")
        return prepare_case(case, *settings)

    monkeypatch.setattr(predict_module, "prepare_case", fails)
    with pytest.raises(DataError, match="no field can be fitted"):
        write(study, tmp_path / "a")
    said = write(study, tmp_path / "b", skip_bad_cases=True)
    assert said.done == ["phantom_001", "phantom_003"]
    assert json.loads((tmp_path / "b" / "prediction.json").read_text())["left_out"] == [
        {"case": "phantom_002", "reason": "no field can be fitted"}]


@pytest.mark.parametrize("damage", ["label", "broken", "twice"])
def test_a_segmentation_at_fault_blocks_no_prediction(study, tmp_path, damage):
    folder = with_case(study, tmp_path / "study", "p1", "phantom_001",
                       seg=lambda array: array + 90)
    path = folder / "p1" / "p1_seg.nii.gz"
    if damage == "broken":
        path.write_bytes(b"no volume")
    config = CONFIG
    if damage == "twice":
        (folder / "p1" / "p1_seg2.nii.gz").write_bytes(path.read_bytes())
        files = {m: f"*_{m}.nii.gz" for m in CONFIG.study.modalities} | {"seg": "*_seg*.nii.gz"}
        config = replace(CONFIG, study=replace(CONFIG.study, layout="pattern", files=files))
    assert write(folder, tmp_path / "a", config).warnings == []
    drawn = []
    said = write(folder, tmp_path / "b", config, truth=True,
                   draw=lambda volume, labels: drawn.append(volume.labels))
    assert drawn == [None]
    assert said.warnings[0].startswith("the truth of p1 is not drawn")
    assert (tmp_path / "a" / "p1.nii.gz").read_bytes() == (
        tmp_path / "b" / "p1.nii.gz").read_bytes()


def test_pictures_of_cases_that_were_finished_before(study, tmp_path):
    """What is asked for later is made later, from the labels that are there."""
    drawn = {}

    def draw(volume, labels):
        drawn[volume.name] = labels
        path = tmp_path / "out" / "overlays" / f"{volume.name}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()

    out = tmp_path / "out"
    write(study, out, names=["phantom_001"])
    said = write(study, out, draw=draw)
    assert said.messages == ["1 finished cases are kept"]
    assert list(drawn) == ["phantom_001", "phantom_002", "phantom_003"]
    for name, labels in drawn.items():
        np.testing.assert_array_equal(labels, np.asarray(nib.load(out / f"{name}.nii.gz").dataobj))
        assert labels.dtype == np.uint8
    drawn.clear()
    write(study, out, draw=draw)
    assert drawn == {}
    # Probabilities likewise; the labels are the same.
    before = (out / "phantom_001.nii.gz").read_bytes()
    maps = replace(CONFIG, prediction=replace(CONFIG.prediction, probability_maps=True))
    write(study, out, maps, ["phantom_001"])
    assert (out / "probabilities" / "phantom_001.nii.gz").is_file()
    assert (out / "phantom_001.nii.gz").read_bytes() == before


def test_training_cases_are_named(prepared, tmp_path):
    said = write(prepared, tmp_path / "out", trained_on={"phantom_001", "elsewhere"})
    assert "trained on, or chosen by, 1 of the 3 cases (phantom_001)" in said.warnings[0]
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["trained_on"] == [
        "phantom_001"]


def test_training_cases_of_a_network_that_was_replaced_are_forgotten(prepared, tmp_path):
    out = tmp_path / "out"

    def recorded(weights, trained_on, **options):
        write(prepared, out, weights=weights, trained_on=trained_on, **options)
        return json.loads((out / "prediction.json").read_text())["trained_on"]

    assert recorded("w", {"phantom_001"}) == ["phantom_001"]
    assert recorded("w", ()) == ["phantom_001"]
    assert recorded("w", (), names=["phantom_002"]) == ["phantom_001"]
    assert recorded("others", {"phantom_003"}, overwrite=True) == ["phantom_003"]


def test_a_segmentation_of_images_that_broke_since_is_not_left_in_place(study, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    with_case(study, data, "p1", "phantom_001")
    with_case(study, data, "p2", "phantom_003")
    write(data, out)
    with_case(study, data, "p2", "phantom_003", t2=lambda array: 0 * array)
    with pytest.raises(DataError, match="p2: images that cannot be used any more"):
        write(data, out, skip_bad_cases=True)
    assert (out / "p2.nii.gz").is_file()
    write(data, out, skip_bad_cases=True, overwrite=True)
    assert [path.name for path in out.glob("*.nii.gz")] == ["p1.nii.gz"]
    about = json.loads((out / "prediction.json").read_text())
    assert [entry["case"] for entry in about["left_out"]] == ["p2"]
    assert write(data, out, skip_bad_cases=True).messages == ["1 finished cases are kept"]


def test_results_do_not_go_among_the_data(study, prepared):
    for data in (study, prepared):
        for out in (data, data / "phantom_001", data / "predictions"):
            with pytest.raises(ConfigError, match=f"lies within {data}"):
                write(data, out)
        assert not (data / "predictions").exists()


def test_names_that_are_not_there(study, prepared, tmp_path):
    for data in (study, prepared):
        with pytest.raises(DataError, match=r"no case 'phantom_004' .did you mean 'phantom_00"):
            CaseSource.open(str(data), CONFIG, None, ["phantom_004"])
    with pytest.raises(DataError, match="the chosen part of the split has no case"):
        CaseSource.open(str(prepared), CONFIG, [])
    with pytest.raises(DataError):
        CaseSource.open(str(tmp_path / "nowhere"), CONFIG, None)


def test_two_at_once_share_the_cases(prepared, tmp_path):
    """The second begins within the first case; each case is segmented by one of them."""
    found, ready = [], threading.Event()

    def count(whose, begin=lambda: None):
        def segment_and_tell(volume):
            found.append((whose, volume.name))
            ready.set()
            begin()
            return segment(volume)
        return segment_and_tell

    def run(whose, out, config=CONFIG, **options):
        return write_cases(count(whose, **options), {"networks": [
            {"model": "m", "weights": "w", "correction": [0.0]}]},
            CaseSource.open(str(prepared), CONFIG), config, out, reporter=Said())

    thread = threading.Thread(target=lambda: summaries.append(run("second", tmp_path / "two")))
    summaries = []

    def begin():
        if not thread.ident:
            with pytest.raises(RunError, match=r"in use by `predict` \(.* with other settings"):
                run("third", tmp_path / "two", replace(CONFIG, prediction=replace(
                    CONFIG.prediction, batch_slices=9)))
            ready.clear()
            thread.start()
            assert ready.wait(60)

    summaries.append(run("first", tmp_path / "two", begin=begin))
    thread.join()
    assert sorted(case for _, case in found) == ["phantom_001", "phantom_002", "phantom_003"]
    assert {whose for whose, _ in found} == {"first", "second"}
    assert sorted(sum((summary.segmented for summary in summaries), ())) == [
        "phantom_001", "phantom_002", "phantom_003"]
    for summary in summaries:
        assert len((*summary.segmented, *summary.kept)) == 3
    run("alone", tmp_path / "one")
    sides = [{path.name: path.read_bytes() for path in (tmp_path / side).glob("*.*")
              if path.name != "manifest.jsonl"} for side in ("one", "two")]
    assert sides[0] == sides[1]
