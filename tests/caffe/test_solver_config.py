import pytest
import yaml

from pixelnet_tf.caffe.solver_config import training_section, training_yaml
from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ConfigError, ModelError

AUTHORS = """
net: "train.prototxt" base_lr: 0.001 lr_policy: "step" gamma: 0.1 stepsize: 100000
momentum: 0.9 weight_decay: 0.0005 random_seed: 1989 max_iter: 240000
"""


def written(tmp_path, text):
    path = tmp_path / "solver.prototxt"
    path.write_text(text)
    return path


def test_the_authors_solver(tmp_path):
    path = written(tmp_path, AUTHORS)
    config = config_from_dict(yaml.safe_load(training_yaml(path))).training
    assert (config.steps, config.seed) == (240000, 1989)
    solver = config.solver
    assert (solver.base_lr, solver.momentum, solver.weight_decay) == (0.001, 0.9, 0.0005)
    assert (solver.lr_policy, solver.gamma, solver.stepsize) == ("step", 0.1, 100000)


def test_multistep(tmp_path):
    path = written(tmp_path, 'base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 10 '
                             "stepvalue: 20 net: 'a'")
    assert training_section(path)["solver"]["stepvalues"] == [10, 20]


@pytest.mark.parametrize(("addition", "expected"), [("", 0.0), ("clip_gradients: 10", 10.0),
                                                    ("clip_gradients: -1", 0.0)])
def test_clipped_gradients(addition, expected, tmp_path):
    section = training_section(written(tmp_path, AUTHORS + addition))
    assert section["solver"]["clip_gradients"] == expected


@pytest.mark.parametrize(
    "addition",
    ['regularization_type: "L1"', "nonsense: 1", 'type: "AdaGrad"', 'type: "Adagrad"'],
)
def test_what_cannot_be_followed(addition, tmp_path):
    with pytest.raises((ModelError, ConfigError), match=r"solver\.prototxt"):
        training_section(written(tmp_path, AUTHORS + addition))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('type: "Adam" momentum2: 0.99 delta: 1e-4',
         {"type": "Adam", "momentum": 0.9, "momentum2": 0.99, "delta": 1e-4}),
        ("solver_type: NESTEROV", {"type": "Nesterov", "momentum": 0.9}),
        ("iter_size: 4", {"type": "SGD", "iter_size": 4}),
    ],
)
def test_types_and_accumulated_gradients(text, expected, tmp_path):
    section = training_section(written(tmp_path, AUTHORS + text))["solver"]
    assert {key: section[key] for key in expected} == expected
    solver = config_from_dict({"training": {"solver": section}}).training.solver
    assert {key: getattr(solver, key) for key in expected} == expected


@pytest.mark.parametrize("text", [
    'base_lr: 0.1 lr_policy: "fixed" type: "AdamW"', 'base_lr: 0.1 lr_policy: "cosine"',
])
def test_solvers_of_this_project_are_none_of_caffes(text, tmp_path):
    with pytest.raises(ModelError, match="must be one of"):
        training_section(written(tmp_path, text))


def test_a_solver_without_momentum(tmp_path):
    text = AUTHORS.replace("momentum: 0.9", "") + 'type: "RMSProp" rms_decay: 0.98'
    section = training_section(written(tmp_path, text))["solver"]
    assert (section["type"], section["momentum"], section["rms_decay"]) == ("RMSProp", 0.0, 0.98)
