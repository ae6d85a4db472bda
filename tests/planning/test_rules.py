"""The rules from a study to settings, on surveys made by hand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pixelnet_tf.cases.split import draw_split
from pixelnet_tf.config import Layout, Preset, StudyConfig, config_of
from pixelnet_tf.errors import DataError, ModelError
from pixelnet_tf.planning.hardware import Hardware
from pixelnet_tf.planning.rules import (
    choose_modalities,
    choose_preset,
    count_looks,
    describe,
    find_patients,
    fit_steps,
    looks_setting,
    make_settings,
    name_labels,
    propose_regions,
    rounded,
    study_name,
)
from pixelnet_tf.planning.trial import TrialResult
from pixelnet_tf.volumes.survey import LabelCount, Survey

COUNT = LabelCount("a", Path("a_seg.nii.gz"), {1.0: 100, 2.0: 300}, 10_000, 20, 5, (4.0, 1.0))
SURVEY = Survey(6, 6, {(240, 240, 155): 6}, (1.0, 1.0, 3.0), {"LPS": 6}, (COUNT, COUNT), True,
                0.8, 0.5)
STUDY = StudyConfig(modalities=("flair", "t1"), labels={0: "background", 1: "core", 2: "rim"},
                    regions={"all": (1, 2)})
OLD = Hardware("an old one", 4, 16.0, "", False)
NEW = replace(OLD, bfloat16="amx_bf16")
NAMES = [f"case{number}" for number in range(6)]
TRIAL = TrialResult("CPU", 0.5, 1.0, 10**9, 0.2, 0.4, 10**9)


def chosen(survey=SURVEY, study=STUDY, hardware=NEW, preset=Preset.BEST, weights="vgg.caffemodel"):
    settings = make_settings(study, survey, hardware, preset, {}, NAMES, weights)
    keys = [setting.key for setting in settings]
    assert len(set(keys)) == len(keys)
    return config_of(settings), {setting.key: setting.reason for setting in settings}


def test_best_on_a_stripped_study_of_a_usual_size():
    config, reasons = chosen()
    assert config.prepare.slice_size == 0
    assert (config.sampling.strategy, config.sampling.pixels) == ("uniform", 7200)
    # A quarter of the slices has a lesion: 1/4 to 3/4.
    assert config.sampling.lesion_free_slices == 0.35
    assert config.training.initial_weights == "vgg.caffemodel"
    assert (config.training.precision, config.prediction.precision) == ("auto", "auto")
    assert "here bfloat16: this processor multiplies it (amx_bf16)" in reasons["training.precision"]
    assert config.model.fc7 == "none"


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize("skull", [False, True])
def test_every_choice_has_its_reason_and_the_whole_holds(preset, skull):
    config, reasons = chosen(study=replace(STUDY, skull_stripped=not skull), preset=preset)
    assert [key for key, reason in reasons.items()
            if not reason and not key.startswith("study.")] == []
    assert config.study.skull_stripped is not skull


@pytest.mark.parametrize(("size", "scaled_to", "pixels"), [
    ((240, 240), 0, 7200), ((256, 256), 0, 8192), ((512, 512), 0, 8192),
    # Scaled up to the paper's size: 256 x 256, and 256 x 128.
    ((160, 160), 256, 8192), ((160, 80), 256, 4100)])
def test_best_draws_an_eighth_of_a_slice_as_the_network_sees_it(size, scaled_to, pixels):
    config, _ = chosen(replace(SURVEY, sizes={(*size, 20): 6}))
    assert (config.prepare.slice_size, config.sampling.pixels) == (scaled_to, pixels)


def test_bfloat16_only_where_the_processor_multiplies_it():
    for hardware, words in ((OLD, "here float32"), (replace(OLD, gpu=True), "graphics card")):
        config, reasons = chosen(hardware=hardware)
        assert config.training.precision == "auto"
        assert words in reasons["training.precision"]
    assert chosen(preset=Preset.LAPTOP)[0].training.precision == "float32"


def test_the_faithful_preset_stays_the_papers():
    small = replace(SURVEY, sizes={(128, 100, 20): 6})
    config, _ = chosen(small, replace(STUDY, skull_stripped=False), preset=Preset.FAITHFUL)
    assert (config.sampling.pixels, config.sampling.lesion_free_slices) == (2000, 1.0)
    assert (config.training.epochs, config.training.steps) == (80, 0)
    # The ISLES rule of the paper.
    assert config.prepare.slice_size == 256
    assert config.prepare.region == "brain"


def test_with_skull_fat_and_air_stay_out():
    config, _ = chosen(study=replace(STUDY, skull_stripped=False))
    assert config.prepare.region == "core"
    assert config.prediction.brain_only == "yes"
    assert config.sampling.background_in_brain


def test_maps_in_physical_units_are_not_corrected():
    config, reasons = chosen(study=replace(STUDY, modalities=("dwi", "adc")))
    assert config.prepare.bias_field.modalities == ("dwi",)
    assert "adc" in reasons["prepare.bias_field"]
    assert config.evaluation.protocol == "isles"
    assert not chosen(study=replace(STUDY, modalities=("cbf", "adc")))[0].prepare.bias_field.enabled


def test_small_slices_lead_to_the_small_network():
    small = replace(SURVEY, sizes={(96, 90, 48): 6})
    assert choose_preset(small, "vgg.caffemodel")[0] == Preset.LAPTOP
    assert choose_preset(SURVEY, "")[0] == Preset.LAPTOP
    assert choose_preset(SURVEY, "imagenet")[0] == Preset.BEST
    assert chosen(small, preset=Preset.LAPTOP)[0].sampling.pixels == 900


def test_without_start_weights_the_next_step_is_said():
    with pytest.raises(ModelError, match=r"--weights FILE.*--preset laptop"):
        chosen(weights="")


def test_patients_are_told_by_names_where_some_have_several_scans():
    assert find_patients(NAMES) == ("", "")
    for names, patients in (
            (["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"], 2),
            (["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"], 2),
            (["p1_scan1", "p1_scan2", "p2_scan1"], 2),
            (["BRATS_009_crop01", "BRATS_009_crop02", "BRATS_119_crop01"], 2)):
        _, words = find_patients(names)
        assert f"{len(names)} cases of {patients} patients" in words
        config_of(make_settings(STUDY, SURVEY, NEW, Preset.LAPTOP, {}, names, ""))
    # Four crops each of two patients, of whom there need not be many: a crop is always of a scan.
    crops = [f"BRATS_{patient}_crop{crop:02}" for patient in ("009", "119") for crop in range(1, 5)]
    assert "8 cases of 2 patients" in find_patients(crops)[1]
    # Five patients of the ISBI challenge of 2015, of four to six visits each.
    visits = [f"training{patient:02}_{visit:02}" for patient, several in enumerate((4, 4, 5, 4, 4))
              for visit in range(several)]
    assert "21 cases of 5 patients" in find_patients(visits)[1]
    # Every case is another patient's, or all are one's: the names say nothing of scans.
    assert find_patients(["sub-01", "sub-02"]) == ("", "")
    assert find_patients(["phantom_001", "phantom_002", "phantom_003"]) == ("", "")


@pytest.mark.parametrize(("names", "words"), [
    ([f"{grade}_{number:03}" for grade, count in (("HGG", 210), ("LGG", 75))
      for number in range(1, count + 1)], r"\(HGG, LGG\).*up to 210 cases each"),
    ([f"site{site}_{number:03}" for site in "ABCD" for number in range(3)],
     r"\(siteA, siteB, siteC, \.\.\.\).*up to 3 cases each"),
    ([f"site{site}_scan_{number:03}" for site in range(12) for number in range(12)],
     r"\(site0, site1, site10, \.\.\.\).*up to 12 cases each"),
    ([f"{group}_sub{number}" for group, count in (("control", 10), ("ms", 20))
      for number in range(1, count + 1)], r"\(control, ms\).*up to 20 cases each")])
def test_centres_and_grades_are_no_patients(names, words):
    """285 cases of two patients would be trained on one grade and tested on the other."""
    pattern, doubt = find_patients(names)
    assert pattern == ""
    assert re.search(words, doubt)
    config = config_of(make_settings(STUDY, SURVEY, NEW, Preset.LAPTOP, {}, names, ""))
    assert config.split.patient == ""
    split = draw_split(names, config.split)
    kinds = {name.split("_")[0] for name in names}
    assert {name.split("_")[0] for name in split.train} == kinds
    assert split.validation
    assert split.test


def test_few_patients_are_not_set_aside():
    settings = make_settings(STUDY, SURVEY, NEW, Preset.LAPTOP, {}, ["only"], "")
    assert config_of(settings).split.test == 0


def test_regions():
    brats = {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    assert propose_regions(brats) == {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
    msd = {0: "background", 1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
    assert propose_regions(msd) == {"ET": (3,), "WT": (1, 2, 3), "TC": (2, 3)}
    assert propose_regions({0: "background", 1: "lesion"}) == {"lesion": (1,)}
    assert propose_regions({0: "background", 1: "a", 3: "b"}) == {
        "a": (1,), "b": (3,), "lesion": (1, 3)}


def test_a_data_set_for_region_based_training_is_trained_so_but_as_the_paper():
    study = replace(STUDY, regions={"all": (1, 2), "core": (1,)},
                    regions_class_order={"all": 2, "core": 1})
    for preset, on in ((Preset.BEST, True), (Preset.LAPTOP, True), (Preset.FAITHFUL, False)):
        config, reasons = chosen(study=study, preset=preset)
        assert config.model.region_based is on
        assert "region-based" in reasons["model.region_based"] or on
        assert config.study.regions_class_order == {"all": 2, "core": 1}
    assert "model.region_based" not in chosen()[1]


def survey_of(*values):
    return replace(SURVEY, labels=(replace(COUNT, voxels=dict.fromkeys(map(float, values), 1)),))


def test_labels():
    brats = replace(STUDY, layout=Layout.BRATS)
    assert name_labels(survey_of(1, 2, 4), {}, brats)[0][4] == "enhancing"
    assert name_labels(survey_of(1, 3), {}, brats)[0] == {0: "background", 1: "label_1",
                                                          3: "label_3"}
    assert name_labels(survey_of(255), {}, STUDY)[0] == {0: "background", 255: "lesion"}
    named = {0: "background", 1: "a", 2: "b"}
    assert name_labels(survey_of(1), named, replace(STUDY, layout=Layout.MSD))[0] == named


@pytest.mark.parametrize("value", [0.5, 300, -1])
def test_what_is_no_label_is_said(value):
    with pytest.raises(DataError, match=r"case a: a_seg.nii.gz: holds .*from 0 to 255; look"):
        name_labels(survey_of(value), {}, STUDY)


def test_a_label_that_dataset_json_does_not_name_is_said():
    with pytest.raises(DataError, match=r"label 7, which dataset.json does not name.*\[0, 1\]"):
        name_labels(survey_of(7), {0: "background", 1: "a"}, replace(STUDY, layout=Layout.NNUNET))


def test_channels():
    four = ("flair", "t1ce", "t2", "t1")
    assert choose_modalities(four, Preset.LAPTOP)[0] == four
    assert choose_modalities(four, Preset.BEST)[0] == four
    assert choose_modalities(four, Preset.FAITHFUL)[0] == four[:3]
    assert choose_modalities(four[:2], Preset.FAITHFUL)[0] == four[:2]


def test_steps_fit_into_the_minutes():
    # 600 s of the cores: a tenth may go into looks at 20 slices, 8 s each: 7. With the two of the
    # decisions 528 steps of 1 s are left, a tenth of which is 6 looks.
    settings, clock = fit_steps(10, TRIAL, 2, 20)
    values = {setting.key: setting.value for setting in settings}
    assert values == {"training.steps": 520, "training.validate_every": 87}
    assert settings[1].reason == ("6 looks at the validation cases, 8 s each: 9% of the training's "
                                  "time, a tenth at most")
    assert clock == pytest.approx((520 * 0.5 + 8 * 20 * 0.2) / 60)
    # A card's time is that of the clock.
    on_card = replace(TRIAL, device="GPU")
    assert fit_steps(10, on_card, 2, 0)[0][0].value == 1200


@pytest.mark.parametrize(("one_round", "looks", "every"), [
    (0.5, 15, 67), (10, 10, 100), (33, 3, 334), (500, 1, 1000)])
def test_validations_take_a_tenth_of_the_training_at_most(one_round, looks, every):
    """1,000 steps of a second, and validations from cheap to dearer than a tenth of them."""
    assert count_looks(1000, one_round) == looks
    setting = looks_setting(1000, 1000, one_round, "so dear")
    assert setting.value == every
    assert setting.reason.endswith("a tenth at most") == (one_round <= 100)
    # One an epoch, where epochs are counted.
    assert count_looks(1000, 0.5, most=80) == 80


@pytest.mark.parametrize(("number", "wanted"), [(3.7, 3), (10, 10), (4678, 4600), (999, 990)])
def test_two_figures(number, wanted):
    assert rounded(number) == wanted


def test_what_was_found_is_said():
    text = "\n".join(describe(SURVEY, STUDY))
    assert "slices 3 times as far apart as pixels" in text
    assert "core 1.000%, rim 3.000%; 25% of the slices have a lesion" in text
    assert "median 2 a case, 5 ml together; the largest holds 80% of it" in text


def test_the_name_of_a_study(tmp_path):
    assert study_name(tmp_path / "my study (2)") == "my_study_2"
    assert study_name(Path("/")) == "study"
