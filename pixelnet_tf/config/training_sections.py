"""Sections of the network and its training: model, training and its solver."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixelnet_tf.config.checks import in_range, one_of
from pixelnet_tf.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """The network: VGG-16, hypercolumn, perceptron (paper section 2)."""

    #: Channels of the five convolution blocks. [VGG-16]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    #: Channels of fc6_conv and fc7_conv. [VGG-16]
    fc_width: int = 4096
    #: `faithful`: fc6 without padding, read at rate 224, as the original; `aligned`: fc6 padded
    #: by 3, read at rate 32; `none`: no fc6/fc7, the hypercolumn ends with conv5_3 (see caffe.md).
    #: [original]
    fc7: str = "faithful"
    #: `mlp`, or `linear` (one layer after a ReLU on the hypercolumn). [paper 2]
    head: str = "mlp"
    #: Hidden layers of the `mlp` head. [paper 2]
    head_widths: tuple[int, ...] = (4096, 4096)
    #: Caffe's BatchNorm on every tap (the original's linear variant). [original]
    batch_norm: bool = False
    #: Share of the numbers dropped after fc6, fc7 and each hidden layer of the head. [original]
    dropout: float = 0.5
    #: Zero pixels around the image; pixel coordinates move with it. [original]
    border: int = 100
    #: Start of the head: `caffe` is a Gaussian of `filler_std`; `he` is scaled to the fan-in and
    #: starts faster where the head is small. [original]
    head_filler: str = "caffe"
    #: Standard deviation of the `caffe` filler. [original]
    filler_std: float = 0.001

    def __post_init__(self) -> None:
        if len(self.widths) != 5 or min(self.widths) < 1:
            raise ConfigError(f"model.widths needs five positive numbers, got {self.widths}")
        one_of("model.fc7", self.fc7, ("faithful", "aligned", "none"))
        one_of("model.head", self.head, ("mlp", "linear"))
        one_of("model.head_filler", self.head_filler, ("caffe", "he"))
        in_range("model.fc_width", self.fc_width, 1, 10**6)
        in_range("model.filler_std", self.filler_std, 0.0, 1e3)
        in_range("model.dropout", self.dropout, 0.0, 0.99)
        in_range("model.border", self.border, 0, 1024)
        if self.head == "mlp" and not self.head_widths:
            raise ConfigError("model.head_widths needs at least one number for the mlp head")
        if min(self.head_widths, default=1) < 1:
            raise ConfigError(f"model.head_widths must be positive, got {list(self.head_widths)}")


@dataclass(frozen=True)
class SolverConfig:
    """Caffe's solver and its learning-rate policy; the defaults are the authors' solver."""

    #: Caffe's `SGD`, `Nesterov`, `AdaGrad`, `RMSProp`, `AdaDelta` or `Adam`. [original]
    type: str = "SGD"
    #: Learning rate at the start. [original]
    base_lr: float = 0.001
    #: The learning rate is inside the momentum: `h = momentum * h + lr * g`. `AdaGrad` and
    #: `RMSProp` have none: 0. [original]
    momentum: float = 0.9
    #: What `Adam` keeps of the squares. [Caffe]
    momentum2: float = 0.999
    #: What `RMSProp` keeps of the squares. [Caffe]
    rms_decay: float = 0.99
    #: Added to what `AdaGrad`, `RMSProp`, `AdaDelta` and `Adam` divide by. [Caffe]
    delta: float = 1e-8
    #: L2 decay, added to the gradient before the momentum. [original]
    weight_decay: float = 0.0005
    #: Scale the gradients down where their L2 norm over all layers exceeds this, that of their sum
    #: over `iter_size` mini-batches; 0: never. [Caffe]
    clip_gradients: float = 0.0
    #: Mini-batches of a step, whose gradients are averaged: a larger batch in the memory of a small
    #: one. [Caffe]
    iter_size: int = 1
    #: `fixed`, `step`, `exp`, `inv`, `multistep`, `poly` or `sigmoid`. [original]
    lr_policy: str = "step"
    #: Factor of `step`, `exp`, `multistep`; slope of `inv` and `sigmoid`. [original]
    gamma: float = 0.1
    #: Exponent of `inv` and `poly`. [Caffe]
    power: float = 0.9
    #: Steps between two falls of `step`; middle of `sigmoid`. [original]
    stepsize: int = 100000
    #: Steps at which `multistep` falls. [Caffe]
    stepvalues: tuple[int, ...] = ()
    #: Learning-rate multiplier of the new layers (head, and fc6/fc7 when they start at random); 10
    #: in the authors' later files. [original]
    new_layers_lr: float = 1.0

    def __post_init__(self) -> None:
        one_of("training.solver.lr_policy", self.lr_policy,
                ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"))
        in_range("training.solver.momentum", self.momentum, 0.0, 1.0)
        for name in ("base_lr", "weight_decay", "clip_gradients", "new_layers_lr"):
            in_range(f"training.solver.{name}", getattr(self, name), 0.0, 1e6)
        for name in ("gamma", "power"):
            in_range(f"training.solver.{name}", getattr(self, name), -1e6, 1e6)
        in_range("training.solver.stepsize", self.stepsize, int(self.lr_policy == "step"))
        if self.lr_policy == "multistep" and not self.stepvalues:
            raise ConfigError("training.solver.stepvalues needs at least one step for the policy "
                              "multistep")
        if min(self.stepvalues, default=0) < 0:
            raise ConfigError("training.solver.stepvalues must not be negative, got "
                              f"{list(self.stepvalues)}")
        one_of("training.solver.type", self.type,
               ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"))
        if self.momentum and self.type in ("AdaGrad", "RMSProp"):
            raise ConfigError(f"training.solver.type={self.type} has no momentum; set "
                              "training.solver.momentum=0")
        for name in ("momentum2", "rms_decay"):
            in_range(f"training.solver.{name}", getattr(self, name), 0.0, 1.0)
        shares = {"RMSProp": ("rms_decay",), "AdaDelta": ("momentum",),
                  "Adam": ("momentum", "momentum2")}
        for name in shares.get(self.type, ()):
            if getattr(self, name) == 1:
                raise ConfigError(f"training.solver.{name} must be below 1 with {self.type}")
        in_range("training.solver.delta", self.delta, 0.0, 1e6)
        in_range("training.solver.iter_size", self.iter_size, 1)


@dataclass(frozen=True)
class TrainingConfig:
    """The training loop (paper section 3.3)."""

    solver: SolverConfig = field(default_factory=SolverConfig)
    #: `cross_entropy` (Caffe's SoftmaxWithLoss), `dice` (one minus the soft Dice of the lesion
    #: classes over all pixels of a mini-batch), or their sum `cross_entropy_dice`. [paper 2]
    loss: str = "cross_entropy"
    #: Weight of each class in the loss, in the order of `study.labels`; empty: all weigh the same.
    class_weights: tuple[float, ...] = ()
    #: Passes over the training slices. [original]
    epochs: int = 80
    #: Number of solver steps; replaces `epochs` when it is not 0.
    steps: int = 0
    #: Slices in a mini-batch. [original]
    batch_slices: int = 5
    #: Of start weights, order of slices, pixels, flips and dropout. [original]
    seed: int = 1989
    #: `random`, `imagenet` (Keras' VGG-16), or the path of a .caffemodel or a .keras model; the
    #: paper starts from VGG-16. With Caffe's .solverstate the training goes on from its step, with
    #: its weights as they are and its momentum (see caffe.md). [paper 3.3]
    initial_weights: str = "random"
    #: Gray levels, as the pretrained kernels know them, that one unit of the normalised image
    #: stands for (ImageNet's standard deviation is near 58). The network is homogeneous: dividing
    #: the pretrained biases by it makes every response the original's, divided by it.
    pretrained_intensity: float = 58.0
    #: Rescale the start weights so that every map of the hypercolumn has the same strength; the
    #: network computes the same maps, each times a number.
    balance_taps: bool = False
    #: Blocks of VGG-16 that stay as they are, from the first on (0: all are trained).
    frozen_blocks: int = 0
    #: Solver steps between two validations; 0: once an epoch.
    validate_every: int = 0
    #: Solver steps between two checkpoints; 0: once an epoch, and at least every 200 steps.
    checkpoint_every: int = 0
    #: `float32`, or `bfloat16` for the matrix products with float32 weights.
    precision: str = "float32"
    #: Compute only what the image and the sampled pixels need (the same gradients).
    fast: bool = True
    #: TensorFlow's deterministic kernels: a resumed run ends with the same weights.
    deterministic: bool = True

    @property
    def step_slices(self) -> int:
        """Slices of a solver step."""
        return self.batch_slices * self.solver.iter_size

    def __post_init__(self) -> None:
        one_of("training.loss", self.loss, ("cross_entropy", "dice", "cross_entropy_dice"))
        if self.class_weights and (min(self.class_weights) < 0 or not sum(self.class_weights[1:])):
            raise ConfigError("training.class_weights must not be negative, and some lesion class "
                              f"must weigh something, got {list(self.class_weights)}")
        one_of("training.precision", self.precision, ("float32", "bfloat16"))
        in_range("training.pretrained_intensity", self.pretrained_intensity, 1e-3, 1e6)
        # TensorFlow takes it as an int32.
        in_range("training.seed", self.seed, 0, 2**31 - 1)
        in_range("training.batch_slices", self.batch_slices, 1, 1024)
        in_range("training.frozen_blocks", self.frozen_blocks, 0, 5)
        for name in ("epochs", "steps", "validate_every", "checkpoint_every"):
            in_range(f"training.{name}", getattr(self, name), 0)
        if not (self.epochs or self.steps):
            raise ConfigError("training.epochs and training.steps are both 0: nothing to do")
