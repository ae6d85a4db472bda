"""Wrong inputs: from Python the words and exit codes of the command line, and their parts besides.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest

import pixelnet_tf as px
from tests.main_job import TINY, run_main

CASE = "phantom_001"


class Wrong(NamedTuple):
    """One call in both its forms, and the parts that its error must have.

    `call` and `command` take the folder of the study, the preparation and the run, and a folder of
    spoiled things; `file` is within one of the two, `name` is one that no file has. `hint` is of
    the next step.
    """

    call: Callable[[Path, Path], Any]
    command: Callable[[Path, Path], tuple[Any, ...]]
    exit_code: int
    file: str = ""
    name: str = ""
    case: str | None = None
    value: Any = None
    hint: str | None = None


def _predict(job: Path, data: Path, *more: Any) -> tuple[Any, ...]:
    return ("predict", "--model", job / "run", "--data", data, "--out", job / "never", *more)


def _volume(name: str, **parts: Any) -> Wrong:
    """A spoiled study of one case, segmented."""
    return Wrong(lambda job, bad: _model(job).predict_study(bad / name, job / "never"),
                 lambda job, bad: _predict(job, bad / name), 3, case=CASE, **parts)


def _scored(name: str, exit_code: int = 3, **parts: Any) -> Wrong:
    """A spoiled folder of predictions, scored."""
    return Wrong(lambda job, bad: px.evaluate(bad / name, job / "study",
                                              config=job / "run" / "config.yaml"),
                 lambda job, bad: ("evaluate", "--predictions", bad / name, "--references",
                                   job / "study", "--out", job / "never", "--config",
                                   job / "run" / "config.yaml"), exit_code, **parts)


def _opened(name: str, **parts: Any) -> Wrong:
    """A spoiled study, opened to be prepared."""
    return Wrong(lambda job, bad: px.Study.open(bad / name, "phantom").prepare(
                     bad / "never", workers=1),
                 lambda job, bad: ("prepare", "--config", "phantom", "--data", bad / name, "--out",
                                   bad / "never", "--workers", 1), 3, **parts)


def _run(name: str, **parts: Any) -> Wrong:
    """What is no run, as a model."""
    return Wrong(lambda job, bad: px.Segmenter.from_run(bad / name).predict_study(
                     job / "study", job / "never"),
                 lambda job, bad: ("predict", "--model", bad / name, "--data", job / "study",
                                   "--out", job / "never"), 4, **parts)


def _settings(*settings: str, exit_code: int = 2, **parts: Any) -> Wrong:
    """Settings that do not fit, given to a training."""
    options = [f"--set={setting}" for setting in settings]
    return Wrong(lambda job, bad: px.train(job / "prepared", "phantom", bad / "never",
                                           overrides=settings),
                 lambda job, bad: ("train", "--config", "phantom", *options, "--data",
                                   job / "prepared", "--out", bad / "never"), exit_code, **parts)


def _train(name: str, out: str, exit_code: int, *more: Any, resume: bool = False, fold=None,
           **parts: Any) -> Wrong:
    """A training of a folder into another; names that begin with `job/` are of the sound ones."""
    def place(job: Path, bad: Path, of: str) -> Path:
        return job / of[4:] if of.startswith("job/") else bad / of
    tiny = [setting.removeprefix("--set=") for setting in TINY]
    return Wrong(
        lambda job, bad: px.train(place(job, bad, name), "phantom", place(job, bad, out),
                                  overrides=[*tiny, *(one.removeprefix("--set=") for one in more)],
                                  resume=resume, fold=fold),
        lambda job, bad: ("train", "--config", "phantom", *TINY, *more, "--data",
                          place(job, bad, name), "--out", place(job, bad, out),
                          *(["--resume"] if resume else []),
                          *([] if fold is None else ["--fold", fold])), exit_code, **parts)


def _model(job: Path, **settings: Any) -> px.Segmenter:
    return px.Segmenter.from_run(job / "run", **settings)


FLAIR, T2 = f"{CASE}/{CASE}_flair.nii.gz", f"{CASE}/{CASE}_t2.nii.gz"
WRONG = {
    "a model that is an empty folder": _run("empty", file="empty", hint="give the --out folder"),
    "a model that is not there": _run("nowhere", file="nowhere", hint="give the --out folder"),
    "a model that is a text": _run("text/readme.txt", file="text/readme.txt",
                                   hint="give the --out folder"),
    "a model that is a study": _run("no_affine", file="no_affine", hint="give the --out folder"),
    "images that lack a modality": _volume("no_t2", file=f"no_t2/{CASE}", value="t2",
                                           hint="--allow-missing"),
    "images on two grids": _volume("two_grids", file=f"two_grids/{T2}", hint="study.resample"),
    "an image at no place": _volume("no_affine", file=f"no_affine/{FLAIR}", hint="correct"),
    "an image that is a text": _volume("text_image", file=f"text_image/{T2}", hint="convert"),
    "an image of one value": _volume("flat", file=f"flat/{T2}", value=0, hint="convert"),
    "an image with NaN": _volume("nan", file=f"nan/{T2}", value=2, hint="replace them"),
    "images in an empty folder": Wrong(
        lambda job, bad: _model(job).predict_study(bad / "empty", job / "never"),
        lambda job, bad: _predict(job, bad / "empty"), 3, file="empty", hint="study.layout"),
    "a case that is not there": Wrong(
        lambda job, bad: _model(job).predict_study(job / "study", job / "never", cases=["p9"]),
        lambda job, bad: _predict(job, job / "study", "--case", "p9"), 3, file="study", value="p9"),
    "the preparation of another study": Wrong(
        lambda job, bad: _model(job, overrides=["prepare.slice_size=64"]).predict_study(
            job / "prepared", job / "never"),
        lambda job, bad: _predict(job, job / "prepared", "--set", "prepare.slice_size=64"), 3,
        file="prepared", hint="prepare the study with the model's own"),
    "predictions in an empty folder": _scored("empty", file="empty"),
    "predictions that are not there": _scored("nowhere", file="nowhere", hint="give the folder"),
    "a prediction on another grid": _scored("other_grid", case=CASE,
                                            file=f"other_grid/{CASE}.nii.gz", hint="resample"),
    "a prediction with an unknown label": _scored("other_label", case=CASE, value=3,
                                                  file=f"other_label/{CASE}.nii.gz", hint="add it"),
    "a prediction that is a text": _scored("text_prediction", case=CASE, hint="convert",
                                           file=f"text_prediction/{CASE}.nii.gz"),
    "predictions of other cases": _scored("other_cases", file="other_cases"),
    "a study in an empty folder": _opened("empty", file="empty", hint="study.layout"),
    "a study that is not there": _opened("nowhere", file="nowhere", hint="give the folder"),
    "a study that is a file": _opened("text/readme.txt", file="text/readme.txt", hint="give the"),
    "a study that lacks a modality": _opened("no_t2", case=CASE, file=f"no_t2/{CASE}", value="t2",
                                             hint="--skip-bad-cases"),
    "a study on two grids": _opened("two_grids", case=CASE, file=f"two_grids/{T2}",
                                    hint="--skip-bad-cases"),
    "a configuration that is not there": Wrong(
        lambda job, bad: px.Study.open(job / "study", "phantm"),
        lambda job, bad: ("prepare", "--config", "phantm", "--data", job / "study", "--out",
                          bad / "never"), 2, name="phantm", hint="built-in names"),
    "a configuration that is no YAML": Wrong(
        lambda job, bad: px.Study.open(job / "study", bad / "text" / "readme.txt"),
        lambda job, bad: ("prepare", "--config", bad / "text" / "readme.txt", "--data",
                          job / "study", "--out", bad / "never"), 2, file="text/readme.txt",
        value="no NIfTI"),
    "a setting of another type": _settings("sampling.pixels=many", value="many"),
    "a setting out of its range": _settings("split.folds=1", value=1),
    "a training of what is not prepared": _train("job/study", "never", 3, file="study",
                                                 hint="pixelnet-tf prepare"),
    "a training of an empty folder": _train("empty", "never", 3, file="empty",
                                            hint="pixelnet-tf prepare"),
    "a training into another's run": _train("job/prepared", "job/run", 5, file="run",
                                            hint="--resume"),
    "a training that goes on with other settings": _train(
        "job/prepared", "job/run", 2, "--set=training.seed=5", resume=True, file="run",
        hint="resume with the same"),
    "a fold that is not there": _train("job/prepared", "never", 2, fold=3, value=3),
}


@pytest.fixture(scope="module")
def spoiled(main_job, tmp_path_factory) -> Path:
    """A folder of everything that is wrong."""
    bad = tmp_path_factory.mktemp("spoiled")
    (bad / "empty").mkdir()
    (bad / "text").mkdir()
    (bad / "text" / "readme.txt").write_text("no NIfTI")
    paths = {m: main_job / "study" / CASE / f"{CASE}_{m}.nii.gz"
             for m in ("flair", "t1ce", "t2", "seg")}
    t2, truth = nib.load(paths["t2"]), nib.load(paths["seg"])
    voxels, labels = np.asarray(t2.dataobj, np.float32), np.asarray(truth.dataobj)

    def study(name: str, modality: str = "t2", array=voxels, affine=t2.affine) -> Path:
        for each, path in paths.items():
            file = bad / name / CASE / path.name
            file.parent.mkdir(parents=True, exist_ok=True)
            if each == modality:
                image = nib.Nifti1Image(array, None)
                image.header.set_sform(affine, code=1)
                image.header.set_qform(np.eye(4), code=0)
                image.update_header()
                image.to_filename(file)
            else:
                shutil.copy(path, file)
        return bad / name / CASE

    with_nan = voxels.copy()
    with_nan[:2, 0, 0] = np.nan
    (study("no_t2") / paths["t2"].name).unlink()
    study("two_grids", array=voxels[:, :, :-2])
    study("no_affine", "flair", affine=np.diag([1.0, 1.0, 0.0, 1.0]))
    (study("text_image") / paths["t2"].name).write_text("no NIfTI")
    study("flat", array=np.zeros_like(voxels))
    study("nan", array=with_nan)
    for name, array in (("other_grid", labels[:-1]), ("text_prediction", None),
                        ("other_label", np.where(labels == 1, 3, labels)), ("other_cases", labels)):
        (bad / name).mkdir()
        for case in ("phantom_001", "phantom_002", "phantom_003", "phantom_004"):
            target = bad / name / f"{'x' if name == 'other_cases' else ''}{case}.nii.gz"
            if case == CASE and array is None:
                target.write_text("no NIfTI")
            elif case == CASE:
                nib.save(nib.Nifti1Image(array.astype(np.uint8), truth.affine), target)
            else:
                shutil.copy(main_job / "study" / case / f"{case}_seg.nii.gz", target)
    return bad


@pytest.mark.parametrize("name", WRONG)
def test_python_and_the_command_line_say_the_same(name, main_job, spoiled, capsys):
    wrong = WRONG[name]
    with pytest.raises(px.PixelNetError) as raised:
        wrong.call(main_job, spoiled)
    error = raised.value
    capsys.readouterr()
    assert run_main(*wrong.command(main_job, spoiled)) == wrong.exit_code == error.exit_code
    said = capsys.readouterr().err
    assert said.endswith(f"error: {error}\n")
    assert (error.case, error.value) == (wrong.case, wrong.value)
    root = main_job if (main_job / wrong.file).exists() else spoiled
    assert error.file in (str(root / wrong.file) if wrong.file else None, wrong.name or None)
    for part in (error.case, error.file, error.hint):
        assert part is None or part in str(error)
    assert (wrong.hint or "") in (error.hint or "")
    assert not (spoiled / "never").exists()
    assert not (main_job / "never").exists()


def _images(bad: Path, name: str) -> dict[str, Any]:
    return {m: bad / name / CASE / f"{CASE}_{m}.nii.gz" for m in ("flair", "t1ce", "t2")}


@pytest.mark.parametrize("name", ["two_grids", "no_affine", "text_image", "flat", "nan"])
def test_an_image_is_refused_in_one_scan_as_in_a_study(name, main_job, spoiled, capsys):
    """Paths, and nibabel's images where there are any, against the files that `predict` reads."""
    model = _model(main_job)
    assert run_main(*_predict(main_job, spoiled / name)) == 3
    said = capsys.readouterr().err
    with pytest.raises(px.PixelNetError) as raised:
        model.predict(_images(spoiled, name), name="Ada")
    error, wanted = raised.value, next(
        one for one in WRONG.values() if one.file.startswith(f"{name}/"))
    assert f"{CASE}: {error.text}" in said
    assert error.case == "Ada"
    assert (error.file, error.value) == (str(spoiled / wanted.file), wanted.value)
    if name not in ("text_image", "no_affine"):
        with pytest.raises(px.PixelNetError) as raised:
            model.predict({m: nib.load(path) for m, path in _images(spoiled, name).items()},
                          name="Ada")
        assert str(raised.value) == str(error)
        assert vars(raised.value) == vars(error)


@pytest.mark.parametrize(("change", "value", "hint"), [
    (lambda images: images.pop("t2"), "t2", "give all of"),
    (lambda images: images.update(t1=images["t2"]), "t1", "give"),
    (lambda images: images.update(t2=np.zeros((3, 3, 3))), "ndarray", "give a path"),
    (lambda images: images.update(t2=(np.zeros((3, 3)), np.eye(4))), (3, 3), None),
    (lambda images: images.update(t2=(np.zeros((3, 3, 3), complex), np.eye(4))), "complex128",
     "intensities"),
    (lambda images: images.update(t2=(np.ones((30, 28, 16)), np.zeros((4, 4)))), None, "header"),
])
def test_images_in_memory_have_no_file(change, value, hint, main_job):
    images = _images(main_job, "study")
    change(images)
    with pytest.raises(px.PixelNetError) as raised:
        _model(main_job).predict(images, name="Ada")
    error = raised.value
    assert (error.case, error.file, error.value, error.exit_code) == ("Ada", None, value, 3)
    assert str(error).startswith("case Ada: ")
    assert (error.hint is None) == (hint is None)
    assert (hint or "") in (error.hint or "")
