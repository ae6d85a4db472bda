"""Caffe's layer types, and the Keras layer that stands for each.

A builder takes a `Layer` of the description and its bottoms (Keras tensors), and returns its tops.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pixelnet_tf.caffe.layers import activations, losses
from pixelnet_tf.caffe.layers.affine import Bias, Scale
from pixelnet_tf.caffe.layers.base import claim_weights
from pixelnet_tf.caffe.layers.convolution import Convolution, Deconvolution, Im2col
from pixelnet_tf.caffe.layers.embed import Embed
from pixelnet_tf.caffe.layers.forks import Interp, PSPNetBN, SegNetBN, Upsample
from pixelnet_tf.caffe.layers.inner_product import InnerProduct
from pixelnet_tf.caffe.layers.normalize import LRN, MVN, Normalize, SharedBatchNorm
from pixelnet_tf.caffe.layers.pooling import SPP, Pooling
from pixelnet_tf.caffe.layers.reductions import ArgMax, Reduction
from pixelnet_tf.caffe.layers.reshaping import (
    BatchReindex,
    Crop,
    Eltwise,
    Filter,
    FourAxes,
    Reshape,
    Slice,
    Tile,
)
from pixelnet_tf.caffe.layers.sources import Constant, Parameter
from pixelnet_tf.caffe.layout import keras_axis
from pixelnet_tf.caffe.wiring import keras_name
from pixelnet_tf.model.batch_norm import CaffeBatchNorm
from pixelnet_tf.model.fillers import CaffeFiller
from pixelnet_tf.model.hypercolumn import Hypercolumn
from prototxt_import import Filler, Layer

#: Types whose tops are inputs of the model, where they have no bottoms.
INPUT_TYPES = (
    "Input", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "Python",
)
#: Losses through whose second bottom no gradient goes back.
LABEL_LOSS_TYPES = ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss")
LOSS_TYPES = (*LABEL_LOSS_TYPES, "EuclideanLoss")
#: Types without bottoms that are no inputs: their builder gets an input to hang on to.
SOURCE_TYPES = ("Parameter", "DummyData")
#: Types that are known and not to be had, and why.
REFUSED_TYPES = {
    **dict.fromkeys(("LSTM", "RNN", "Recurrent", "LSTMUnit"),
                    "recurrent layers are not supported; unroll it into plain layers"),
}
#: Types that compute nothing that a model here needs.
DROPPED_TYPES = ("Silence", "Accuracy", "HDF5Output")

Builder = Callable[[Layer, list, int], Any]
BUILDERS: dict[str, Builder] = {}


def is_input(layer: Layer) -> bool:
    """Whether a layer's tops are inputs: a Python layer within a network is none."""
    return layer.type in INPUT_TYPES and not layer.bottoms


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
        "blob_names": [spec.name for spec in specs],
    }


@_builds("Convolution", "Deconvolution")
def _convolution(layer, bottoms, seed):
    p = layer.params
    _require_channel_axis(p.axis, bottoms)
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
    mask = len(layer.tops) == 2
    if mask and p.pool != "MAX":
        raise ValueError(f"a mask is made by pool MAX, not by {p.pool}")
    kernel = None if p.global_pooling else p.kernel
    return Pooling(
        p.pool, kernel, p.stride, p.pad, p.ceil_mode, mask, name=keras_name(layer.name)
    )(_only(bottoms))


@_builds("SPP")
def _spp(layer, bottoms, seed):
    p = layer.params
    if p.pool not in ("MAX", "AVE"):
        raise ValueError(f"pool {p.pool} is not supported, only MAX and AVE")
    return SPP(p.pyramid_height, p.pool, name=keras_name(layer.name))(_only(bottoms))


@_builds("Im2col")
def _im2col(layer, bottoms, seed):
    p = layer.params
    _require_channel_axis(p.axis, bottoms)
    made = Im2col(p.kernel, p.stride, p.pad, p.dilation, name=keras_name(layer.name))
    return _each(made, bottoms)


@_builds("ReLU", "Sigmoid", "TanH")
def _activation(layer, bottoms, seed):
    name = keras_name(layer.name)
    if layer.type == "ReLU":
        made = keras.layers.ReLU(negative_slope=layer.params.negative_slope, name=name)
    else:
        made = keras.layers.Activation(layer.type.lower(), name=name)
    return made(_only(bottoms))


@_builds("ELU", "Power", "Exp", "Log", "AbsVal", "BNLL", "Threshold")
def _function(layer, bottoms, seed):
    # The Keras layers are named and set as Caffe's are.
    settings = {field.name: getattr(layer.params, field.name)
                for field in dataclasses.fields(layer.params)}
    made = getattr(activations, layer.type)(name=keras_name(layer.name), **settings)
    return made(_only(bottoms))


@_builds("PReLU")
def _prelu(layer, bottoms, seed):
    p, values = layer.params, _only(bottoms)
    if len(values.shape) < 2:
        raise ValueError("its input must have 2 axes or more")
    return activations.PReLU(
        p.channel_shared, _filler(p.filler, layer, seed), **_common(layer, 1)
    )(values)


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
    axis = keras_axis(1, len(values.shape))
    if values.shape[axis] is None:
        raise ValueError("the number of its input's channels must be known")
    options = {"epsilon": p.eps, "fraction": p.moving_average_fraction,
               "use_global_stats": p.use_global_stats, "axis": axis}
    if any(spec.name for spec in layer.param_specs):
        return SharedBatchNorm(**options, **_common(layer, 3))(values)
    channels = values.shape[axis]
    claim_weights((channels,), (channels,), (1,))
    return CaffeBatchNorm(**options, name=keras_name(layer.name))(values)


@_builds("Scale")
def _scale(layer, bottoms, seed):
    p = layer.params
    own = 1 if len(bottoms) == 1 else 0
    made = Scale(
        axis=p.axis, num_axes=p.num_axes, filler=_filler(p.filler, layer, seed),
        use_bias=p.bias_term, bias_filler=_filler(p.bias_filler, layer, seed, own),
        weight_shape=_shape_in_file(layer), **_common(layer, own + p.bias_term),
    )
    return made(bottoms[0] if own else list(bottoms))


@_builds("Bias")
def _bias(layer, bottoms, seed):
    p = layer.params
    own = len(bottoms) == 1
    made = Bias(axis=p.axis, num_axes=p.num_axes, filler=_filler(p.filler, layer, seed),
                weight_shape=_shape_in_file(layer), **_common(layer, int(own)))
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


@_builds("MVN")
def _mvn(layer, bottoms, seed):
    p = layer.params
    return MVN(p.normalize_variance, p.across_channels, p.eps, name=keras_name(layer.name))(
        _only(bottoms)
    )


@_builds("BN")
def _fork_norm(layer, bottoms, seed):
    p, blobs = layer.params, len(layer.blobs)
    fork = p.fork or {2: "SegNet", 4: "PSPNet"}.get(blobs)
    if fork is None:
        raise ValueError("it is SegNet's (scale_filler, shift_filler, bn_mode; 2 weight blobs) or "
                         "PSPNet's (slope_filler, bias_filler, momentum, eps, frozen; 4 blobs), "
                         "and nothing says which; add its bn_param, or give its weights")
    zero = Filler()
    if fork == "SegNet":
        made = SegNetBN(
            p.bn_mode != "INFERENCE", factor_filler=_filler(p.scale_filler or zero, layer, seed),
            term_filler=_filler(p.shift_filler or zero, layer, seed, 1), **_common(layer, 2),
        )
    else:
        made = PSPNetBN(
            0.9 if p.momentum is None else p.momentum, 1e-5 if p.eps is None else p.eps,
            bool(p.frozen), factor_filler=_filler(p.slope_filler or zero, layer, seed),
            term_filler=_filler(p.bias_filler or zero, layer, seed, 1), **_common(layer, 4),
        )
    return made(_only(bottoms))


@_builds("Interp")
def _interp(layer, bottoms, seed):
    p = layer.params
    size = None if p.height is None else (p.height, p.width)
    made = Interp(size, p.zoom_factor, p.shrink_factor, (-p.pad_beg, -p.pad_end),
                  name=keras_name(layer.name))
    return made(_only(bottoms) if len(bottoms) != 2 else list(bottoms))


@_builds("Upsample")
def _upsample(layer, bottoms, seed):
    p = layer.params
    if len(bottoms) != 2:
        raise ValueError(f"SegNet's needs values and a pooling's mask, got {len(bottoms)} bottoms")
    size = None if p.upsample_h is None else (p.upsample_h, p.upsample_w)
    scale = (p.scale_h or p.scale, p.scale_w or p.scale)
    pad_out = (int(p.pad_out_h), int(p.pad_out_w))
    return Upsample(size, scale, pad_out, name=keras_name(layer.name))(list(bottoms))


@_builds("ArgMax")
def _argmax(layer, bottoms, seed):
    p = layer.params
    return ArgMax(p.top_k, p.axis, p.out_max_val, name=keras_name(layer.name))(_only(bottoms))


@_builds("Reduction")
def _reduction(layer, bottoms, seed):
    p = layer.params
    return Reduction(p.operation, p.axis, p.coeff, name=keras_name(layer.name))(_only(bottoms))


@_builds("Embed")
def _embed(layer, bottoms, seed):
    p = layer.params
    made = Embed(
        p.num_output, p.input_dim, p.bias_term, _filler(p.weight_filler, layer, seed),
        _filler(p.bias_filler, layer, seed, 1), **_common(layer, 1 + p.bias_term),
    )
    return made(_only(bottoms))


@_builds("Parameter")
def _parameter(layer, bottoms, seed):
    return Parameter(layer.params.shape, **_common(layer, 1))(_only(bottoms))


@_builds("DummyData")
def _constants(layer, bottoms, seed):
    p, tops = layer.params, []
    for number, top in enumerate(layer.tops):
        shape = p.shape[min(number, len(p.shape) - 1)]
        filler = p.data_filler[min(number, len(p.data_filler) - 1)]
        name = keras_name(layer.name if len(layer.tops) == 1 else f"{layer.name}_{top}")
        tops.append(Constant(shape, filler.value, name=name)(_only(bottoms)))
    return tops


@_builds("Tile")
def _tile(layer, bottoms, seed):
    p = layer.params
    return Tile(p.tiles, p.axis, name=keras_name(layer.name))(_only(bottoms))


@_builds("Filter")
def _filter(layer, bottoms, seed):
    if len(bottoms) < 2:
        raise ValueError("it needs blobs and, as the last bottom, a selector")
    if any(size not in (None, 1) for size in bottoms[-1].shape[1:]):
        raise ValueError(
            f"the selector must have one number a sample, got shape {tuple(bottoms[-1].shape)}")
    return Filter(name=keras_name(layer.name))(list(bottoms))


@_builds("BatchReindex")
def _batch_reindex(layer, bottoms, seed):
    if len(bottoms) != 2:
        raise ValueError(f"it needs a blob and numbers of samples, got {len(bottoms)} bottoms")
    return BatchReindex(name=keras_name(layer.name))(list(bottoms))


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
    if len(layer.tops) == 1 and not p.slice_point:
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
    name = keras_name(layer.name)
    *maps, pixels = bottoms
    maps = [values if len(values.shape) == 4 else FourAxes(name=f"{name}_map_{number}")(values)
            for number, values in enumerate(maps)]
    if len(pixels.shape) == 4:
        pixels = Reshape((-1,), 1, name=f"{name}_pixels")(pixels)
    return Hypercolumn(p.rates, p.pad, kind, "error", name=name)([*maps, pixels])


@_builds(*LOSS_TYPES)
def _loss(layer, bottoms, seed):
    p = layer.params
    if len(bottoms) != 2:
        raise ValueError(f"it needs a prediction and a label, got {len(bottoms)} bottoms")
    if len(layer.tops) > (2 if layer.type == "SoftmaxWithLoss" else 1):
        raise ValueError(f"it has {len(layer.tops)} tops, more than such a loss makes")
    options = {
        "top": layer.tops[0],
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
    name = f"{keras_name(layer.name)}.prob"
    return [loss, keras.layers.Softmax(axis, name=name)(bottoms[0])]


def supported_types() -> tuple[str, ...]:
    """Names of all layer types that a model can be built from."""
    return tuple(sorted({*BUILDERS, *INPUT_TYPES, *DROPPED_TYPES}))


def constant_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The DummyData layers that state constants for all their tops, which are no inputs then.

    One without a filler, whose zeros are of no use, stands for data that a program puts in; so do
    all where a network would have no other input.
    """
    found = [
        layer for layer in layers
        if layer.type == "DummyData" and layer.params.shape and layer.params.data_filler
        and all(filler.type == "constant" for filler in layer.params.data_filler)
    ]
    others = any(layer.type in INPUT_TYPES and layer not in found for layer in layers)
    return found if others else []


def _shape_in_file(layer: Layer) -> tuple[int, ...] | None:
    return layer.blobs[0].shape if layer.blobs else None


def _require_channel_axis(axis: int, bottoms) -> None:
    for values in bottoms:
        if _caffe_axis(axis, len(values.shape)) != 1:
            raise ValueError(f"axis {axis} is not supported, only that of the channels, 1")


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
