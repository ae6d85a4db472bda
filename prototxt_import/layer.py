"""A layer of a network, in one form whatever file it came from.

With the rules by which it belongs to a network (Caffe's phases, levels and stages), and the blobs
that it must have as far as its settings tell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from prototxt_import.params import (
    BiasParams,
    BNParams,
    ConvolutionParams,
    EmbedParams,
    InnerProductParams,
    NormalizeParams,
    ParameterParams,
    PReLUParams,
    ScaleParams,
)
from prototxt_import.params_base import NO_PARAMS, LayerParams

PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True)
class NetState:
    """The phase, level and stages by which the layers of a network were chosen.

    A phase of None says that none was chosen: all layers are there."""

    phase: str | None = None
    level: int = 0
    stages: tuple[str, ...] = ()


UNCHOSEN = NetState()


@dataclass(frozen=True)
class StateRule:
    """One `include` or `exclude` of a layer, which is met where all that it asks for holds.

    A field that is None or an empty tuple asks for nothing.

    Examples
    --------
    >>> from prototxt_import import StateRule
    >>> StateRule(phase="TRAIN").phase
    'TRAIN'
    """

    phase: str | None = None
    min_level: int | None = None
    max_level: int | None = None
    stage: tuple[str, ...] = ()
    not_stage: tuple[str, ...] = ()

    def is_met(self, phase: str, level: int, stages: Collection[str]) -> bool:
        """Whether a network in this state meets the rule: all that it asks for holds."""
        return (
            self.phase in (None, phase)
            and (self.min_level is None or level >= self.min_level)
            and (self.max_level is None or level <= self.max_level)
            and all(stage in stages for stage in self.stage)
            and not any(stage in stages for stage in self.not_stage)
        )


Params = TypeVar("Params", bound=LayerParams)
ParamsClass = type[Params]


@dataclass(frozen=True)
class ParamSpec:
    """How one blob of a layer is trained.

    Attributes
    ----------
    name
        The name under which layers share the blob, empty for a blob of the layer's own.
    lr_mult, decay_mult
        Factors on the learning rate and on the weight decay.
    share_mode
        STRICT or PERMISSIVE.
    stated
        The names of the factors that the file states: layers that share a blob must agree in them.

    Examples
    --------
    >>> from prototxt_import import load_network
    >>> weights, bias = load_network("deploy.prototxt").layer("conv1_1").param_specs
    >>> bias.lr_mult, bias.decay_mult
    (2.0, 0.0)
    """

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    share_mode: str = "STRICT"
    stated: tuple[str, ...] = field(default=("lr_mult", "decay_mult"), compare=False)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a network, which cannot be changed.

    Attributes
    ----------
    name, type, bottoms, tops
        As in the file.
    params
        The settings of the layer's type.
    blobs
        The weights as read-only float32 arrays in Caffe's axis order.
    param_specs
        An entry for each `param` of the file; there are fewer of them than blobs where Caffe's
        defaults hold (see `param_spec`).
    phase, include, exclude
        To which networks the layer belongs.
    loss_weights, propagate_down
        Caffe's settings of these names, one number for each top and for each bottom.
    line
        The line in the prototxt, None for a layer from a binary model.

    Examples
    --------
    >>> from prototxt_import import load_network
    >>> layer = load_network("deploy.prototxt").layer("relu1_1")
    >>> layer.type, layer.bottoms, layer.tops, layer.line
    ('ReLU', ('conv1_1',), ('conv1_1',), 15)
    """

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    params: LayerParams = NO_PARAMS
    blobs: tuple[np.ndarray, ...] = ()
    param_specs: tuple[ParamSpec, ...] = ()
    phase: str | None = None
    include: tuple[StateRule, ...] = ()
    exclude: tuple[StateRule, ...] = ()
    loss_weights: tuple[float, ...] = ()
    propagate_down: tuple[bool, ...] = ()
    line: int | None = None

    @property
    def is_in_place(self) -> bool:
        """Whether a top overwrites a bottom of the same name."""
        return any(top in self.bottoms for top in self.tops)

    def params_as(self, kind: ParamsClass[Params]) -> Params:
        """Return `params` as the class `kind` that they are of; TypeError if they are not."""
        if not isinstance(self.params, kind):
            raise TypeError(
                f"layer {self.name!r} of type {self.type} has {type(self.params).__name__}, "
                f"but such a layer needs {kind.__name__}"
            )
        return self.params

    def param_spec(self, index: int) -> ParamSpec:
        """Return the specification of blob `index`, Caffe's default where the file has none."""
        return self.param_specs[index] if index < len(self.param_specs) else ParamSpec()

    def is_included(self, phase: str, level: int = 0, stages: Collection[str] = ()) -> bool:
        """Whether the layer belongs to a network in this state (Caffe's `FilterNet`)."""
        if self.include:
            return any(rule.is_met(phase, level, stages) for rule in self.include)
        return not any(rule.is_met(phase, level, stages) for rule in self.exclude)


Shape = tuple["int | None", ...]


def expected_blobs(layer: Layer) -> tuple[Shape, ...] | None:
    """Return the shape of each blob, None in it for a size that depends on the input.

    None for a layer type whose blobs are not known here.
    """
    kind = layer.type
    if kind in ("Convolution", "Deconvolution"):
        conv = layer.params_as(ConvolutionParams)
        outputs = conv.num_output
        if kind == "Convolution":
            return _with_bias((outputs, None, *conv.kernel), outputs, conv.bias_term)
        return _with_bias((None, outputs // conv.group, *conv.kernel), outputs, conv.bias_term)
    if kind == "InnerProduct":
        product = layer.params_as(InnerProductParams)
        outputs = product.num_output
        matrix = (None, outputs) if product.transpose else (outputs, None)
        return _with_bias(matrix, outputs, product.bias_term)
    if kind == "Embed":
        embed = layer.params_as(EmbedParams)
        return _with_bias((embed.input_dim, embed.num_output), embed.num_output, embed.bias_term)
    if kind == "BatchNorm":
        return (None,), (None,), (1,)
    if kind == "Normalize":
        return _per_channel(layer.params_as(NormalizeParams).channel_shared)
    if kind == "PReLU":
        return _per_channel(layer.params_as(PReLUParams).channel_shared)
    if kind == "Scale" and len(layer.bottoms) == 1:
        scale = layer.params_as(ScaleParams)
        if scale.num_axes < 0:
            return None
        return ((None,) * scale.num_axes,) * (2 if scale.bias_term else 1)
    if kind == "Bias" and len(layer.bottoms) == 1:
        axes = layer.params_as(BiasParams).num_axes
        return None if axes < 0 else ((None,) * axes,)
    if kind == "Parameter":
        return (layer.params_as(ParameterParams).shape,)
    if kind == "BN" and (fork := layer.params_as(BNParams).fork) is not None:
        # The forks keep a channel's numbers in the old form of four axes.
        return ((1, None, 1, 1),) * (2 if fork == "SegNet" else 4)
    if kind in ("Scale", "Bias", "BN", "LSTM", "RNN"):
        return None
    return ()


def _with_bias(weight: Shape, outputs: int, bias_term: bool) -> tuple[Shape, ...]:
    return (weight, (outputs,)) if bias_term else (weight,)


def _per_channel(channel_shared: bool) -> tuple[Shape, ...]:
    return ((),) if channel_shared else ((None,),)


def fold_legacy_shape(layer: Layer, index: int, array: np.ndarray) -> np.ndarray:
    """Return a blob of the old 4-axis form in the shape that its layer has today.

    Old files hold a bias as (1, 1, 1, N) and an InnerProduct's weights as (1, 1, out, in). Only
    leading axes of 1 are dropped, as Caffe's comparison of shapes does.
    """
    expected = expected_blobs(layer)
    if expected is None or index >= len(expected):
        return array
    axes = len(expected[index])
    extra = array.ndim - axes
    if extra > 0 and all(size == 1 for size in array.shape[:extra]):
        return array.reshape(array.shape[extra:])
    return array


def blob_mismatch(layer: Layer) -> str | None:
    """Return what is wrong with the blobs of `layer`, None if they fit its settings."""
    expected = expected_blobs(layer)
    if expected is None or not layer.blobs:
        return None
    if len(layer.blobs) != len(expected):
        return f"it needs {len(expected)} weight blobs, but the file holds {len(layer.blobs)}"
    spatial = layer.blobs[0].ndim - 2
    if layer.type in ("Convolution", "Deconvolution") and spatial in (1, 3):
        return (
            f"its kernel has the shape {' x '.join(map(str, layer.blobs[0].shape))}, that of a "
            f"{spatial}-D convolution; only 2-D ones are supported"
        )
    for index, (blob, shape) in enumerate(zip(layer.blobs, expected, strict=True)):
        fits = blob.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, blob.shape, strict=True)
        )
        if not fits:
            wanted = " x ".join("any" if size is None else str(size) for size in shape) or "1"
            return (
                f"blob {index} has the shape {' x '.join(map(str, blob.shape)) or '1'}, "
                f"but the layer's settings ask for {wanted}"
            )
    return None
