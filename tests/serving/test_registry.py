"""New versions are picked up, broken ones leave the old one in place."""

import shutil

import pytest

from pixelnet_tf.errors import ModelError
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.registry import ModelRegistry


@pytest.fixture
def models(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "models")
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


def test_one_models_folder_will_do(exported):
    registry = ModelRegistry(exported / "tiny")
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
