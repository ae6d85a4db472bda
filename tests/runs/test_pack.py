"""A trained model as one file: what it holds, what it gives back, and files that hold other things.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.pack import is_pack, unpack
from pixelnet_tf.runs.several import Runs
from tests.main_job import run_main

GOLDEN = Path(__file__).parents[1] / "golden" / "run" / "run"
DECISIONS = Decisions("by hand", ("patient_anna", "patient_bert"),
                      {"prior": "sampled", "class_offsets": {"edema": 0.25}})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The golden run with decisions; not to be changed."""
    folder = tmp_path_factory.mktemp("packed") / "run"
    shutil.copytree(GOLDEN, folder)
    (folder / "decisions.json").write_text(json.dumps(DECISIONS.to_json()))
    text = (folder / "config.yaml").read_text().replace("initial_weights: random",
                                                        "initial_weights: /home/anna/w.keras")
    (folder / "config.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def packed(run) -> Path:
    """The run as a file; not to be changed."""
    return px.Segmenter.from_run(run).pack(run.parent / "model.zip")


def test_what_was_packed_is_the_run(run, packed):
    one, other = px.Segmenter.from_run(run), px.Segmenter.from_run(packed)
    assert other.config.prediction == one.config.prediction
    assert other.config.prediction.class_offsets == {"edema": 0.25}
    assert other.follows == one.follows
    (mine, record), (theirs, again) = ((each._runs.networks(each.config.prediction)[0],
                                        each._runs) for each in (one, other))
    assert mine.digest() == theirs.digest()
    np.testing.assert_array_equal(mine.correction, theirs.correction)
    assert theirs.name == str(packed)
    assert theirs.file == mine.file
    assert record.unpacked is None
    assert again.unpacked is not None


def test_its_bytes_follow_from_the_run_and_name_no_case_and_no_path(run, packed, tmp_path):
    again = px.Segmenter.from_run(run).pack(tmp_path / "again.zip")
    assert again.read_bytes() == packed.read_bytes()
    # What was unpacked packs to the same networks and decisions.
    third = px.Segmenter.from_run(packed).pack(tmp_path / "third.zip")
    with zipfile.ZipFile(packed) as one, zipfile.ZipFile(third) as other:
        names = set(one.namelist())
        assert names == {"pack.json", "model_card.md", *(f"network_0/{name}" for name in (
            "config.yaml", "model.keras", "priors.json", "decisions.json"))}
        for name in names:
            assert one.read(name) == other.read(name)
        texts = b"".join(one.read(name) for name in names if not name.endswith(".keras"))
        pack, card = json.loads(one.read("pack.json")), one.read("model_card.md").decode()
    split = RunFolder(str(run)).split()
    for secret in (*split.cases, "anna", "bert", str(run.parent)):
        assert secret.encode() not in texts
    assert pack["files"]["network_0/model.keras"]["bytes"] == (run / "model.keras").stat().st_size
    assert "version" not in card.splitlines()[0]
    assert "Study `" in card


def test_the_folder_is_gone_with_the_model(packed):
    found = Runs.find([str(packed)])
    folder = Path(found.runs[0].path)
    assert (folder / "config.yaml").is_file()
    del found
    assert not folder.exists()


def test_several_networks_in_one_file(run, packed, tmp_path):
    both = px.Segmenter.from_run(run, run).pack(tmp_path / "both")
    assert is_pack(str(both))
    assert [Path(each.path).name for each in Runs.find([str(both)]).runs] == ["network_0",
                                                                            "network_1"]
    mixed = Runs.find([str(packed), str(run)])
    assert len(mixed.runs) == 2
    assert mixed.runs[0].network("sampled").digest() == mixed.runs[1].network("sampled").digest()
    # Folds of one cross-validation follow what was decided for their average.
    cv = tmp_path / "cv"
    for number in (0, 1):
        shutil.copytree(GOLDEN, cv / f"fold_{number}")
    held_out = RunFolder(str(cv / "fold_0")).split().test
    whole = Decisions("by hand", held_out, {"prior": "fitted"}, (), 0.3, 2)
    (cv / "decisions.json").write_text(json.dumps(whole.to_json()))
    folds = px.Segmenter.from_run(cv)
    assert folds.config.prediction.prior == "fitted"
    other = px.Segmenter.from_run(folds.pack(tmp_path / "folds.zip"))
    assert other.config.prediction == folds.config.prediction
    for one, theirs in zip(*(each._runs.networks(each.config.prediction)
                             for each in (folds, other)), strict=True):
        np.testing.assert_array_equal(one.correction, theirs.correction)


def test_the_verb(run, tmp_path, capsys):
    out = tmp_path / "model.zip"
    assert run_main("pack", run, out) == 0
    assert f"model written to {out}" in capsys.readouterr().out
    assert run_main("pack", run, out) == 2
    assert "is there already; give another name" in capsys.readouterr().err
    assert run_main("pack", tmp_path / "none", tmp_path / "none.zip") == 4
    assert not (tmp_path / "none.zip").exists()


def test_a_training_that_has_not_ended_is_not_packed(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    with pytest.raises(ModelError, match="no such model"):
        px.Segmenter.from_run(tmp_path / "run").pack(tmp_path / "model.zip")
    with pytest.raises(ConfigError, match="what is packed are runs"):
        px.Segmenter(px.load_config("phantom"), lambda: None).pack(tmp_path / "x.zip")


def rewritten(packed: Path, out: Path, change) -> Path:
    """The pack with other members: `change` receives and returns a list of (ZipInfo, bytes)."""
    with zipfile.ZipFile(packed) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    with zipfile.ZipFile(out, "w") as archive:
        for member, data in change(members):
            archive.writestr(member, data)
    return out


def with_text(name: str, edit):
    """A change of one text member."""
    return lambda members: [(member, edit(data) if member.filename == name else data)
                            for member, data in members]


def added(name: str, data: bytes = b"x"):
    return lambda members: [*members, (zipfile.ZipInfo(name), data)]


def packed_model(members):
    """The model deflated: it may unpack to anything."""
    for member, _ in members:
        if member.filename.endswith(".keras"):
            member.compress_type = zipfile.ZIP_DEFLATED
    return members


def in_pack(**changes):
    return with_text("pack.json", lambda data: json.dumps({**json.loads(data), **changes}).encode())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("change", "words"), [
    (added("../../evil.txt"), r"holds '../../evil.txt', which no packed model does"),
    (added("/etc/evil"), "which no packed model does"),
    (added("network_0/run.py"), "which no packed model does"),
    (added("network_0/../model.keras"), "which no packed model does"),
    (added("network_00/model.keras"), "which no packed model does"),
    (added("network_1/config.yaml"), "does not hold the files that pack.json names"),
    (lambda members: [*members, members[0]], "some of them twice"),
    (lambda members: members[1:], "does not hold the files"),
    (lambda members: members[:-1], "is no packed model: it holds no pack.json"),
    (packed_model, "model.keras says to have"),
    (with_text("network_0/config.yaml", lambda data: data + b"\n"), "config.yaml is not the file"),
    (with_text("network_0/config.yaml", lambda data: bytes(5 << 20)), "unpacks to 5,242,880"),
    (with_text("network_0/model.keras", lambda data: data[:-1] + b"!"), "model.keras is not the"),
    (with_text("pack.json", lambda data: b"["), "cannot be read as a packed model"),
    (in_pack(format=2), "packed by a later version"),
    (in_pack(networks=["network_1"]), "lacks the model or the configuration"),
    (in_pack(networks=[]), "names no network"),
    (in_pack(files=3), "files must map keys"),
    (in_pack(training={}), "is missing"),
])
def test_a_file_that_no_pack_is(packed, tmp_path, change, words):
    path = rewritten(packed, tmp_path / "other.zip", change)
    with pytest.raises(ModelError, match=words) as caught:
        unpack(str(path))
    assert str(path) in str(caught.value)
    assert not list(tmp_path.parent.glob("evil*"))


def test_files_that_are_no_archive(packed, tmp_path):
    for name, data in (("text.zip", b"hello"), ("cut.zip", packed.read_bytes()[:-40])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="packed model"):
            px.Segmenter.from_run(tmp_path / name)
    with pytest.raises(ModelError, match="no such file"):
        px.Segmenter.from_run(tmp_path / "none.zip")
