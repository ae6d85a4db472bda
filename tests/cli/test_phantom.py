"""`pixelnet-tf phantom`."""

from click.testing import CliRunner

from pixelnet_tf.cli.phantom import command
from pixelnet_tf.errors import ConfigError


def test_both_layouts(tmp_path):
    for layout, file in (("brats", "phantom_001/phantom_001_seg.nii.gz"),
                         ("isles", "training_1/VSD.Brain.XX.O.OT.100013/"
                                   "VSD.Brain.XX.O.OT.100013.nii")):
        out = tmp_path / layout
        result = CliRunner().invoke(command, [str(out), "--cases", "2", "--layout", layout,
                                              "--size", "24", "20", "16"])
        assert result.exit_code == 0, result.output
        assert f"2 cases of 24x20x16 voxels ({layout})" in result.output
        assert (out / file).is_file()
        assert len(list(out.iterdir())) == 2


def test_a_dry_run_writes_nothing(tmp_path):
    result = CliRunner().invoke(command, [str(tmp_path / "x"), "--cases", "3", "--dry-run"])
    assert result.exit_code == 0
    assert "would write 3 cases of 96x96x48" in result.output
    assert not (tmp_path / "x").exists()


def test_the_layout_of_a_configuration(tmp_path):
    arguments = [str(tmp_path / "x"), "--dry-run", "--config"]
    result = CliRunner().invoke(command, [*arguments, "isles2017"])
    assert "112x96x20 voxels (isles)" in result.output
    result = CliRunner().invoke(command, [*arguments, "isles2017", "--layout", "brats"])
    assert "(brats)" in result.output
    result = CliRunner().invoke(command, [*arguments, "lgg"])
    assert isinstance(result.exception, ConfigError)
    assert "study.layout is pattern" in str(result.exception)


def test_usage_errors(tmp_path):
    for arguments in ([], [str(tmp_path), "--cases", "0"], [str(tmp_path), "--layout", "nnunet"],
                      [str(tmp_path), "--size", "4", "4", "4"]):
        assert CliRunner().invoke(command, arguments).exit_code == 2
