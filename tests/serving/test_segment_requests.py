"""What /v1/segment can be asked, how far a request is, and DICOM series as volumes."""

from __future__ import annotations

import gzip
import io
import json
import threading
import zipfile
from dataclasses import replace
from email import message_from_bytes

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.cases.case import Case
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import segment_volume
from pixelnet_tf.serving.about import offered_priors
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.jobs import Jobs
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.volumes.case_volume import prepare_case
from tests.dicom_study import write_series

LIMITS = ServerLimits(json_mib=1, upload_mib=1, slices=16, side=64, pixels=2**16)
JOB = "0123456789abcdef"


@pytest.fixture(scope="module")
def client(registry):
    return TestClient(build_app(registry, LIMITS, hosts=["testserver"]))


def files_of(case_files) -> dict:
    return {modality: path.read_bytes() for modality, path in case_files.items()}


def test_what_a_model_takes_is_told(client):
    told = client.get("/v1/segment").json()
    assert told["upload_mib"] == 1
    model, = told["models"]
    assert model["name"] == "tiny"
    assert model["modalities"] == ["flair", "t1ce", "t2"]
    assert model["priors"] == ["sampled", "corrected"]
    assert [label["value"] for label in model["labels"]] == [0, 1, 2, 4]
    assert model["labels"][1]["colour"].startswith("#")


@pytest.mark.parametrize("prior", ["sampled", "corrected"])
def test_each_prior_gives_the_labels_of_local_prediction(client, run, case_files, serving_config,
                                                         prior):
    """Also of the one that the model was not exported with."""
    answer = client.post(f"/v1/segment?prior={prior}", files=files_of(case_files))
    assert answer.status_code == 200, answer.text
    volume = prepare_case(Case("case", case_files), serving_config.study, serving_config.prepare)
    prediction = replace(serving_config.prediction, prior=prior)
    expected = segment_volume(SliceSegmenter(run.model(), run.priors().correction(prior)), volume,
                              serving_config.study, prediction).labels
    found = np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(
        answer.content)).dataobj)
    # A probability that float32 cannot hold comes back from the graph as 0.
    assert (found != expected).mean() < 1e-4
    assert expected.any()


@pytest.mark.parametrize("change", [
    {"training": {"class_frequency": {}}}, {"networks": ["a", "b"]},
    {"prediction": {"guided_filter": {"radius": 3, "epsilon": 0.01}}},
    {"prediction": {"mode": "adaptive"}}])
def test_models_whose_scores_are_not_known_keep_their_prior(registry, change):
    about = json.loads(json.dumps(registry.models[0].about))
    assert list(offered_priors(about)) == ["sampled", "corrected"]
    about["config"]["prediction"] |= change.pop("prediction", {})
    assert list(offered_priors(about | change)) == ["sampled"]


def test_a_prior_that_cannot_be_had_is_refused_before_the_files_are_read(client):
    answer = client.post("/v1/segment?prior=fitted", content=b"")
    assert answer.status_code == 400
    assert "['sampled', 'corrected']" in answer.json()["error"]


def test_a_request_tells_how_far_it_is_and_is_forgotten(client, case_files):
    assert client.get(f"/v1/jobs/{JOB}").status_code == 404
    answers, seen = [], []
    asking = threading.Thread(target=lambda: answers.append(client.post(
        f"/v1/segment?job={JOB}", files=files_of(case_files))))
    asking.start()
    while asking.is_alive():
        answer = client.get(f"/v1/jobs/{JOB}")
        if answer.status_code == 200:
            seen.append(answer.json())
    asking.join()
    assert answers[0].status_code == 200
    assert {"correcting", "segmenting"} & {each["task"] for each in seen}
    assert all(0 <= each["done"] <= each["total"] for each in seen)
    assert client.get(f"/v1/jobs/{JOB}").status_code == 404


@pytest.mark.parametrize("name", ["short", "a" * 65, "../../../etc/passwd"])
def test_names_that_can_be_guessed_are_no_names(client, name):
    assert client.post(f"/v1/segment?job={name}", files={"flair": b"x"}).status_code == 400


def test_a_name_is_used_once_at_a_time():
    jobs = Jobs()
    with jobs.under_way(JOB):
        with pytest.raises(ApiError) as caught, jobs.under_way(JOB):
            pass
        assert caught.value.status == 409
    with jobs.under_way(JOB) as job:
        assert jobs.get(JOB) is job


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def parts_of(answer) -> dict[str, bytes]:
    whole = message_from_bytes(b"Content-Type: " + answer.headers["content-type"].encode()
                               + b"\r\n\r\n" + answer.content)
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in whole.get_payload()}


def test_series_come_back_as_volumes_where_they_lie(client, case_files, tmp_path):
    image = nib.load(case_files["flair"])
    array = np.asarray(image.dataobj).astype(np.int16)
    whole = write_series(tmp_path / "a", array, image.affine, 'ax "flair"\r\nü', number=1)
    gap = write_series(tmp_path / "b", array, image.affine, "ax t2", number=2)
    files = {f"../{path.parent.name}/{path.name}": path.read_bytes()
             for path in [*whole, *gap[:2], *gap[3:]]}
    answer = client.post("/v1/dicom", files={"zip": zip_of(files | {"readme.txt": b"x"})})
    assert answer.status_code == 200, answer.text
    parts = parts_of(answer)
    first, second = json.loads(parts["series"])
    assert first["files"] == 6
    assert "error" not in first
    assert "missing" in second["error"] or "distance" in second["error"], second
    assert "pixelnet" not in second["error"]
    assert set(parts) == {"series", "volume-0"}
    volume = nib.Nifti1Image.from_bytes(parts["volume-0"])
    found = nib.as_closest_canonical(volume)
    np.testing.assert_allclose(found.affine, nib.as_closest_canonical(image).affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(found.dataobj),
                                  np.asarray(nib.as_closest_canonical(image).dataobj))


@pytest.mark.parametrize(("files", "status", "words"), [
    ({"flair": b"x"}, 400, "field `zip`"), ({"zip": b"x"}, 400, "cannot be read"),
    ({"zip": zip_of({"a": b"x" * 300})[:-60]}, 400, "cannot be read"),
    ({"zip": zip_of({"a": b"no DICOM"})}, 422, "no DICOM images"),
    ({"zip": zip_of({"__MACOSX/._a": b"\0\x05\x16\x07", ".b": b""})}, 422, "no DICOM images"),
    ({"zip": zip_of({"a": b"\0" * 9999}, zipfile.ZIP_BZIP2)}, 400, "method 12; pack it by deflate"),
    ({"zip": zip_of({"a": b"\0" * 9999}, zipfile.ZIP_LZMA)}, 400, "method 14; pack it by deflate"),
    ({"zip": zip_of({"a": b"\0" * (2 << 20)})}, 413, "more than 1 MiB"),
    ({"zip": zip_of({str(number): b"" for number in range(8193)})}, 413, "8193 files")])
def test_uploads_that_are_no_zip_of_series(client, files, status, words):
    answer = client.post("/v1/dicom", files=files)
    assert answer.status_code == status
    assert words in answer.json()["error"]
