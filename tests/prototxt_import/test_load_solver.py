import pytest

from prototxt_import import CaffeFormatError, Solver, load_solver


def test_caffes_defaults(write):
    solver = load_solver(write('lr_policy: "fixed"'))
    assert solver == Solver(lr_policy="fixed")
    assert (solver.iter_size, solver.random_seed, solver.type) == (1, -1, "SGD")
    assert solver.regularization_type == "L2"
    assert solver.clip_gradients == -1


def test_the_authors_solver(write):
    solver = load_solver(
        write(
            'train_net: "train.prototxt" base_lr: 0.001 lr_policy: "step" gamma: 0.1\n'
            "stepsize: 100000 display: 20 momentum: 0.9 weight_decay: 0.0005 snapshot: 0\n"
            'snapshot_prefix: "pixelnet" random_seed: 1989 iter_size: 2 max_iter: 80000\n'
            'test_net: "a" test_net: "b" solver_mode: CPU type: "Nesterov"'
        )
    )
    assert (solver.base_lr, solver.gamma, solver.momentum) == (0.001, 0.1, 0.9)
    assert (solver.weight_decay, solver.stepsize, solver.max_iter) == (0.0005, 100000, 80000)
    assert (solver.random_seed, solver.iter_size) == (1989, 2)
    assert (solver.net, solver.train_net, solver.test_net) == (None, "train.prototxt", ("a", "b"))
    assert (solver.snapshot_prefix, solver.solver_mode, solver.type) == (
        "pixelnet",
        "CPU",
        "Nesterov",
    )


def test_multistep_and_old_type(write):
    text = 'lr_policy: "multistep" gamma: 0.5 stepvalue: 10 stepvalue: 20 solver_type: ADAGRAD'
    solver = load_solver(write(text))
    assert solver.stepvalues == (10, 20)
    assert solver.type == "AdaGrad"


def test_network_inside_the_solver(write):
    layer = 'layers { name: "r" type: RELU bottom: "a" top: "a" }'
    text = f'lr_policy: "fixed" net_param {{ input: "a" input_dim: [1, 2, 3, 4] {layer} }}'
    network = load_solver(write(text)).network
    assert [layer.type for layer in network.layers] == ["Input", "ReLU"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base_lr: 0.1", "lr_policy must be one of fixed, step,.*got ''"),
        ('lr_policy: "cosine"', "got 'cosine'"),
        ('lr_policy: "step" gamma: 0.1', "needs stepsize"),
        ('lr_policy: "poly" power: 1', "needs max_iter"),
        ('lr_policy: "multistep" gamma: 0.1', "needs stepvalue"),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 1', "must not decrease"),
        ('lr_policy: "fixed" type: "SGDW"', "type must be one of SGD"),
        ('lr_policy: "fixed" regularization_type: "L3"', "L1, L2"),
        ('lr_policy: "fixed" type: "SGD" solver_type: SGD', "not both"),
        ('lr_policy: "fixed" iter_size: 0', "iter_size must be at least 1"),
        ('lr_policy: "fixed"\nbase_lrs: 1', 'no field named "base_lrs"'),
    ],
)
def test_what_is_refused(write, text, message):
    with pytest.raises(CaffeFormatError, match=message):
        load_solver(write(text))


def test_syntax_error_has_its_place(write):
    with pytest.raises(CaffeFormatError) as caught:
        load_solver(write('lr_policy: "fixed"\n  base_lr: x\n'))
    assert (caught.value.line, caught.value.column) == (2, 12)
