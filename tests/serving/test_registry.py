"""New versions are picked up, broken ones leave the old one in place."""

import shutil
import time
from types import SimpleNamespace

import pytest
import tensorflow as tf

from pixelnet_tf.errors import ModelError
from pixelnet_tf.serving import registry as registry_module
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.registry import ModelRegistry

from .conftest import write_small_model


@pytest.fixture
def models(small, tmp_path):
    shutil.copytree(small, tmp_path / "models")
    return tmp_path / "models"


def test_a_new_version_takes_over_and_a_broken_one_does_not(models):
    events = []
    registry = ModelRegistry(models, lambda event, **fields: events.append(
        (event, fields["version"])))
    assert not registry.ready
    with pytest.raises(ApiError, match="is being loaded") as caught:
        registry.get("tiny")
    assert caught.value.status == 503
    registry.look()
    assert registry.ready
    first = registry.get("tiny")
    assert first.version == 1

    (models / "tiny" / "3").mkdir()
    registry.look()
    registry.look()
    assert registry.get("tiny") is first
    rows = registry.status("tiny")["model_version_status"]
    assert [(row["version"], row["state"]) for row in rows] == [("3", "END"), ("1", "AVAILABLE")]
    assert rows[0]["status"]["error_message"]

    (models / "tiny" / "3").rmdir()
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2")
    registry.look()
    assert registry.get("tiny").version == 2
    with pytest.raises(ApiError, match="serves version 2") as caught:
        registry.get("tiny", 1)
    assert caught.value.status == 404
    # The broken version is logged once, not at every look.
    assert events == [("model_loaded", 1), ("model_failed", 3), ("model_loaded", 2)]


def test_one_models_folder_will_do(small):
    registry = ModelRegistry(small / "tiny")
    registry.look()
    assert [(model.name, model.version) for model in registry.models] == [("tiny", 1)]


def test_names_of_other_folders_are_no_models(models):
    (models / "notes").mkdir()
    (models / "..hidden").mkdir()
    registry = ModelRegistry(models)
    for name in ("notes", "..", "", "tiny/1", "x" * 5000):
        with pytest.raises(ApiError) as caught:
            registry.get(name)
        assert caught.value.status == 404
        assert len(str(caught.value)) < 400


def test_a_first_version_that_cannot_be_loaded_is_said(tmp_path):
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    registry = ModelRegistry(tmp_path)
    registry.look()
    assert not registry.ready
    with pytest.raises(ApiError, match="could not be loaded; the server's log says why"):
        registry.get("tiny")


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_no_model(tmp_path, folder):
    with pytest.raises(ModelError, match="holds no model"):
        ModelRegistry(tmp_path / folder)


def spoil(folder, name, data):
    shutil.copytree(folder.parent / "1", folder)
    (folder / name).write_bytes(data)


#: Ways in which a version can be bad.
BAD_VERSIONS = {
    "an empty folder": lambda folder: folder.mkdir(),
    "a graph of noise": lambda folder: spoil(folder, "saved_model.pb", bytes(range(256)) * 9),
    "an empty graph": lambda folder: spoil(folder, "saved_model.pb", b""),
    "weights cut short": lambda folder: spoil(
        folder, "variables/variables.data-00000-of-00001", b"\0" * 100),
    "serving.json of a list": lambda folder: spoil(folder, "serving.json", b"[1]"),
    "serving.json without keys": lambda folder: spoil(folder, "serving.json", b'{"format": 1}'),
    "serving.json of another type": lambda folder: spoil(
        folder, "serving.json", b'{"format": 1, "version": 1, "signatures": {}, '
        b'"prior": {"correction": []}, "config": {"model": [], "study": 3}}'),
    "serving.json of noise": lambda folder: spoil(folder, "serving.json", b"\xff\xfe"),
}


@pytest.mark.parametrize("way", BAD_VERSIONS)
def test_a_bad_version_stays_by_itself(models, way):
    """The same watching thread loads the next good one; the status tells of the bad one."""
    registry = ModelRegistry(models, poll_seconds=0.02)
    BAD_VERSIONS[way](models / "tiny" / "2")
    registry.start()
    try:
        until(lambda: registry.ready and registry.get("tiny").version == 1)
        rows = registry.status("tiny")["model_version_status"]
        assert [(row["version"], row["state"]) for row in rows] == [("2", "END"),
                                                                    ("1", "AVAILABLE")]
        assert rows[0]["status"]["error_message"]
        shutil.copytree(models / "tiny" / "1", models / "tiny" / "3")
        until(lambda: registry.get("tiny").version == 3)
    finally:
        registry.stop()


def test_any_exception_of_a_version_stays_with_it(models, monkeypatch):
    """What TensorFlow raises for files of other programs is no closed list."""
    events, real = [], registry_module.LoadedModel

    def load(folder, name, version):
        if version == 2:
            raise RuntimeError("nobody thought of this")
        return real(folder, name, version)

    monkeypatch.setattr(registry_module, "LoadedModel", load)
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2")
    registry = ModelRegistry(models, lambda event, **fields: events.append((event, fields)))
    registry.look()
    assert registry.get("tiny").version == 1
    assert events[0][0] == "model_failed"
    assert "RuntimeError: nobody thought of this" in events[0][1]["error"]


def test_a_version_is_tried_again_when_its_files_have_changed(models, monkeypatch):
    tries, real = [], registry_module.LoadedModel
    monkeypatch.setattr(registry_module, "LoadedModel", lambda folder, name, version: (
        tries.append(version), real(folder, name, version))[1])
    (models / "tiny" / "2").mkdir()
    registry = ModelRegistry(models)
    for _ in range(3):
        registry.look()
    assert tries == [2, 1]
    # As a copy that was under way at the first look.
    shutil.copytree(models / "tiny" / "1", models / "tiny" / "2", dirs_exist_ok=True)
    registry.look()
    assert registry.get("tiny").version == 2
    assert len(registry.status("tiny")["model_version_status"]) == 1
    (models / "tiny" / "3").mkdir()
    registry.look()
    assert tries == [2, 1, 2, 3]
    # Unchanged it is tried after a minute, after two more, and so on to an hour.
    start, when = time.monotonic(), []
    for minute in range(1, 200):
        clock = SimpleNamespace(monotonic=lambda now=start + 60 * minute + 1: now)
        monkeypatch.setattr(registry_module, "time", clock)
        before = len(tries)
        registry.look()
        when += [minute] * (len(tries) - before)
    assert when == [1, 3, 7, 15, 31, 63, 123, 183]


def test_a_saved_model_of_unknown_rank(tmp_path):
    write_small_model(tmp_path / "sum" / "1", tf.TensorSpec(None, tf.float32, "image"))
    registry = ModelRegistry(tmp_path)
    registry.look()
    model = registry.get("sum")
    image = model.metadata()["metadata"]["signature_def"]["signature_def"]["serving_default"][
        "inputs"]["image"]
    assert image["tensor_shape"] == {"dim": [], "unknown_rank": True}
    from pixelnet_tf.serving.limits import ServerLimits
    from pixelnet_tf.serving.predict_json import parse_predict
    call = parse_predict(b'{"inputs": [[1, 2], [3, 4]]}', model.signatures, ServerLimits())
    assert model.run(call.signature, call.inputs)["sum"].tolist() == [20]


def test_a_bad_model_beside_a_good_one_does_not_make_the_server_unready(models):
    (models / "other" / "1").mkdir(parents=True)
    registry = ModelRegistry(models)
    registry.look()
    assert registry.ready
    with pytest.raises(ApiError, match="version 1 of model 'other' could not be loaded"):
        registry.get("other")


def test_a_model_that_vanishes_is_served_from_memory(models):
    events = []
    registry = ModelRegistry(models, lambda event, **fields: events.append(event))
    registry.look()
    shutil.rmtree(models)
    for _ in range(2):
        registry.look()
    assert registry.ready
    assert registry.get("tiny").version == 1
    with pytest.raises(ApiError) as caught:
        registry.get("another")
    assert caught.value.status == 404
    assert events == ["model_loaded", "models_unreadable"]


def until(condition, seconds=60):
    """Wait for a condition; an `ApiError` in it says not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except ApiError:
            pass
        assert time.monotonic() < end
        time.sleep(0.02)
