"""`pixelnet-tf prepare`: output, exit codes, and what a failure says."""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from pixelnet_tf.cli import main
from pixelnet_tf.cli.prepare import command
from pixelnet_tf.volumes.phantom_study import write_phantom

PLAIN = ["--config", "phantom", "--set", "prepare.bias_field.enabled=false", "--workers", "1"]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    write_phantom(folder, 3, 0, size=(28, 24, 16))
    return folder


@pytest.fixture
def study(template, tmp_path) -> Path:
    shutil.copytree(template, tmp_path / "study")
    return tmp_path / "study"


def file(study: Path, modality: str) -> Path:
    return study / "phantom_002" / f"phantom_002_{modality}.nii.gz"


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Call the command line as a shell would; return the exit code and everything printed."""
    with pytest.raises(SystemExit) as exit_:
        main(["prepare", *arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out + captured.err


def change(path: Path, function, affine=None) -> None:
    image = nib.load(path)
    array = function(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), path)


def set_voxel(value):
    def function(array):
        array = array.astype(np.float32)
        array[2, 2, 2] = value
        return array
    return function


def test_the_table_and_a_second_run(study, tmp_path):
    arguments = [*PLAIN, "--data", str(study), "--out", str(tmp_path / "p")]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    for words in ("3: 3 prepared, 0 kept", "48 of 24x28 pixels, 3 channels", "enhancing:",
                  "preparing 3/3"):
        assert words in result.output
    assert "0 prepared, 3 kept" in CliRunner().invoke(command, arguments).output


def test_tensorflow_is_not_loaded(study, tmp_path):
    code = ("import sys\nfrom pixelnet_tf.cli import main\ntry:\n    main(sys.argv[1:])\n"
            "except SystemExit as end:\n    assert end.code == 0\n"
            "print({'tensorflow', 'keras', 'pandas', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", code, "prepare", *PLAIN, "--data", study, "--out", tmp_path / "p"],
        check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_dry_run_and_print_config(study, tmp_path):
    arguments = [*PLAIN, "--data", str(study), "--out", str(tmp_path / "p")]
    result = CliRunner().invoke(command, [*arguments, "--dry-run"])
    assert "3 cases would be prepared" in result.output
    assert not (tmp_path / "p").exists()
    result = CliRunner().invoke(command, [*arguments, "--print-config"])
    assert "study:" in result.output
    assert "enabled: false" in result.output


BAD = {
    "missing modality": (lambda s: file(s, "t2").unlink(), ["'t2' is missing", "phantom_002_t2"]),
    "truncated gzip": (lambda s: file(s, "flair").write_bytes(
        file(s, "flair").read_bytes()[:3000]), ["phantom_002_flair.nii.gz", "truncated"]),
    "shape mismatch": (lambda s: change(file(s, "t1ce"), lambda a: a[1:]),
                       ["phantom_002_t1ce.nii.gz", "(28, 24, 16)", "(27, 24, 16)"]),
    "affine mismatch": (lambda s: change(file(s, "t1ce"), lambda a: a, nib.affines.from_matvec(
        np.eye(3), [5, 0, 0])), ["phantom_002_t1ce.nii.gz", "affine", "study.resample"]),
    "affine that was lost": (lambda s: change(file(s, "t1ce"), lambda a: a, np.eye(4)),
                             ["phantom_002_t1ce.nii.gz", "affine", "write it anew"]),
    "NaN": (lambda s: change(file(s, "t2"), set_voxel(np.nan)), ["phantom_002_t2.nii.gz", "NaN"]),
    "unknown label": (lambda s: change(file(s, "seg"), set_voxel(3)),
                      ["phantom_002_seg.nii.gz", "unknown label 3", "[0, 1, 2, 4]"]),
    "4-D file": (lambda s: change(file(s, "t2"), lambda a: np.stack([a, a], axis=-1)),
                 ["phantom_002_t2.nii.gz", "(28, 24, 16, 2)", "three-dimensional"]),
    "empty case": (lambda s: [path.unlink() for path in (s / "phantom_002").iterdir()],
                   ["no image"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_with_3_and_names_case_and_file(kind, study, tmp_path, capsys):
    damage, words = BAD[kind]
    damage(study)
    code, text = run(capsys, *PLAIN, "--data", str(study), "--out", str(tmp_path / "p"))
    assert code == 3
    for word in ("1 of 3 cases", "phantom_002: ", *words):
        assert word in text
    assert "Traceback" not in text
    assert not (tmp_path / "p").exists()


def test_every_bad_case_in_one_message(study, tmp_path, capsys):
    file(study, "t2").unlink()
    (study / "phantom_003" / "phantom_003_flair.nii.gz").write_bytes(gzip.compress(b"no"))
    code, text = run(capsys, *PLAIN, "--data", str(study), "--out", str(tmp_path / "p"))
    assert code == 3
    assert "2 of 3 cases" in text
    code, text = run(capsys, *PLAIN, "--data", str(study), "--out", str(tmp_path / "p"),
                     "--skip-bad-cases")
    assert code == 0
    assert "warning: left out phantom_002" in text
    assert "warning: left out phantom_003" in text
    assert "2 left out" in text


def test_studies_that_cannot_be_used(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "p")
    assert run(capsys, *PLAIN, "--data", str(tmp_path / "empty"), "--out", out)[0] == 3
    for path in study.rglob("*_seg.nii.gz"):
        change(path, lambda array: 0 * array)
    code, text = run(capsys, *PLAIN, "--data", str(study), "--out", out)
    assert code == 3
    assert "no label but the background" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (["--config", "phantom", "--set", "prepare.slicesize=3"], ["slice_size"]),
    (["--config", "phantom", "--set", "prepare.slice_size=big"], ["int"]),
    (["--config", "gone.yaml"], ["gone.yaml", "does not exist"]),
    (["--config", "phantom", "--set", "split.patient='('"], ["split.patient"]),
    (["--config", "phantom"], ["--data"]),
])
def test_usage_and_configuration_end_with_2(arguments, words, capsys):
    code, text = run(capsys, *arguments)
    assert code == 2
    for word in words:
        assert word in text


def test_a_killed_run_goes_on_where_it_stopped(study, tmp_path):
    """SIGKILL after the first case: it is kept, nothing half-written is taken for finished."""
    out = tmp_path / "p"
    script = (
        "import os, signal\n"
        "from pixelnet_tf.config import load_config\n"
        "from pixelnet_tf.dataset.prepare_study import prepare_study\n"
        "from tests.listening import Listening\n"
        "def kill(task, done):\n"
        "    if task == 'preparing': os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare_study(load_config('phantom', ['prepare.bias_field.enabled=false']), "
        f"{str(study)!r}, {str(out)!r}, 1, reporter=Listening(kill))\n")
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -9
    assert not (out / "index.json").exists()
    result = CliRunner().invoke(command, [*PLAIN, "--data", str(study), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "2 prepared, 1 kept" in result.output


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--part", "4/3"], 2, "there is no part 4/3; give I/N"),
    (["--part", "1/2", "--finish"], 2, "give one of --part, --scheduler and --finish"),
    (["--part", "1/2", "--redraw-split"], 2, "parts draw no split"),
    (["--scheduler", "near"], 2, "'near' is no scheduler"),
    (["--scheduler", "127.0.0.1:9"], 5, "no scheduler answers"),
    (["--finish"], 3, "3 of 3 cases are not prepared")])
def test_ways_to_share_the_cases_that_there_are_not(study, tmp_path, capsys, monkeypatch, words,
                                                    code, said):
    monkeypatch.setattr("pixelnet_tf.dataset.cluster.CONNECT_SECONDS", 0.2)
    status, output = run(capsys, *PLAIN[:-2], "--data", str(study), "--out", str(tmp_path / "p"),
                         *words)
    assert (status, said in output) == (code, True), output
    assert sum("rror:" in line for line in output.splitlines()) == 1
    assert "Traceback" not in output
    assert not (tmp_path / "p").exists()


def test_a_task_of_an_array_does_its_part(study, tmp_path, capsys, monkeypatch):
    for name, value in (("ID", "2"), ("MIN", "1"), ("COUNT", "2")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    arguments = [*PLAIN, "--data", str(study), "--out", str(tmp_path / "p")]
    status, output = run(capsys, *arguments)
    assert (status, "part 2/2 of the cases, as this is a task of a Slurm array" in output) == (
        0, True)
    assert [path.name for path in (tmp_path / "p" / "cases").glob("*.json")] == ["phantom_002.json"]
    assert run(capsys, *arguments, "--part", "1/2")[0] == 0
    # The last call may be a task of an array, too.
    status, output = run(capsys, *arguments, "--finish")
    assert (status, "3: 0 prepared, 3 kept" in output) == (0, True)
