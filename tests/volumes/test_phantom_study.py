"""The synthetic study on disk: layouts that are found, bytes that repeat."""

import numpy as np
import pytest

from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.checks import check_cases
from pixelnet_tf.volumes.nifti import read_geometry
from pixelnet_tf.volumes.phantom_study import write_phantom
from tests.listening import Listening

SIZES = {"brats": (40, 36, 20), "isles": (40, 32, 10)}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("layout", "config"), [("brats", "phantom"), ("isles", "isles2017")])
def test_the_layout_is_found_and_sound(tmp_path, layout, config):
    names = write_phantom(tmp_path, 2, 5, layout, SIZES[layout])
    study = load_config(config).study
    cases = find_cases(tmp_path, study)
    assert [case.name for case in cases] == names
    assert check_cases(cases, study) == []
    assert (layout == "isles") == all(case.smir_id is not None for case in cases)
    geometry = read_geometry(cases[0].segmentation)
    assert geometry.shape == SIZES[layout]
    # x runs to the left, y to the back, the middle lies at 0.
    assert np.sign(np.diag(geometry.affine)[:3]).tolist() == [-1, -1, 1]
    middle = geometry.affine @ [*((np.array(SIZES[layout]) - 1) / 2), 1]
    np.testing.assert_allclose(middle[:3], 0, atol=1e-3)


def test_the_seed_gives_the_bytes_and_a_smaller_study_begins_a_larger_one(tmp_path):
    for folder, cases, seed in (("a", 2, 1), ("b", 1, 1), ("c", 1, 2)):
        write_phantom(tmp_path / folder, cases, seed, size=SIZES["brats"])
    first = {name: data for name, data in content(tmp_path / "a").items() if "001" in name}
    assert first == content(tmp_path / "b")
    assert first.keys() == content(tmp_path / "c").keys()
    assert first != content(tmp_path / "c")


def test_cases_are_written_again_and_nothing_is_left_over(tmp_path):
    ears = Listening()
    write_phantom(tmp_path, 1, 0, size=SIZES["brats"])
    write_phantom(tmp_path, 1, 0, size=SIZES["brats"], reporter=ears)
    assert ears.events == [("drawing", 1, 1, "phantom_001")]
    assert [path.name for path in tmp_path.iterdir()] == ["phantom_001"]
    assert len(content(tmp_path)) == 5


def test_out_is_a_file(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match="is a file"):
        write_phantom(tmp_path / "x", 1, 0)
