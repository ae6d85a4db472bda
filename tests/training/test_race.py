"""scripts/head_to_head.py and scripts/ablations.py, with contestants of this package."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import ConfigError
from tests.listening import Listening

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ["model.widths=[3, 4, 4, 4, 4]", "model.head_widths=[6]", "model.border=16",
         "sampling.pixels=60", "training.batch_slices=2", "training.initial_weights=random"]


@pytest.fixture(scope="module")
def scripts():
    """The modules of the race, imported as the scripts import them."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import ablations
        import head_to_head
        from race import ablation, decision, jobs, plan
        yield SimpleNamespace(ablation=ablation, ablations=ablations, head_to_head=head_to_head,
                              decision=decision, jobs=jobs, plan=plan)
    finally:
        sys.path.remove(str(SCRIPTS))


def options(study, *more: str) -> list[str]:
    return ["--data", study.path, "--references", str(Path(study.path).parent / "study"),
            "--config", "phantom", *(word for text in SMALL for word in ("--set", text)), *more]


@pytest.fixture(scope="module")
def race(scripts, tiny_study, tmp_path_factory):
    """A race of two contestants to its tables: what the first one's job wrote stands for the
    second one's, too, which saves a training."""
    out = tmp_path_factory.mktemp("race") / "out"
    names = out.parent / "validation.txt"
    names.write_text("\n".join({*tiny_study.cases} - {*tiny_study.split.test,
                                                     tiny_study.split.train[0]}))
    assert scripts.head_to_head.main([str(out), *options(
        tiny_study, "--steps", "2", "--folds", "0", "--validation", str(names),
        "--contestants", "uniform,faithful")]) == 0
    found = scripts.plan.Race.read(out)
    first, second = found.jobs()
    assert not scripts.jobs.is_done(out, first)
    ears = Listening()
    report = scripts.jobs.run_job(out, first, ears)
    shutil.copytree(scripts.jobs.job_folder(out, first), scripts.jobs.job_folder(out, second))
    assert scripts.head_to_head.main([str(out)]) == 0
    return SimpleNamespace(out=out, race=found, report=report, ears=ears)


def test_every_case_is_tested_once_and_none_that_validates(scripts, tiny_study):
    validation = tiny_study.cases[:2]
    splits = scripts.plan.race_splits(tiny_study, validation, 2, seed=0)
    assert [split.validation for split in splits] == [validation] * 2
    assert sorted(case for split in splits for case in split.test) == list(tiny_study.cases[2:])
    for split in splits:
        assert not {*split.train} & {*split.validation, *split.test}
        assert len(split.train) == 1
    assert scripts.plan.race_splits(tiny_study, (), 2, seed=0) == (tiny_study.split,)
    with pytest.raises(ConfigError, match="no case 'x' to validate on"):
        scripts.plan.race_splits(tiny_study, ["x"], 2, seed=0)


def test_the_cases_that_validate_come_from_a_list_a_split_or_a_folder(scripts, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "split.json").write_text('{"train": ["c"], "validation": ["a", "b"]}')
    (tmp_path / "study" / "a").mkdir(parents=True)
    (tmp_path / "study" / "b").mkdir()
    for source in ("names.txt", "split.json", "study"):
        assert scripts.plan.named_cases(tmp_path / source) == ["a", "b"]
    assert scripts.plan.named_cases(None) == []


def test_contestants_differ_by_their_own_settings_and_share_the_rest(scripts):
    def config(name):
        base, settings = scripts.head_to_head.settings_of(name, "lgg", SMALL)
        return scripts.plan.race_config(base, settings, "bfloat16", 7)

    best, faithful, uniform = map(config, ("best", "faithful", "uniform"))
    assert best.training.solver.type == "adamw"
    assert faithful.training.solver.type == uniform.training.solver.type == "SGD"
    assert replace(uniform, sampling=faithful.sampling) == faithful
    assert uniform.sampling.strategy == "uniform"
    for one in (best, faithful, uniform):
        assert one.model.widths == (3, 4, 4, 4, 4)
        assert one.training.initial_weights == "random"
        assert (one.training.precision, one.training.seed) == ("bfloat16", 7)
        # Nothing is decided but by the race.
        assert one.prediction.prior == "sampled"
        assert one.prediction.decisions == "ignore"
        assert not one.prediction.postprocess.largest_component
        assert not one.prediction.guided_filter.radius


def test_a_job_decides_on_validation_cases_and_segments_the_test_cases(race):
    report, split = race.report, race.race.splits[0]
    for form in ("argmax", "decided"):
        assert {path.name for path in (race.out / "jobs" / "uniform" / "fold0" / form).iterdir()
                } == {f"{case}.nii.gz" for case in split.test}
    assert [step for step, _ in report["curve"]] == [1, 2]
    assert set(report["validation_argmax_cases"]) == set(split.validation)
    assert report["validation_argmax"] == pytest.approx(
        np.mean(list(report["validation_argmax_cases"].values())))
    assert report["seconds_a_volume"] > 0
    assert race.ears.tasks["training"] == (2, 2)


def test_jobs_are_scored_and_set_side_by_side(race):
    text = (race.out / "results.md").read_text()
    assert "uniform − faithful" in text
    assert "1 of 1 folds" in text
    assert "Cut and clean-up chosen on the validation cases" in text
    case, = race.race.splits[0].test
    for picture in ("curves.png", f"pictures/faithful_{case}_uniform.png"):
        assert (race.out / picture).is_file()
        assert picture in text
    scores = json.loads((race.out / "scores" / "uniform-argmax" / "summary.json").read_text())
    assert case in json.dumps(scores)


def test_a_job_that_has_ended_is_left_alone(race, scripts):
    before = {path: path.stat().st_mtime_ns for path in (race.out / "jobs").rglob("*")}
    for job in race.race.jobs():
        assert scripts.jobs.run_job(race.out, job, Listening()) == json.loads(
            (scripts.jobs.job_folder(race.out, job) / "job.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (race.out / "jobs").rglob("*")} == before


def test_steps_are_not_changed_under_jobs_that_have_ended(race, scripts, tiny_study, capsys):
    code = scripts.head_to_head.main([str(race.out), *options(tiny_study, "--steps", "5")])
    assert code == 2
    assert "begin a new folder" in capsys.readouterr().err
    assert scripts.head_to_head.main([str(race.out), "--list", "--times", "4", "--fold", "0"]) == 0
    assert capsys.readouterr().out.split() == [
        "open", "uniform/0x4", "8", "steps", "open", "faithful/0x4", "8", "steps"]


def test_measured_steps_fill_the_budget(scripts, tiny_study, tmp_path):
    out = tmp_path / "timed"
    assert scripts.head_to_head.main([str(out), *options(
        tiny_study, "--time", "--time-steps", "1", "--minutes", "0.5", "--contestants",
        "uniform")]) == 0
    race = scripts.plan.Race.read(out)
    assert race.steps["uniform"] == int(30 / race.seconds["uniform"]) > 0


def test_a_choice_is_taken_where_it_gains_more_than_noise(scripts):
    table = np.full((6, 3), 0.5)
    table[:, 1] = [0.6, 0.7, 0.6, 0.65, 0.6, 0.7]
    table[:, 2] = [1.0, 1.0, 1.0, 0.0, 0.6, 0.0]
    assert scripts.decision.best_choice(table) == 1
    assert scripts.decision.best_choice(np.delete(table, 1, axis=1)) == 0
    assert scripts.decision.left_out_dice(table[:, :2]) == pytest.approx(table[:, 1])


@pytest.mark.parametrize("name", ["best", "best/x", "best/0y"])
def test_what_is_no_job(scripts, name):
    with pytest.raises(ConfigError, match="is no job"):
        scripts.plan.Job.of(name)
    assert scripts.plan.Job.of("a/b/1x4") == scripts.plan.Job("a/b", 1, 4)


def test_the_table_of_ablations(scripts, race, tiny_study, tmp_path):
    out, validation = tmp_path / "out", tmp_path / "names.txt"
    validation.write_text(" ".join(race.race.splits[0].validation))
    assert scripts.ablations.main([str(out), *options(
        tiny_study, "--steps", "3", "--folds", "0", "--validation", str(validation),
        "--contestants", "best,no-dropout")]) == 0
    found = scripts.plan.Race.read(out)
    assert [split.test for split in found.splits] == [()]
    # What jobs of arms would have written.
    reports = [{"steps": 3, **{f"validation_{key}_cases": dict(zip("abcde", dice, strict=True))
                               for key in ("argmax", "left_out")}}
               for dice in ([0.5] * 5, [0.7, 0.6, 0.6, 0.7, 0.6])]
    for job, report in zip(found.jobs(), reports, strict=True):
        folder = scripts.jobs.job_folder(out, job)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(report))
    assert scripts.ablations.main([str(out), "--tables"]) == 0
    lines = (out / "ablations.md").read_text().splitlines()
    first, second = (next(line for line in lines if line.startswith(f"| {name}"))
                     for name in ("best", "no-dropout"))
    assert first.split("|")[1:6] == [" best ", " - ", " 3 ", " 0.500 ", "  "]
    assert "| model.dropout=0 | 3 | 0.640 | +0.140 [+0.1" in second


def test_a_case_that_validates_several_folds_counts_once(scripts, race, tiny_study, tmp_path):
    validation = tmp_path / "names.txt"
    validation.write_text(" ".join(race.race.splits[0].validation))
    assert scripts.ablations.main([str(tmp_path), *options(
        tiny_study, "--steps", "3", "--folds", "2", "--validation", str(validation),
        "--contestants", "best")]) == 0
    found = scripts.plan.Race.read(tmp_path)
    for job, dice in zip(found.jobs(), (0.5, 0.7), strict=True):
        folder = scripts.jobs.job_folder(tmp_path, job)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps({"steps": 3, **{
            f"validation_{key}_cases": {"a": dice, "b": 0.1} for key in ("argmax", "left_out")}}))
    text = scripts.ablation.write_table(tmp_path, found).read_text()
    assert "Dice of 2 validation cases" in text
    assert "| best | - | 3 | 0.350 |" in text


def test_an_ablation_that_nobody_judges_is_refused(scripts, tiny_study, tmp_path, monkeypatch,
                                                   capsys):
    """What a fold holds out judges it; the test cases of a split that has no folds do not."""
    first, *others = tiny_study.cases
    asked = options(tiny_study, "--steps", "3", "--contestants", "best")
    monkeypatch.setattr(scripts.head_to_head, "PreparedStudy", SimpleNamespace(
        open=lambda path: SimpleNamespace(cases=tiny_study.cases, split=split)))
    split = Split(tuple(others), (), (first,))
    assert scripts.ablations.main([str(tmp_path / "split"), *asked]) == 2
    assert "has no validation cases" in capsys.readouterr().err
    split = Split(tiny_study.cases, (), (), folds=((first,), tuple(others)))
    assert scripts.ablations.main([str(tmp_path / "folds"), *asked]) == 0
    found = scripts.plan.Race.read(tmp_path / "folds").splits
    assert [(each.validation, each.test) for each in found] == [
        ((first,), ()), (tuple(others), ())]


def test_ablations_have_no_table_before_what_all_are_compared_with_is_done(scripts, race,
                                                                           tiny_study, tmp_path):
    assert scripts.ablations.main([str(tmp_path), *options(
        tiny_study, "--steps", "3", "--contestants", "best,no-dropout")]) == 0
    found = scripts.plan.Race.read(tmp_path)
    _, other = found.jobs()
    folder = scripts.jobs.job_folder(tmp_path, other)
    shutil.copytree(scripts.jobs.job_folder(race.out, next(race.race.jobs())), folder)
    assert scripts.jobs.is_done(tmp_path, other)
    assert scripts.ablation.write_table(tmp_path, found) is None


def test_steps_of_another_measurement(scripts, tiny_study, tmp_path, capsys):
    """The figures of a document, by one command, on a processor of another speed."""
    asked = options(tiny_study, "--contestants", "best,uniform")
    assert scripts.head_to_head.main([
        str(tmp_path / "race"), *asked, "--steps", "uniform=5, best=3"]) == 0
    found = scripts.plan.Race.read(tmp_path / "race")
    assert (found.steps, found.minutes) == ({"best": 3, "uniform": 5}, 0)
    for wrong in ("best=3", "best=3,uniform=5,nnunet=4", "best=3,uniform=0", "best=3,best=4", "3,4",
                  "many", "best=3,uniform"):
        assert scripts.head_to_head.main([str(tmp_path / "no"), *asked, "--steps", wrong]) == 2
        assert "such as --steps best=1000,uniform=1000" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_every_test_case_has_its_reference_before_anything_is_trained(scripts, tiny_study,
                                                                      tmp_path, capsys):
    study = Path(tiny_study.path).parent / "study"
    case, = tiny_study.split.test
    shutil.copytree(study, tmp_path / "study", ignore=shutil.ignore_patterns(f"{case}*"))
    asked = options(tiny_study, "--steps", "2", "--contestants", "uniform")
    asked[asked.index(str(study))] = str(tmp_path / "study")
    assert scripts.head_to_head.main([str(tmp_path / "out"), *asked]) == 2
    assert f"no study of --references has the test case '{case}'" in capsys.readouterr().err


def test_several_planes_are_not_packed(scripts, tiny_study, tmp_path):
    from race import away

    out = tmp_path / "race"
    assert scripts.head_to_head.main([str(out), *options(
        tiny_study, "--steps", "2", "--contestants", "uniform",
        "--set", "model.planes=[axial, coronal]")]) == 0
    with pytest.raises(ConfigError, match="uniform/0 trains on several planes"):
        away.pack(scripts.plan.Race.read(out), [scripts.plan.Job("uniform", 0)],
                  tmp_path / "away", scripts.head_to_head.Printer())


def test_every_arm_of_the_ablations_is_a_configuration(scripts):
    for name, changes in scripts.ablations.ARMS.items():
        settings = (*scripts.plan.preset_overrides("best"), *changes)
        config = scripts.plan.race_config("lgg", settings, "float32", 1)
        assert name == "best" or config != scripts.plan.race_config(
            "lgg", scripts.plan.preset_overrides("best"), "float32", 1), name


def test_a_cut_is_added_to_the_scores_of_all_lesions(scripts):
    study = load_config("brats2017").study
    scores = np.random.default_rng(0).normal(0, 2, (2, 6, 5, len(study.labels))).astype(np.float32)
    # Ties go to the background, or to the first lesion.
    scores[0] = np.round(scores[0])
    volume = SimpleNamespace(brain=np.ones(scores.shape[:-1], bool), plan=SimpleNamespace(
        to_volume=lambda voxels: voxels, from_slices=lambda slices: slices))
    for offset in scripts.decision.OFFSETS:
        moved = scores + np.float32(offset) * (np.arange(scores.shape[-1]) > 0)
        found = scripts.decision.labels_by(replace(scripts.decision.PLAIN, offset=offset), scores,
                                           volume, study)
        np.testing.assert_array_equal(found, classes_to_values(
            moved.astype(np.float32).argmax(axis=-1).astype(np.uint8), study))


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_job_that_was_trained_away_goes_on_here(scripts, tiny_study, tmp_path, average):
    """Its run has the settings that the job itself gives it, which validates on the way."""
    from race import away, train_away

    out, packed = tmp_path / "race", tmp_path / "away"
    assert scripts.head_to_head.main([str(out), *options(
        tiny_study, "--steps", "2", "--validations", "2", "--contestants", "uniform",
        "--set", f"training.average_weights={average}")]) == 0
    race, job = scripts.plan.Race.read(out), scripts.plan.Job("uniform", 0)
    away.pack(race, [job], packed, scripts.head_to_head.Printer())
    with pytest.raises(ConfigError, match="pack into a new folder"):
        away.pack(race, [job], packed, scripts.head_to_head.Printer())
    told = json.loads((packed / "uniform-0.json").read_text(encoding="utf-8"))
    assert told["classes"] == len(tiny_study.config.study.labels)
    pool = np.load(packed / "pool.npz")
    # What comes back is the average, where there is one: not the weights that are trained.
    assert len(told["back_places"]) == len(told["back"])
    first = told["outputs"][:len(told["back"])]
    assert (told["back_places"] == first) == (not average)
    # A training that changes nothing.
    recipes = [told["inputs"][place] for place in told["back_places"]]
    arrays = [np.zeros(recipe[1], recipe[2]) if recipe[0] == "zeros"
              else pool[f"arr_{recipe[1]}"] * np.float32(recipe[2]) for recipe in recipes]
    train_away.write(packed, "uniform-0", told, arrays, [0.5, 0.25])
    away.unpack_all(out, race, [job], packed, scripts.head_to_head.Printer())
    found = scripts.jobs.run_job(out, job, scripts.head_to_head.Printer())
    assert found["steps"] == 2
    assert found["curve"] == []
    assert len(found["validation_argmax_cases"]) == len(race.splits[0].validation)
