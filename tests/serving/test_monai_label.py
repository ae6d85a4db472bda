"""The bridge to viewers, by a client that was written from MONAI Label's public description."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from email import message_from_bytes

import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from starlette.testclient import TestClient

from pixelnet_tf.serving import sessions as sessions_module
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.app import build_app
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.monai_label import modalities_of
from pixelnet_tf.serving.sessions import Sessions

LIMITS = ServerLimits(json_mib=1, upload_mib=1, slices=16, side=64, pixels=2**16)


@pytest.fixture(scope="module")
def client(registry):
    return TestClient(build_app(registry, LIMITS, hosts=["testserver"]))


@pytest.fixture(scope="module")
def expected(client, case_files) -> bytes:
    return client.post("/v1/segment", files={
        modality: path.read_bytes() for modality, path in case_files.items()}).content


def begun(client, case_files, **params) -> dict:
    answer = client.put("/session/", params=params, data={"client_id": "viewer"}, files=[
        ("files", (path.name, path.read_bytes())) for path in case_files.values()])
    assert answer.status_code == 200, answer.text
    return answer.json()


def parts_of(answer) -> dict[str, tuple[str | None, bytes]]:
    whole = message_from_bytes(b"Content-Type: " + answer.headers["content-type"].encode()
                               + b"\r\n\r\n" + answer.content)
    return {part.get_param("name", header="content-disposition"):
            (part.get_filename(), part.get_payload(decode=True)) for part in whole.get_payload()}


def test_info_tells_models_and_labels(client):
    info = client.get("/info").json()
    model = info["models"]["tiny"]
    assert model["type"] == "segmentation"
    assert model["dimension"] == 3
    assert model["labels"] == {"necrosis": 1, "edema": 2, "enhancing": 4}
    assert info["labels"] == ["necrosis", "edema", "enhancing"]
    assert {"name", "version", "trainers", "strategies", "scoring", "datastore"} <= set(info)


def test_a_session_is_segmented_as_often_as_asked_and_removed(client, case_files, expected):
    session = begun(client, case_files)
    name = session["session_id"]
    assert session["session_info"]["meta"]["files"] == [p.name for p in case_files.values()]
    assert client.get(f"/session/{name}").json()["name"] == name
    answer = client.post(f"/infer/tiny?image=&session_id={name}", files={
        "params": (None, json.dumps({"client_id": "viewer"}))})
    assert answer.status_code == 200, answer.text
    parts = parts_of(answer)
    assert parts["image"] == ("segmentation.nii.gz", expected)
    said = json.loads(parts["params"][1])
    assert said["label_names"] == {"necrosis": 1, "edema": 2, "enhancing": 4}
    for output, kind in (("image", "application/gzip"), ("json", "application/json")):
        answer = client.post(f"/infer/tiny?session_id={name}&output={output}",
                             files={"params": (None, "{}")})
        assert answer.headers["content-type"] == kind
    assert client.delete(f"/session/{name}").status_code == 200
    for method in ("GET", "DELETE"):
        assert client.request(method, f"/session/{name}").status_code == 404
    assert client.post(f"/infer/tiny?session_id={name}",
                       files={"params": (None, "{}")}).status_code == 404


def test_a_zip_in_a_session_stands_for_what_it_holds(client, case_files, expected):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in case_files.values():
            archive.write(path, f"case/{path.name}")
    name = client.put("/session/", files={"files": ("case.zip", packed.getvalue())}).json()[
        "session_id"]
    answer = client.post(f"/infer/tiny?session_id={name}&output=image",
                         files={"params": (None, "{}")})
    assert answer.content == expected


def broken_checksum(path) -> bytes:
    """A zip of a file, and beside it what macOS packs; the file's last byte has changed since."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"__MACOSX/._{path.name}", b"\0\x05\x16\x07")
        archive.write(path, path.name)
    data, content = packed.getvalue(), path.read_bytes()
    end = data.index(content) + len(content)
    return data[:end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]


def test_a_broken_zip_is_told_and_what_macos_packs_is_passed_over(client, case_files):
    files = [("file", (path.name, path.read_bytes())) for path in case_files.values()]
    first = next(iter(case_files.values()))
    files[0] = ("file", ("x.zip", broken_checksum(first)))
    answer = client.post("/infer/tiny", files=files)
    assert answer.status_code == 400, answer.text
    assert "Bad CRC-32" in answer.json()["error"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(first, first.name)
    files[0] = ("file", ("x.zip", packed.getvalue()))
    answer = client.post("/infer/tiny", files=files)
    assert answer.status_code == 400
    assert "pack it by deflate" in answer.json()["error"]


@pytest.mark.parametrize(("query", "files", "status", "words"), [
    ("", {"params": (None, "{}")}, 400, "no data store"),
    ("output=dicom_seg", {"params": (None, "{}")}, 400, "`output`"),
    ("session_id=../../etc", {"params": (None, "{}")}, 404, "no such session"),
    ("", {"params": (None, "[")}, 400, "JSON object"),
    ("", {"params": (None, '{"prior": "fitted"}')}, 400, "answers under"),
    ("", {"file": ("flair.nii", b"x")}, 400, "'t1ce' is not there"),
    ("", {"file": ("x.zip", b"x")}, 400, "cannot be read")])
def test_bad_requests_are_told(client, query, files, status, words):
    answer = client.post(f"/infer/tiny?{query}", files=files)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_unknown_models_and_empty_sessions(client):
    assert client.post("/infer/other", files={"params": (None, "{}")}).status_code == 404
    assert client.put("/session/", files={"params": (None, "{}")}).status_code == 400
    assert client.put("/session/?expiry=soon", files={"files": b"x"}).status_code == 400


@pytest.mark.parametrize(("names", "modalities", "told"), [
    (["whatever.nii"], ["flair"], {"flair": "whatever.nii"}),
    (["a/BRATS_T1ce.nii.gz", "a/brats_t1.nii.gz"], ["t1", "t1ce"],
     {"t1ce": "a/BRATS_T1ce.nii.gz", "t1": "a/brats_t1.nii.gz"}),
    (["a_T1-Gd.nii", "a_t1.nii", "t1_post_a.nii"], ["T1-Gd", "t1", "t1_post"],
     {"T1-Gd": "a_T1-Gd.nii", "t1": "a_t1.nii", "t1_post": "t1_post_a.nii"}),
    (["x_t1.nii", "y_t1.nii"], ["t1", "t2"], None), (["t1.nii", "t2.nii", "t2.nii.gz"],
                                                     ["t1", "t2"], None)])
def test_names_tell_modalities(names, modalities, told):
    files = {name: io.BytesIO(name.encode()) for name in names}
    with pytest.raises(ApiError) if told is None else contextlib.nullcontext(), \
            modalities_of(files, modalities) as found:
        assert {key: file.read().decode() for key, file in found.items()} == told


def test_only_sessions_that_have_expired_make_room_for_new_ones(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sessions, now = Sessions(10), 1e9
    monkeypatch.setattr(sessions_module.time, "time", lambda: now)

    def add(size: int, expiry: int = 60) -> str:
        return sessions.add([("../../a", io.BytesIO(b"x" * size))], expiry).name

    names = [add(20), add(15), add(4)]
    now += 40
    assert sessions.get(names[0]).files.keys() == {"../../a"}
    # Of 40 bytes one is left, and the first ones to expire do so in 20 s.
    with pytest.raises(ApiError, match="3 sessions of 0 MiB are kept") as refused:
        add(5)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "20"})
    sessions.get(names[2])
    now += 21
    names.append(add(5, 0))
    with pytest.raises(ApiError, match="it may have expired") as gone:
        sessions.get(names[1])
    assert gone.value.status == 404
    assert sessions.get(names[3]).expiry == 3600
    folder, = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[:1] + names[2:])
    # Where as many are kept as may be, each of them answers, and a further one does not begin.
    monkeypatch.setattr(sessions_module, "_MOST_SESSIONS", 3)
    for name in (names[0], names[2], names[3]):
        assert sessions.get(name).name == name
    with pytest.raises(ApiError, match="at most 3 of"):
        sessions.check()
    sessions.remove(names[2])
    add(1)
    sessions.close()
    assert not list(tmp_path.iterdir())
