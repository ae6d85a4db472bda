"""Caffe's layer types, and the Keras layer that stands for each.

A builder takes a `Layer` of the description and its bottoms (Keras tensors), and returns its tops.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import keras

from pixelnet_tf.caffe.layers import losses
from pixelnet_tf.caffe.layers.affine import Bias, Scale
from pixelnet_tf.caffe.layers.convolution import Convolution, Deconvolution
from pixelnet_tf.caffe.layers.inner_product import InnerProduct
from pixelnet_tf.caffe.layers.normalize import LRN, Normalize
from pixelnet_tf.caffe.layers.pooling import Pooling
from pixelnet_tf.caffe.layers.reshaping import Crop, Eltwise, Reshape, Slice
from pixelnet_tf.caffe.layout import keras_axis
from pixelnet_tf.model.batch_norm import CaffeBatchNorm
from pixelnet_tf.model.fillers import CaffeFiller
from pixelnet_tf.model.hypercolumn import Hypercolumn
from prototxt_import import Filler, Layer

#: Types whose tops are inputs of the model.
INPUT_TYPES = (
    "Input", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "Python",
)
LOSS_TYPES = ("SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss")
#: Types that compute nothing that a model here needs.
DROPPED_TYPES = ("Silence", "Accuracy")

Builder = Callable[[Layer, list, int], Any]
BUILDERS: dict[str, Builder] = {}


def keras_name(name: str) -> str:
    """Name of the Keras layer that stands for a Caffe layer: Keras forbids `/`."""
    return name.replace("/", "_")


def _builds(*types: str) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        for type_ in types:
            BUILDERS[type_] = builder
        return builder

    return register


def _filler(filler: Filler, layer: Layer, seed: int, number: int = 0) -> CaffeFiller:
    """The layer's filler, or zeros where its weights come from a file anyway."""
    if layer.blobs:
        return CaffeFiller("constant")
    own = zlib.crc32(f"{layer.name}/{number}".encode()) ^ seed
    return CaffeFiller(**{**dataclasses.asdict(filler), "seed": own & 0x7FFFFFFF})


def _common(layer: Layer, blobs: int) -> dict[str, Any]:
    specs = [layer.param_spec(number) for number in range(blobs)]
    return {
        "name": keras_name(layer.name),
        "multipliers": [(spec.lr_mult, spec.decay_mult) for spec in specs],
    }


@_builds("Convolution", "Deconvolution")
def _convolution(layer, bottoms, seed):
    p = layer.params
    if p.axis != 1:
        raise ValueError(f"axis {p.axis} is not supported, only 1")
    kind = Convolution if layer.type == "Convolution" else Deconvolution
    made = kind(
        p.num_output, p.kernel, p.stride, p.pad, p.dilation, p.group, p.bias_term,
        _filler(p.weight_filler, layer, seed), _filler(p.bias_filler, layer, seed, 1),
        **_common(layer, 1 + p.bias_term),
    )
    return _each(made, bottoms)


@_builds("InnerProduct")
def _inner_product(layer, bottoms, seed):
    p = layer.params
    length = layer.blobs[0].shape[0 if p.transpose else 1] if layer.blobs else None
    made = InnerProduct(
        p.num_output, p.axis, p.bias_term, length,
        _filler(p.weight_filler, layer, seed), _filler(p.bias_filler, layer, seed, 1),
        p.transpose, **_common(layer, 1 + p.bias_term),
    )
    return made(_only(bottoms))


@_builds("Pooling")
def _pooling(layer, bottoms, seed):
    p = layer.params
    if p.pool not in ("MAX", "AVE"):
        raise ValueError(f"pool {p.pool} is not supported, only MAX and AVE")
    kernel = None if p.global_pooling else p.kernel
    return Pooling(p.pool, kernel, p.stride, p.pad, p.ceil_mode, name=keras_name(layer.name))(
        _only(bottoms)
    )


@_builds("ReLU", "Sigmoid", "TanH")
def _activation(layer, bottoms, seed):
    name = keras_name(layer.name)
    if layer.type == "ReLU":
        made = keras.layers.ReLU(negative_slope=layer.params.negative_slope, name=name)
    else:
        made = keras.layers.Activation(layer.type.lower(), name=name)
    return made(_only(bottoms))


@_builds("Softmax")
def _softmax(layer, bottoms, seed):
    values = _only(bottoms)
    axis = keras_axis(layer.params.axis, len(values.shape))
    return keras.layers.Softmax(axis, name=keras_name(layer.name))(values)


@_builds("Dropout")
def _dropout(layer, bottoms, seed):
    own = (zlib.crc32(layer.name.encode()) ^ seed) & 0x7FFFFFFF
    return keras.layers.Dropout(
        layer.params.dropout_ratio, seed=own, name=keras_name(layer.name)
    )(_only(bottoms))


@_builds("BatchNorm")
def _batch_norm(layer, bottoms, seed):
    p, values = layer.params, _only(bottoms)
    if len(values.shape) not in (2, 4):
        raise ValueError(f"its input must have 2 or 4 axes, got {len(values.shape)}")
    return CaffeBatchNorm(
        p.eps, p.moving_average_fraction, p.use_global_stats, name=keras_name(layer.name)
    )(values)


@_builds("Scale")
def _scale(layer, bottoms, seed):
    p = layer.params
    own = 1 if len(bottoms) == 1 else 0
    made = Scale(
        axis=p.axis, num_axes=p.num_axes, filler=_filler(p.filler, layer, seed),
        use_bias=p.bias_term, bias_filler=_filler(p.bias_filler, layer, seed, own),
        **_common(layer, own + p.bias_term),
    )
    return made(bottoms[0] if own else list(bottoms))


@_builds("Bias")
def _bias(layer, bottoms, seed):
    p = layer.params
    own = len(bottoms) == 1
    made = Bias(axis=p.axis, num_axes=p.num_axes, filler=_filler(p.filler, layer, seed),
                **_common(layer, int(own)))
    return made(bottoms[0] if own else list(bottoms))


@_builds("Normalize")
def _normalize(layer, bottoms, seed):
    p = layer.params
    made = Normalize(
        p.across_spatial, p.channel_shared, p.fix_scale, p.eps,
        _filler(p.scale_filler, layer, seed), **_common(layer, 1),
    )
    return made(_only(bottoms))


@_builds("LRN")
def _lrn(layer, bottoms, seed):
    p = layer.params
    within = p.norm_region == "WITHIN_CHANNEL"
    return LRN(p.local_size, p.alpha, p.beta, p.k, within, name=keras_name(layer.name))(
        _only(bottoms)
    )


@_builds("Concat")
def _concat(layer, bottoms, seed):
    if len(bottoms) == 1:
        return bottoms[0]
    axis = keras_axis(layer.params.axis, len(bottoms[0].shape))
    return keras.layers.Concatenate(axis=axis, name=keras_name(layer.name))(list(bottoms))


@_builds("Eltwise")
def _eltwise(layer, bottoms, seed):
    p = layer.params
    return Eltwise(p.operation, p.coeff, name=keras_name(layer.name))(list(bottoms))


@_builds("Slice")
def _slice(layer, bottoms, seed):
    p = layer.params
    if len(layer.tops) == 1:
        return _only(bottoms)
    return Slice(p.axis, p.slice_point, len(layer.tops), name=keras_name(layer.name))(
        _only(bottoms)
    )


@_builds("Split")
def _split(layer, bottoms, seed):
    return [_only(bottoms)] * len(layer.tops)


@_builds("Flatten")
def _flatten(layer, bottoms, seed):
    p, values = layer.params, _only(bottoms)
    rank = len(values.shape)
    first, last = (_caffe_axis(axis, rank) for axis in (p.axis, p.end_axis))
    return Reshape((-1,), first, last - first + 1, name=keras_name(layer.name))(values)


@_builds("Reshape")
def _reshape(layer, bottoms, seed):
    p = layer.params
    return Reshape(p.shape, p.axis, p.num_axes, name=keras_name(layer.name))(_only(bottoms))


@_builds("Crop")
def _crop(layer, bottoms, seed):
    p = layer.params
    return Crop(p.axis, p.offset, name=keras_name(layer.name))(list(bottoms))


@_builds("RandBI", "RandComp")
def _hypercolumn(layer, bottoms, seed):
    p = layer.params
    kind = "bilinear" if layer.type == "RandBI" else "nearest"
    return Hypercolumn(p.rates, p.pad, kind, "error", name=keras_name(layer.name))(list(bottoms))


@_builds(*LOSS_TYPES)
def _loss(layer, bottoms, seed):
    p = layer.params
    if len(bottoms) != 2:
        raise ValueError(f"it needs a prediction and a label, got {len(bottoms)} bottoms")
    options = {
        "top": layer.tops[0] if layer.tops else layer.name,
        "weight": layer.loss_weights[0] if layer.loss_weights else 1.0,
        "normalization": p.normalization,
        "ignore_label": p.ignore_label,
        "name": keras_name(layer.name),
    }
    if layer.type == "SoftmaxWithLoss":
        options["axis"] = p.axis
    loss = getattr(losses, layer.type)(**options)(list(bottoms))
    if len(layer.tops) < 2:
        return loss
    axis = keras_axis(p.axis, len(bottoms[0].shape))
    name = f"{keras_name(layer.name)}_prob"
    return [loss, keras.layers.Softmax(axis, name=name)(bottoms[0])]


def supported_types() -> tuple[str, ...]:
    """Names of all layer types that a model can be built from."""
    return tuple(sorted({*BUILDERS, *INPUT_TYPES, *DROPPED_TYPES}))


def _only(bottoms):
    if len(bottoms) != 1:
        raise ValueError(f"it needs one bottom, got {len(bottoms)}")
    return bottoms[0]


def _each(made, bottoms):
    """Caffe applies one layer's weights to each of its bottoms."""
    if not bottoms:
        raise ValueError("it needs a bottom")
    return [made(values) for values in bottoms]


def _caffe_axis(axis: int, rank: int) -> int:
    keras_axis(axis, rank)
    return axis % rank
