"""Caffe's layer types, and the Keras layer that stands for each.

A builder is given the site of a layer and its settings, and returns the layer's tops.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

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
from prototxt_import import (
    ArgMaxParams,
    BatchNormParams,
    BiasParams,
    BNParams,
    ConcatParams,
    ConvolutionParams,
    CropParams,
    DropoutParams,
    DummyDataParams,
    EltwiseParams,
    EmbedParams,
    Filler,
    FlattenParams,
    Im2colParams,
    InnerProductParams,
    InterpParams,
    Layer,
    LayerParams,
    LossParams,
    LRNParams,
    MVNParams,
    NoParams,
    NormalizeParams,
    ParameterParams,
    PoolingParams,
    PReLUParams,
    RandBIParams,
    ReductionParams,
    ReLUParams,
    ReshapeParams,
    ScaleParams,
    SliceParams,
    SoftmaxParams,
    SoftmaxWithLossParams,
    SPPParams,
    TileParams,
    UpsampleParams,
)

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

Tops: TypeAlias = keras.KerasTensor | Sequence[keras.KerasTensor]
Params = TypeVar("Params", bound=LayerParams)


@dataclass(frozen=True)
class Site:
    """What a builder is given: a layer of the description, what it reads, and the seed.

    `bottoms` has a Keras tensor for each bottom of the layer.
    """

    layer: Layer
    bottoms: Sequence[keras.KerasTensor]
    seed: int

    @property
    def name(self) -> str:
        """Name of the Keras layer."""
        return keras_name(self.layer.name)

    @property
    def bottom(self) -> keras.KerasTensor:
        """The one bottom of a layer that takes one; `ValueError` where there are others."""
        if len(self.bottoms) != 1:
            raise ValueError(f"it needs one bottom, got {len(self.bottoms)}")
        return self.bottoms[0]

    @property
    def shape_in_file(self) -> tuple[int, ...] | None:
        """Shape of the first blob, None for a layer without weights from a file."""
        return self.layer.blobs[0].shape if self.layer.blobs else None

    def each(self, made: keras.layers.Layer) -> list[keras.KerasTensor]:
        """Call a layer with every bottom: Caffe applies its weights to each of them."""
        if not self.bottoms:
            raise ValueError("it needs a bottom")
        return [made(values) for values in self.bottoms]

    def filler(self, filler: Filler, number: int = 0) -> CaffeFiller:
        """The filler of blob `number`, or zeros where the layer's weights come from a file."""
        if self.layer.blobs:
            return CaffeFiller("constant")
        own = zlib.crc32(f"{self.layer.name}/{number}".encode()) ^ self.seed
        return CaffeFiller(**{**dataclasses.asdict(filler), "seed": own & 0x7FFFFFFF})

    def common(self, blobs: int) -> dict[str, Any]:
        """What every layer with this many blobs is made with."""
        specs = [self.layer.param_spec(number) for number in range(blobs)]
        return {
            "name": self.name,
            "multipliers": [(spec.lr_mult, spec.decay_mult) for spec in specs],
            "blob_names": [spec.name for spec in specs],
        }


#: Layer type -> what builds such a layer.
BUILDERS: dict[str, Callable[[Site], Tops]] = {}


def is_input(layer: Layer) -> bool:
    """Whether a layer's tops are inputs of the network, which needs a layer without bottoms."""
    return layer.type in INPUT_TYPES and not layer.bottoms


def _builds(
    settings: type[Params], *types: str
) -> Callable[[Callable[[Site, Params], Tops]], Callable[[Site, Params], Tops]]:
    """Make a function the builder of layer types whose settings are of the class `settings`."""

    def register(builder: Callable[[Site, Params], Tops]) -> Callable[[Site, Params], Tops]:
        def build(site: Site) -> Tops:
            return builder(site, site.layer.params_as(settings))

        BUILDERS.update(dict.fromkeys(types, build))
        return builder

    return register


@_builds(ConvolutionParams, "Convolution", "Deconvolution")
def _convolution(at: Site, p: ConvolutionParams) -> Tops:
    _require_channel_axis(p.axis, at.bottoms)
    kind = Convolution if at.layer.type == "Convolution" else Deconvolution
    made = kind(
        p.num_output, p.kernel, p.stride, p.pad, p.dilation, p.group, p.bias_term,
        at.filler(p.weight_filler), at.filler(p.bias_filler, 1),
        **at.common(1 + p.bias_term),
    )
    return at.each(made)


@_builds(InnerProductParams, "InnerProduct")
def _inner_product(at: Site, p: InnerProductParams) -> Tops:
    length = at.layer.blobs[0].shape[0 if p.transpose else 1] if at.layer.blobs else None
    made = InnerProduct(
        p.num_output, p.axis, p.bias_term, length,
        at.filler(p.weight_filler), at.filler(p.bias_filler, 1),
        p.transpose, **at.common(1 + p.bias_term),
    )
    return made(at.bottom)


@_builds(PoolingParams, "Pooling")
def _pooling(at: Site, p: PoolingParams) -> Tops:
    if p.pool not in ("MAX", "AVE"):
        raise ValueError(f"pool {p.pool} is not supported, only MAX and AVE")
    mask = len(at.layer.tops) == 2
    if mask and p.pool != "MAX":
        raise ValueError(f"a mask is made by pool MAX, not by {p.pool}")
    kernel = None if p.global_pooling else p.kernel
    made = Pooling(p.pool, kernel, p.stride, p.pad, p.ceil_mode, mask, name=at.name)
    return made(at.bottom)


@_builds(SPPParams, "SPP")
def _spp(at: Site, p: SPPParams) -> Tops:
    if p.pool not in ("MAX", "AVE"):
        raise ValueError(f"pool {p.pool} is not supported, only MAX and AVE")
    return SPP(p.pyramid_height, p.pool, name=at.name)(at.bottom)


@_builds(Im2colParams, "Im2col")
def _im2col(at: Site, p: Im2colParams) -> Tops:
    _require_channel_axis(p.axis, at.bottoms)
    made = Im2col(p.kernel, p.stride, p.pad, p.dilation, name=at.name)
    return at.each(made)


@_builds(ReLUParams, "ReLU")
def _relu(at: Site, p: ReLUParams) -> Tops:
    return keras.layers.ReLU(negative_slope=p.negative_slope, name=at.name)(at.bottom)


@_builds(LayerParams, "Sigmoid", "TanH")
def _activation(at: Site, p: LayerParams) -> Tops:
    return keras.layers.Activation(at.layer.type.lower(), name=at.name)(at.bottom)


@_builds(LayerParams, "ELU", "Power", "Exp", "Log", "AbsVal", "BNLL", "Threshold")
def _function(at: Site, p: LayerParams) -> Tops:
    # The Keras layers are named and set as Caffe's are.
    settings = {field.name: getattr(p, field.name) for field in dataclasses.fields(p)}
    made = getattr(activations, at.layer.type)(name=at.name, **settings)
    return made(at.bottom)


@_builds(PReLUParams, "PReLU")
def _prelu(at: Site, p: PReLUParams) -> Tops:
    values = at.bottom
    if len(values.shape) < 2:
        raise ValueError("its input must have 2 axes or more")
    return activations.PReLU(p.channel_shared, at.filler(p.filler), **at.common(1))(values)


@_builds(SoftmaxParams, "Softmax")
def _softmax(at: Site, p: SoftmaxParams) -> Tops:
    values = at.bottom
    axis = keras_axis(p.axis, len(values.shape))
    return keras.layers.Softmax(axis, name=at.name)(values)


@_builds(DropoutParams, "Dropout")
def _dropout(at: Site, p: DropoutParams) -> Tops:
    own = (zlib.crc32(at.layer.name.encode()) ^ at.seed) & 0x7FFFFFFF
    return keras.layers.Dropout(p.dropout_ratio, seed=own, name=at.name)(at.bottom)


@_builds(BatchNormParams, "BatchNorm")
def _batch_norm(at: Site, p: BatchNormParams) -> Tops:
    values = at.bottom
    axis = keras_axis(1, len(values.shape))
    if values.shape[axis] is None:
        raise ValueError("the number of its input's channels must be known")
    options: dict[str, Any] = {
        "epsilon": p.eps, "fraction": p.moving_average_fraction,
        "use_global_stats": p.use_global_stats, "axis": axis,
    }
    if any(spec.name for spec in at.layer.param_specs):
        return SharedBatchNorm(**options, **at.common(3))(values)
    channels = values.shape[axis]
    claim_weights((channels,), (channels,), (1,))
    return CaffeBatchNorm(**options, name=at.name)(values)


@_builds(ScaleParams, "Scale")
def _scale(at: Site, p: ScaleParams) -> Tops:
    own = 1 if len(at.bottoms) == 1 else 0
    made = Scale(
        axis=p.axis, num_axes=p.num_axes, filler=at.filler(p.filler),
        use_bias=p.bias_term, bias_filler=at.filler(p.bias_filler, own),
        weight_shape=at.shape_in_file, **at.common(own + p.bias_term),
    )
    return made(at.bottoms[0] if own else list(at.bottoms))


@_builds(BiasParams, "Bias")
def _bias(at: Site, p: BiasParams) -> Tops:
    own = len(at.bottoms) == 1
    made = Bias(axis=p.axis, num_axes=p.num_axes, filler=at.filler(p.filler),
                weight_shape=at.shape_in_file, **at.common(int(own)))
    return made(at.bottoms[0] if own else list(at.bottoms))


@_builds(NormalizeParams, "Normalize")
def _normalize(at: Site, p: NormalizeParams) -> Tops:
    made = Normalize(
        p.across_spatial, p.channel_shared, p.fix_scale, p.eps,
        at.filler(p.scale_filler), **at.common(1),
    )
    return made(at.bottom)


@_builds(LRNParams, "LRN")
def _lrn(at: Site, p: LRNParams) -> Tops:
    within = p.norm_region == "WITHIN_CHANNEL"
    return LRN(p.local_size, p.alpha, p.beta, p.k, within, name=at.name)(at.bottom)


@_builds(MVNParams, "MVN")
def _mvn(at: Site, p: MVNParams) -> Tops:
    return MVN(p.normalize_variance, p.across_channels, p.eps, name=at.name)(at.bottom)


@_builds(BNParams, "BN")
def _fork_norm(at: Site, p: BNParams) -> Tops:
    blobs = len(at.layer.blobs)
    fork = p.fork or {2: "SegNet", 4: "PSPNet"}.get(blobs)
    if fork is None:
        raise ValueError("it is SegNet's (scale_filler, shift_filler, bn_mode; 2 weight blobs) or "
                         "PSPNet's (slope_filler, bias_filler, momentum, eps, frozen; 4 blobs), "
                         "and nothing says which; add its bn_param, or give its weights")
    zero = Filler()
    if fork == "SegNet":
        return SegNetBN(
            p.bn_mode != "INFERENCE", factor_filler=at.filler(p.scale_filler or zero),
            term_filler=at.filler(p.shift_filler or zero, 1), **at.common(2),
        )(at.bottom)
    return PSPNetBN(
        0.9 if p.momentum is None else p.momentum, 1e-5 if p.eps is None else p.eps,
        bool(p.frozen), factor_filler=at.filler(p.slope_filler or zero),
        term_filler=at.filler(p.bias_filler or zero, 1), **at.common(4),
    )(at.bottom)


@_builds(InterpParams, "Interp")
def _interp(at: Site, p: InterpParams) -> Tops:
    size = None if p.height is None or p.width is None else (p.height, p.width)
    made = Interp(size, p.zoom_factor, p.shrink_factor, (-p.pad_beg, -p.pad_end), name=at.name)
    return made(at.bottom if len(at.bottoms) != 2 else list(at.bottoms))


@_builds(UpsampleParams, "Upsample")
def _upsample(at: Site, p: UpsampleParams) -> Tops:
    if len(at.bottoms) != 2:
        raise ValueError(
            f"SegNet's Upsample needs values and a pooling's mask, got {len(at.bottoms)} bottoms"
        )
    height, width = p.upsample_h, p.upsample_w
    size = None if height is None or width is None else (height, width)
    scale = (p.scale_h or p.scale, p.scale_w or p.scale)
    pad_out = (int(p.pad_out_h), int(p.pad_out_w))
    return Upsample(size, scale, pad_out, name=at.name)(list(at.bottoms))


@_builds(ArgMaxParams, "ArgMax")
def _argmax(at: Site, p: ArgMaxParams) -> Tops:
    return ArgMax(p.top_k, p.axis, p.out_max_val, name=at.name)(at.bottom)


@_builds(ReductionParams, "Reduction")
def _reduction(at: Site, p: ReductionParams) -> Tops:
    return Reduction(p.operation, p.axis, p.coeff, name=at.name)(at.bottom)


@_builds(EmbedParams, "Embed")
def _embed(at: Site, p: EmbedParams) -> Tops:
    made = Embed(
        p.num_output, p.input_dim, p.bias_term, at.filler(p.weight_filler),
        at.filler(p.bias_filler, 1), **at.common(1 + p.bias_term),
    )
    return made(at.bottom)


@_builds(ParameterParams, "Parameter")
def _parameter(at: Site, p: ParameterParams) -> Tops:
    return Parameter(p.shape, **at.common(1))(at.bottom)


@_builds(DummyDataParams, "DummyData")
def _constants(at: Site, p: DummyDataParams) -> Tops:
    tops = []
    for number, top in enumerate(at.layer.tops):
        shape = p.shape[min(number, len(p.shape) - 1)]
        filler = p.data_filler[min(number, len(p.data_filler) - 1)]
        name = keras_name(at.layer.name if len(at.layer.tops) == 1 else f"{at.layer.name}_{top}")
        tops.append(Constant(shape, filler.value, name=name)(at.bottom))
    return tops


@_builds(TileParams, "Tile")
def _tile(at: Site, p: TileParams) -> Tops:
    return Tile(p.tiles, p.axis, name=at.name)(at.bottom)


@_builds(NoParams, "Filter")
def _filter(at: Site, p: NoParams) -> Tops:
    if len(at.bottoms) < 2:
        raise ValueError("it needs blobs and, as the last bottom, a selector")
    if any(size not in (None, 1) for size in at.bottoms[-1].shape[1:]):
        raise ValueError(
            f"the selector must have one number a sample, got shape {tuple(at.bottoms[-1].shape)}")
    return Filter(name=at.name)(list(at.bottoms))


@_builds(NoParams, "BatchReindex")
def _batch_reindex(at: Site, p: NoParams) -> Tops:
    if len(at.bottoms) != 2:
        raise ValueError(f"it needs a blob and numbers of samples, got {len(at.bottoms)} bottoms")
    return BatchReindex(name=at.name)(list(at.bottoms))


@_builds(ConcatParams, "Concat")
def _concat(at: Site, p: ConcatParams) -> Tops:
    if len(at.bottoms) == 1:
        return at.bottoms[0]
    axis = keras_axis(p.axis, len(at.bottoms[0].shape))
    return keras.layers.Concatenate(axis=axis, name=at.name)(list(at.bottoms))


@_builds(EltwiseParams, "Eltwise")
def _eltwise(at: Site, p: EltwiseParams) -> Tops:
    return Eltwise(p.operation, p.coeff, name=at.name)(list(at.bottoms))


@_builds(SliceParams, "Slice")
def _slice(at: Site, p: SliceParams) -> Tops:
    if len(at.layer.tops) == 1 and not p.slice_point:
        return at.bottom
    return Slice(p.axis, p.slice_point, len(at.layer.tops), name=at.name)(at.bottom)


@_builds(NoParams, "Split")
def _split(at: Site, p: NoParams) -> Tops:
    return [at.bottom] * len(at.layer.tops)


@_builds(FlattenParams, "Flatten")
def _flatten(at: Site, p: FlattenParams) -> Tops:
    values = at.bottom
    rank = len(values.shape)
    first, last = (_caffe_axis(axis, rank) for axis in (p.axis, p.end_axis))
    return Reshape((-1,), first, last - first + 1, name=at.name)(values)


@_builds(ReshapeParams, "Reshape")
def _reshape(at: Site, p: ReshapeParams) -> Tops:
    return Reshape(p.shape, p.axis, p.num_axes, name=at.name)(at.bottom)


@_builds(CropParams, "Crop")
def _crop(at: Site, p: CropParams) -> Tops:
    return Crop(p.axis, p.offset, name=at.name)(list(at.bottoms))


@_builds(RandBIParams, "RandBI", "RandComp")
def _hypercolumn(at: Site, p: RandBIParams) -> Tops:
    kind = "bilinear" if at.layer.type == "RandBI" else "nearest"
    name = at.name
    *maps, pixels = at.bottoms
    maps = [values if len(values.shape) == 4 else FourAxes(name=f"{name}_map_{number}")(values)
            for number, values in enumerate(maps)]
    if len(pixels.shape) == 4:
        pixels = Reshape((-1,), 1, name=f"{name}_pixels")(pixels)
    return Hypercolumn(p.rates, p.pad, kind, "error", name=name)([*maps, pixels])


@_builds(LossParams, *LOSS_TYPES)
def _loss(at: Site, p: LossParams) -> Tops:
    if len(at.bottoms) != 2:
        raise ValueError(f"it needs a prediction and a label, got {len(at.bottoms)} bottoms")
    if len(at.layer.tops) > (2 if at.layer.type == "SoftmaxWithLoss" else 1):
        raise ValueError(f"it has {len(at.layer.tops)} tops, more than such a loss makes")
    options: dict[str, Any] = {
        "top": at.layer.tops[0],
        "weight": at.layer.loss_weights[0] if at.layer.loss_weights else 1.0,
        "normalization": p.normalization,
        "ignore_label": p.ignore_label,
        "name": at.name,
    }
    if not isinstance(p, SoftmaxWithLossParams):
        return getattr(losses, at.layer.type)(**options)(list(at.bottoms))
    loss = losses.SoftmaxWithLoss(axis=p.axis, **options)(list(at.bottoms))
    if len(at.layer.tops) < 2:
        return loss
    axis = keras_axis(p.axis, len(at.bottoms[0].shape))
    name = f"{at.name}.prob"
    return [loss, keras.layers.Softmax(axis, name=name)(at.bottoms[0])]


def supported_types() -> tuple[str, ...]:
    """Names of all layer types that a model can be built from."""
    return tuple(sorted({*BUILDERS, *INPUT_TYPES, *DROPPED_TYPES}))


def constant_layers(layers: Sequence[Layer]) -> list[Layer]:
    """Return the DummyData layers that are constants, and therefore no inputs.

    Such a layer states a constant for each of its tops. A layer without a filler would be zeros,
    which are of no use: it stands for data that a program puts in. So do all DummyData layers of a
    network that would have no other input.
    """
    found = [layer for layer in layers
             if layer.type == "DummyData" and _is_constant(layer.params_as(DummyDataParams))]
    others = any(layer.type in INPUT_TYPES and layer not in found for layer in layers)
    return found if others else []


def _is_constant(p: DummyDataParams) -> bool:
    fillers = p.data_filler
    return bool(p.shape and fillers) and all(filler.type == "constant" for filler in fillers)


def _require_channel_axis(axis: int, bottoms: Sequence[keras.KerasTensor]) -> None:
    for values in bottoms:
        if _caffe_axis(axis, len(values.shape)) != 1:
            raise ValueError(f"axis {axis} is not supported, only that of the channels, 1")


def _caffe_axis(axis: int, rank: int) -> int:
    keras_axis(axis, rank)
    return axis % rank
