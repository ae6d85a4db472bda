"""Caffe's upgrades of old network descriptions to the current one.

Follows what Caffe does on loading (`UpgradeNetAsNeeded`): V0 to V1, data transformation
settings to `transform_param`, V1 to the current layers, input fields to an Input layer, and the
parameter multipliers of BatchNorm.
"""

from __future__ import annotations

from google.protobuf.message import Message

from prototxt_import.errors import CaffeFormatError
from prototxt_import.raw_net import RawLayer, RawNet
from prototxt_import.schema import new_message
from prototxt_import.upgrade_v0 import upgrade_v0

_V1_TYPES = {
    "NONE": "", "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL",
    "CONCAT": "Concat", "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution",
    "DECONVOLUTION": "Deconvolution", "DATA": "Data", "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData", "EUCLIDEAN_LOSS": "EuclideanLoss", "ELTWISE": "Eltwise",
    "EXP": "Exp", "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col", "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN",
    "MEMORY_DATA": "MemoryData", "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN", "NORMALIZE": "Normalize", "POOLING": "Pooling", "POWER": "Power",
    "RAND_CAT": "RandCat", "RAND_CAT_CONV": "RandCatConv", "RELU": "ReLU", "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "SILENCE": "Silence",
    "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split", "SLICE": "Slice",
    "TANH": "TanH", "WINDOW_DATA": "WindowData", "THRESHOLD": "Threshold",
}  # fmt: skip
_DATA_PARAMS = {
    "DATA": "data_param",
    "IMAGE_DATA": "image_data_param",
    "WINDOW_DATA": "window_data_param",
}
_TRANSFORM_FIELDS = ("scale", "mean_file", "crop_size", "mirror")
_BATCH_NORM_BLOBS = 3


def upgrade_net(net: RawNet) -> RawNet:
    """Bring `net` to current layers, in place, and return it.

    Raises CaffeFormatError for what Caffe itself refuses: an unknown V0 or V1 layer type, a
    padding layer before anything but a convolution or pooling, and inputs without a shape.
    """
    if any(_is_v1(layer) and layer.message.HasField("layer") for layer in net.layers):
        upgrade_v0(net)
    if any(_is_v1(layer) for layer in net.layers):
        _move_transform_settings(net)
        net.layers = [_upgrade_v1_layer(layer, net.path) for layer in net.layers]
        net.notes.append("V1 layers brought to the current form")
    if net.message.input:
        _upgrade_inputs(net)
    for layer in net.layers:
        if layer.message.type == "BatchNorm":
            _fix_batch_norm(layer.message)
    return net


def _is_v1(layer: RawLayer) -> bool:
    return layer.message.DESCRIPTOR.name == "V1LayerParameter"


def _type_name(message: Message) -> str:
    if not message.HasField("type"):
        return ""
    enum = message.DESCRIPTOR.fields_by_name["type"].enum_type
    return enum.values_by_number[message.type].name


def _move_transform_settings(net: RawNet) -> None:
    for layer in net.layers:
        param_name = _DATA_PARAMS.get(_type_name(layer.message))
        if not param_name:
            continue
        old = getattr(layer.message, param_name)
        for field in _TRANSFORM_FIELDS:
            if old.HasField(field):
                setattr(layer.message.transform_param, field, getattr(old, field))
                old.ClearField(field)


def _upgrade_v1_layer(layer: RawLayer, path: str) -> RawLayer:
    old, new = layer.message, new_message("LayerParameter")
    type_name = _type_name(old)
    if not type_name:
        raise CaffeFormatError(
            f"layer {old.name!r} has no known type; expected one of {', '.join(_V1_TYPES)}",
            path,
            layer.line,
        )
    new.name, new.type = old.name, _V1_TYPES[type_name]
    for field, value in old.ListFields():
        if field.name in ("bottom", "top", "loss_weight"):
            getattr(new, field.name).extend(value)
        elif field.name in ("include", "exclude"):
            for rule in value:
                getattr(new, field.name).add().CopyFrom(rule)
        elif field.name.endswith("_param") and field.message_type is not None:
            getattr(new, field.name).CopyFrom(value)
    specs = (
        ("name", old.param),
        ("share_mode", old.blob_share_mode),
        ("lr_mult", old.blobs_lr),
        ("decay_mult", old.weight_decay),
    )
    for attribute, values in specs:
        for index, value in enumerate(values):
            while len(new.param) <= index:
                new.param.add()
            setattr(new.param[index], attribute, value)
    return RawLayer(new, layer.blobs, layer.line, layer.unknown)


def _upgrade_inputs(net: RawNet) -> None:
    """Turn `input` with `input_shape` or `input_dim` into an Input layer before all others."""
    message = net.message
    count, shapes, dims = len(message.input), message.input_shape, list(message.input_dim)
    layer = new_message("LayerParameter")
    layer.name, layer.type = "input", "Input"
    layer.top.extend(message.input)
    if shapes:
        if len(shapes) != count:
            raise CaffeFormatError(
                f"{count} inputs, but {len(shapes)} input_shape; give one for each input", net.path
            )
        layer.input_param.shape.extend(shapes)
    elif len(dims) == 4 * count:
        for start in range(0, len(dims), 4):
            layer.input_param.shape.add().dim.extend(dims[start : start + 4])
    else:
        raise CaffeFormatError(
            f"{count} inputs, but {len(dims)} input_dim; give four for each input "
            "(or an input_shape)",
            net.path,
        )
    net.layers.insert(0, RawLayer(layer))
    for name in ("input", "input_shape", "input_dim"):
        message.ClearField(name)


def _fix_batch_norm(message: Message) -> None:
    """Set the multipliers of BatchNorm's statistics to zero, as the layer's set-up does.

    Later Caffes drop the three `param` blocks and the layer adds its own; written out they serve
    earlier Caffes too, in which the statistics would otherwise be trained.
    """
    while len(message.param) < _BATCH_NORM_BLOBS:
        message.param.add()
    for spec in message.param:
        spec.lr_mult = 0.0
