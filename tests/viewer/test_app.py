"""What the page's server answers, and to whom."""

from __future__ import annotations

import dataclasses
import io
import time

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.viewer.app import build_app

from .conftest import FORMS, MARKUP

OWN = {"host": "127.0.0.1:8502"}


@pytest.fixture(scope="module")
def client(view):
    with TestClient(build_app(view.source), base_url="http://127.0.0.1:8502") as client:
        yield client


def layer(client, number: int, key: str) -> nib.Nifti1Image:
    answer = client.get(f"/api/cases/{number}/{key}.nii")
    assert answer.status_code == 200, answer.text
    return nib.Nifti1Image.from_stream(io.BytesIO(answer.content))


def number_of(client, name: str) -> int:
    return [one["name"] for one in client.get("/api/study").json()["cases"]].index(name)


@pytest.mark.parametrize("name", FORMS)
def test_layers_are_what_the_files_hold_where_they_hold_it(client, viewed, name):
    number, stem = number_of(client, name), viewed / "study" / name / name
    found = {key: layer(client, number, key) for key in (
        "image-0", "image-1", "reference", "prediction", "errors", "probabilities")}
    files = {"image-0": f"{stem}_flair.nii.gz", "reference": f"{stem}_seg.nii.gz",
             "prediction": viewed / "predictions" / f"{name}.nii.gz",
             "probabilities": viewed / "predictions" / "probabilities" / f"{name}.nii.gz"}
    for key, path in files.items():
        stored = nib.load(path)
        np.testing.assert_allclose(found[key].get_fdata(), stored.get_fdata(), atol=1e-6)
        np.testing.assert_allclose(found[key].affine, stored.affine, atol=1e-5)
        # Readers that take the qform first see the same.
        np.testing.assert_allclose(found[key].get_qform(), stored.affine, atol=1e-4)
    truth, guess = (found[key].get_fdata() > 0 for key in ("reference", "prediction"))
    np.testing.assert_array_equal(found["errors"].get_fdata(),
                                  1 * (truth & ~guess) + 2 * (guess & ~truth))


def test_measures_are_those_of_the_files(client, viewed):
    end = time.monotonic() + 30
    while len(measures := client.get("/api/measures").json()["measures"]) < len(FORMS):
        assert time.monotonic() < end
    assert client.get(f"/api/measures?from={len(FORMS)}").json()["measures"] == []
    number = number_of(client, "anisotropic")
    found = next(each for each in measures if each["case"] == number)
    truth, guess = (nib.load(path).get_fdata() > 0 for path in (
        viewed / "study" / "anisotropic" / "anisotropic_seg.nii.gz",
        viewed / "predictions" / "anisotropic.nii.gz"))
    dice = 2 * (truth & guess).sum() / (truth.sum() + guess.sum())
    assert found["scores"]["lesion"] == pytest.approx(dice)
    assert found["reference_ml"] == pytest.approx(truth.sum() * 0.8 * 0.8 * 3.5 / 1000)
    assert found["warnings"] == []


@pytest.mark.parametrize("path", [
    "/api/cases/99/image-0.nii", "/api/cases/0/image-9.nii", "/api/cases/0/image-x.nii",
    "/api/cases/0/grid.nii", "/api/cases/-1/image-0.nii", "/api/cases/0/..%2f..%2fsetup.nii",
    "/api/cases/0/%2e%2e/%2e%2e/etc/passwd.nii", "/../app.py", "/%2e%2e/app.py", "/LICENSES.txt"])
def test_nothing_but_layers_of_cases_is_reached(client, path):
    assert client.get(path).status_code == 404


def test_a_layer_that_cannot_be_read_is_an_error_that_names_the_file(view, viewed, tmp_path):
    from pixelnet_tf.api.viewing import View
    (tmp_path / "one.nii.gz").write_bytes(b"no image")
    source = View(tmp_path, data=viewed / "study", config="phantom").source
    client = TestClient(build_app(source), base_url="http://127.0.0.1")
    answer = client.get("/api/cases/0/prediction.nii")
    assert answer.status_code == 422
    assert "one.nii.gz" in answer.json()["error"]
    assert "one.nii.gz" in source.measure(0)["warnings"][0]


def test_prediction_and_reference_on_two_grids_are_not_compared(view):
    case = next(one for one in view.source.cases if one.name == "ras")
    other = next(one for one in view.source.cases if one.name == "anisotropic")
    mixed = dataclasses.replace(view.source, cases=(
        dataclasses.replace(case, reference=other.reference),))
    assert "grid" in mixed.measure(0)["warnings"][0]


@pytest.mark.parametrize("headers", [
    {"host": "evil.example"}, {"host": "127.0.0.1.evil.example:8502"},
    {**OWN, "origin": "http://evil.example"}, {**OWN, "origin": "null"},
    {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-dest": "image"},
    {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-dest": "script"},
    {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"},
    {**OWN, "sec-fetch-site": "same-site", "sec-fetch-dest": "empty"}])
@pytest.mark.parametrize("path", ["/", "/viewer.js", "/api/study", "/api/cases/0/image-0.nii"])
def test_foreign_pages_get_403(client, headers, path):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert MARKUP not in answer.text
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("headers", [
    OWN, {**OWN, "sec-fetch-site": "same-origin", "sec-fetch-dest": "empty"},
    {**OWN, "sec-fetch-site": "none", "sec-fetch-dest": "document"},
    # A link in a message of a colleague's.
    {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}])
def test_its_own_page_is_answered_under_a_strict_policy(client, headers):
    answer = client.get("/", headers=headers)
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in
                  answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(client, method):
    assert client.request(method, "/api/study").status_code == 405
