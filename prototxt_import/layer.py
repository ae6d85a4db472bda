"""A layer of a network, in one form whatever file it came from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from prototxt_import.params_base import NO_PARAMS, LayerParams
from prototxt_import.state_rule import StateRule

Params = TypeVar("Params", bound=LayerParams)
ParamsClass = type[Params]


@dataclass(frozen=True)
class ParamSpec:
    """How one blob is trained: factors on the learning rate and on the weight decay, and the
    name under which layers share it ("" for a blob of the layer's own).

    `stated` names the factors that the file states: layers that share a blob must agree in them.

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
    """One layer; immutable, its blobs are read-only float32 arrays in Caffe's axis order.

    `param_specs` has an entry for each `param` of the file, so fewer than blobs where Caffe's
    defaults hold. `line` is the line in the prototxt, None for a layer from a binary model.

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
