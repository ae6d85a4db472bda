"""Configuration files, overrides, and what a wrong one says."""

import dataclasses
import json
import re
import time
import typing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import pixelnet_tf.config as config_module
from pixelnet_tf.cli import main
from pixelnet_tf.cli.train import command as train
from pixelnet_tf.config import Config, config_from_dict, config_to_dict, config_to_yaml, load_config
from pixelnet_tf.config.load import BUILT_IN
from pixelnet_tf.errors import ConfigError

NAMES = sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


@pytest.fixture
def written(tmp_path):
    """A function that writes YAML text and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def test_the_built_in_names():
    assert {"phantom", "brats2017", "isles2017", "lgg"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_every_built_in(name, written):
    config = load_config(name)
    assert config != Config()
    assert load_config(written(config_to_yaml(config))) == config
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize("name", NAMES)
def test_one_override_gives_the_original_sampling(name):
    config = load_config(name, ["sampling.strategy=uniform"])
    assert config.sampling.strategy == "uniform"
    assert config.model == load_config(name).model


def test_the_papers_values():
    for name in ("brats2017", "isles2017"):
        config = load_config(name)
        assert config.sampling.pixels == 2000
        assert config.sampling.strategy == "balanced"
        assert config.training.batch_slices == 5
        assert config.training.epochs == 80
        solver = config.training.solver
        assert (solver.base_lr, solver.momentum, solver.weight_decay, solver.lr_policy) == (
            0.001, 0.9, 0.0005, "step")
        assert config.model.head_widths == (4096, 4096)
    assert load_config("brats2017").study.modalities == ("flair", "t1ce", "t2")
    assert load_config("isles2017").study.modalities == ("dwi", "adc", "cbf")
    assert load_config("isles2017").prepare.slice_size == 256


def test_a_path_a_name_and_nothing(written):
    assert load_config() == Config()
    assert load_config("phantom") == load_config("phantom.yaml") == load_config(
        BUILT_IN / "phantom.yaml")
    assert load_config(written("")) == Config()


def test_overrides_in_order(written):
    path = written("training: {steps: 3, solver: {base_lr: 0.1}}")
    config = load_config(path, ["training.steps=5", "training.steps=7",
                                "training.solver.base_lr=1e-3", "study.modalities=[t1, t2]",
                                "split.test=2"])
    assert config.training.steps == 7
    assert config.training.solver.base_lr == 0.001
    assert config.study.modalities == ("t1", "t2")
    assert config.split.test == 2.0


def test_an_override_of_a_label(written):
    path = written("study: {labels: {0: background, 4: tumour}, regions: {WT: [4]}}")
    assert load_config(path, ["study.labels.4=rim"]).study.class_names == ("background", "rim")


def test_the_tree_given_stays_as_it_is():
    tree = {"training": {"steps": 3}}
    assert config_from_dict(tree, overrides=["training.steps=9"]).training.steps == 9
    assert tree == {"training": {"steps": 3}}


WRONG = {
    "unknown key": ("sampling: {stratgy: uniform}",
                    ["unknown key 'sampling.stratgy'", "did you mean 'strategy'?", "pixels"]),
    "unknown section": ("trainig: {steps: 3}", ["'trainig'", "did you mean 'training'?"]),
    "unknown key in depth": ("training: {solver: {base_ir: 1}}",
                             ["'training.solver.base_ir'", "'base_lr'"]),
    "text for a number": ("training: {steps: many}", ["training.steps", "type int", "'many'"]),
    "float for an integer": ("sampling: {pixels: 2.5}", ["sampling.pixels", "type int", "2.5"]),
    "truth for an integer": ("training: {steps: true}", ["training.steps", "type int", "True"]),
    "number for a truth": ("training: {fast: 1}", ["training.fast", "type bool"]),
    "scalar for a list": ("study: {modalities: flair}", ["study.modalities", "must be a list"]),
    "list for a map": ("study: {labels: [0, 1]}", ["study.labels", "must map"]),
    "scalar for a section": ("model: 3", ["model must be a section"]),
    "not allowed": ("sampling: {strategy: fair}", ["'balanced', 'uniform'", "'fair'"]),
    "out of range": ("model: {dropout: 1.5}", ["model.dropout", "[0.0, 0.99]", "1.5"]),
    "no background": ("study: {labels: {1: a, 2: b}}", ["must begin with 0"]),
    "label of a region": ("study: {regions: {WT: [3]}}", ["study.regions.WT", "label 3"]),
    "pattern without files": ("study: {layout: pattern}", ["study.files", "'flair'"]),
    "nothing to do": ("training: {epochs: 0}", ["nothing to do"]),
    "a region that is none": ("prediction: {postprocess: {largest_component: [lesoin]}}",
                              ["largest_component names the region 'lesoin'", "'WT'"]),
    "a region's size": ("prediction: {postprocess: {minimum_component: {WT: -5}}}",
                        ["minimum_component.WT"]),
    "a class that is none": ("study: {labels: {0: a, 1: b}, regions: {b: [1]}}\n"
                             "prediction: {postprocess: {small_enhancing_tumour: 9}}",
                             ["needs a class 'enhancing'"]),
    "a modality that is none": ("prepare: {bias_field: {modalities: [t1c]}}",
                                ["bias_field.modalities names 't1c'", "did you mean 't1ce'?"]),
    "seed of the split": ("split: {seed: -1}", ["split.seed", "-1"]),
    "seed of the training": ("training: {seed: 3000000000}", ["training.seed", "2147483647"]),
    "infinite fraction": ("split: {test: .inf}", ["split.test", "inf"]),
    "a policy without steps": ("training: {solver: {lr_policy: multistep}}", ["stepvalues"]),
    "a step of none": ("training: {solver: {stepsize: 0}}", ["solver.stepsize"]),
    "not a number": ("training: {solver: {gamma: .nan}}", ["solver.gamma", "nan"]),
    "a layer without width": ("model: {head_widths: [0]}", ["model.head_widths"]),
    "a weight that is no number": ("training: {class_weights: [1, .nan, 1, 1]}",
                                   ["training.class_weights[1]", "finite", "nan"]),
    "an infinite weight": ("training: {class_weights: [1, .inf, 1, 1]}",
                           ["training.class_weights[1]", "finite", "inf"]),
    "an infinite weight as text": ("training: {class_weights: [1, 1, 1, inf]}",
                                   ["training.class_weights[3]", "finite", "inf"]),
    "an offset that is no number": ("prediction: {class_offsets: {edema: .nan}}",
                                    ["prediction.class_offsets.edema", "nan"]),
    "a threshold that is no number": ("prediction: {region_thresholds: {WT: .nan}}",
                                      ["prediction.region_thresholds.WT", "nan"]),
    "a section twice": ("training: {steps: 3}\nmodel: {border: 16}\ntraining: {seed: 5}",
                        ["'training'", "on line 1", "again on line 3"]),
    "a label twice": ("study:\n  labels: {0: background, 1: a, 1: b}",
                      ["the key 1", "on line 2"]),
    "a label twice, in two ways": ("study:\n  labels:\n    0: background\n    1: a\n    0x1: b",
                                   ["the key 1", "on line 4", "again on line 5"]),
    "a key twice within a list": ("study: {modalities: [{a: 1, a: 2}]}", ["'a'", "on line 1"]),
    "two labels of one name": ("study: {labels: {0: background, 1: tumour, 2: tumour}}",
                               ["study.labels", "1 and 2 'tumour'", "study.regions"]),
    "not YAML": ("study: [", ["cannot be read as YAML"]),
    "no sections": ("- 1", ["must hold sections"]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_ends_with_2_and_names_itself(kind, written, capsys):
    text, words = WRONG[kind]
    path = written(text)
    with pytest.raises(SystemExit) as exit_:
        main(["prepare", "--config", str(path), "--data", "nowhere", "--out", "nowhere"])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    for word in (str(path), *words):
        assert word in message
    assert "Traceback" not in message


def test_a_missing_file_names_the_built_in_ones():
    with pytest.raises(ConfigError, match=r"nosuch\.yaml: the configuration file does not exist"
                       r".*'brats2017'.*'phantom'"):
        load_config("nosuch.yaml")


@pytest.mark.parametrize(("override", "words"), [
    ("training.steps", "section.key=value"),
    ("=3", "section.key=value"),
    ("training..steps=3", "section.key=value"),
    ("training.steps.more=3", "is a value, not a section"),
    ("training.steps=[", "not YAML"),
    ("training.stps=3", "did you mean 'steps'"),
    ("training={steps: 3, steps: 4}", "the key 'steps' stands on line 1"),
])
def test_wrong_overrides(written, override, words):
    with pytest.raises(ConfigError, match=words):
        load_config(written("training: {steps: 5}"), [override])


def test_print_config_reads_back():
    result = CliRunner().invoke(train, ["--config", "phantom", "--set", "training.steps=9",
                                        "--data", "x", "--out", "y", "--print-config"])
    assert result.exit_code == 0
    assert config_from_dict(yaml.safe_load(result.output)) == load_config("phantom",
                                                                         ["training.steps=9"])


def test_a_bare_yes_or_no_is_the_word():
    assert load_config("phantom", ["prediction.brain_only=no"]).prediction.brain_only == "no"
    assert load_config("phantom", ["prediction.brain_only=yes"]).prediction.brain_only == "yes"


def choice_fields():
    """Every setting that takes one of a few values: its section's class, name and enumeration."""
    for section in (s for name in config_module.__all__ if isinstance(
            s := getattr(config_module, name), type) and dataclasses.is_dataclass(s)):
        for name, kind in typing.get_type_hints(section).items():
            if isinstance(kind, type) and issubclass(kind, config_module.Choice):
                yield section, name, kind


CHOICES = list(choice_fields())


@pytest.mark.parametrize(("section", "name", "kind"), CHOICES,
                         ids=[f"{s.__name__}.{n}" for s, n, _ in CHOICES])
def test_a_choice_is_an_enumeration_inside_and_plain_text_outside(section, name, kind):
    assert type(getattr(section(), name)) is kind
    text = str(kind.texts()[0])
    more = {"momentum": 0.0} if name == "type" else {}
    made = section(**{name: text, **more})
    assert type(getattr(made, name)) is kind
    tree = config_module.config_to_dict(made)
    assert type(tree[name]) is str
    assert tree[name] == text
    assert f"{getattr(made, name)} {getattr(made, name)!r}" == f"{text} {text!r}"
    assert json.loads(json.dumps({name: getattr(made, name)})) == {name: text}
    assert yaml.safe_load(config_module.config_to_yaml(made))[name] in (text, text == "yes")
    with pytest.raises(ConfigError, match=re.escape(f"{name} must be one of {kind.texts()}")):
        section(**{name: "nonsense"})


def test_every_setting_of_few_values_is_among_the_choices():
    assert len(CHOICES) == 20


BILLIONS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [" + ",".join([f"*{before}"] * 9) + "]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True))
MERGED = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [" + ",".join([f"*{before}"] * 9) + "]}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.no_cover
@pytest.mark.parametrize(("text", "said"), [
    (BILLIONS, "unfold to more than 100,000 values"),
    ("study: [" + ", ".join(line.partition(": ")[2] for line in BILLIONS.splitlines()) + "]",
     "unfold to more than 100,000 values"),
    (MERGED, "unfold to more than 100,000 values"),
    ("study: &a\n  files: *a\n", "holds itself"),
    ("study: &a {<<: *a}", "holds itself"),
    ("study: [" * 5000, "cannot be read as YAML"),
    ("study: " + "1:" * 100_000 + "1", "the number on line 1 has 200,001 digits"),
    ("study: 0x" + "f" * 5000, "the number on line 1 has 5,002 digits"),
    ("study: {name: " + "x" * (1 << 18) + "}", "a configuration at most 262,144"),
    ("? " + "x" * 100_000 + "\n: 1", "unknown key"),
    ("study: {files: [" + "y, " * 10_000 + "]}", "study.files must map keys to values"),
], ids=lambda value: value[:12] + "..." + value[-6:])
def test_yaml_takes_no_more_than_its_length(text, said, written):
    """In an error's text neither: nine of nine of nine values were written out for their first 80
    characters."""
    path = written(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(path)
    assert len(str(caught.value)) < 21_000
    assert time.process_time() - start < 3


def test_aliases_are_read_as_before(written):
    config = load_config(written(
        "model: {widths: &w [4, 4, 4, 4, 4], head_widths: *w}\n"
        "training: {<<: {steps: 5}, epochs: 2}\n"))
    assert config.model.head_widths == config.model.widths == (4,) * 5
    assert (config.training.steps, config.training.epochs) == (5, 2)
    # What `<<` brings is there to be replaced.
    config = load_config(written("study: {files: {<<: {a: x, b: x}, b: y}}"))
    assert config.study.files == {"a": "x", "b": "y"}


def test_a_number_of_a_section_made_in_python_is_finite_too():
    training = dataclasses.replace(Config().training, class_weights=(1.0, float("inf"), 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"training\.class_weights\[1\] must be a finite number"):
        dataclasses.replace(Config(), training=training)
