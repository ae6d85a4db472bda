"""Caffe's upgrades of old network descriptions to the current one.

Follows what Caffe does on loading (`UpgradeNetAsNeeded`): V0 (string types in a nested `layer`) to
V1, data transformation settings to `transform_param`, V1 to the current layers, input fields to an
Input layer, and the parameter multipliers of BatchNorm.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from prototxt_import.errors import CaffeFormatError, listed
from prototxt_import.raw_net import RawLayer, RawNet
from prototxt_import.schema import new_message

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
        _upgrade_v0(net)
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


_V0_TYPES = {
    "accuracy": "ACCURACY", "bnll": "BNLL", "concat": "CONCAT", "conv": "CONVOLUTION",
    "data": "DATA", "dropout": "DROPOUT", "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN", "hdf5_data": "HDF5_DATA", "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL", "images": "IMAGE_DATA", "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT", "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS", "pool": "POOLING", "relu": "RELU",
    "sigmoid": "SIGMOID", "softmax": "SOFTMAX", "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT", "tanh": "TANH", "window_data": "WINDOW_DATA",
}  # fmt: skip
_CONV, _FULL = ("conv", "convolution_param"), ("innerproduct", "inner_product_param")
_POOL, _LRN = ("pool", "pooling_param"), ("lrn", "lrn_param")
_DATA, _IMAGES = ("data", "data_param"), ("images", "image_data_param")
_HDF5, _WINDOWS = ("hdf5_data", "hdf5_data_param"), ("window_data", "window_data_param")


def _to(name: str, *owners: tuple[str, str]) -> tuple[str, dict[str, str]]:
    """The V1 field called `name`, and the message that has it for each layer type."""
    return name, dict(owners)


#: Where the V1 form has each field of the V0 form.
_V0_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": _to("num_output", _CONV, _FULL),
    "biasterm": _to("bias_term", _CONV, _FULL),
    "weight_filler": _to("weight_filler", _CONV, _FULL),
    "bias_filler": _to("bias_filler", _CONV, _FULL),
    "pad": _to("pad", _CONV, _POOL),
    "kernelsize": _to("kernel_size", _CONV, _POOL),
    "group": _to("group", _CONV),
    "stride": _to("stride", _CONV, _POOL),
    "pool": _to("pool", _POOL),
    "dropout_ratio": _to("dropout_ratio", ("dropout", "dropout_param")),
    "local_size": _to("local_size", _LRN),
    "alpha": _to("alpha", _LRN),
    "beta": _to("beta", _LRN),
    "k": _to("k", _LRN),
    "source": _to(
        "source", _DATA, _HDF5, _IMAGES, _WINDOWS, ("infogain_loss", "infogain_loss_param")
    ),
    "batchsize": _to("batch_size", _DATA, _HDF5, _IMAGES, _WINDOWS),
    "rand_skip": _to("rand_skip", _DATA, _IMAGES),
    "shuffle_images": _to("shuffle", _IMAGES),
    "new_height": _to("new_height", _IMAGES),
    "new_width": _to("new_width", _IMAGES),
    "concat_dim": _to("concat_dim", ("concat", "concat_param")),
    "det_fg_threshold": _to("fg_threshold", _WINDOWS),
    "det_bg_threshold": _to("bg_threshold", _WINDOWS),
    "det_fg_fraction": _to("fg_fraction", _WINDOWS),
    "det_context_pad": _to("context_pad", _WINDOWS),
    "det_crop_mode": _to("crop_mode", _WINDOWS),
    "hdf5_output_param": _to("", ("hdf5_output", "hdf5_output_param")),
}  # fmt: skip
# V0 fields that every layer type brings over to transform_param.
_V0_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}


def _upgrade_v0(net: RawNet) -> None:
    """Bring `net` from V0 to V1 in place: padding layers folded in, then each layer.

    Settings that do not belong to their layer's type are left out with a note, as Caffe does.
    """
    net.layers = [_upgrade_v0_layer(layer, net) for layer in _fold_padding(net)]
    net.notes.append("V0 layers brought to V1")


def _fold_padding(net: RawNet) -> list[RawLayer]:
    """Drop padding layers, giving their pad and bottom to the layer that reads them."""
    source: dict[str, RawLayer | None] = {name: None for name in net.message.input}
    kept = []
    for layer in net.layers:
        connection = layer.message
        if connection.layer.type != "padding":
            kept.append(layer)
        for index, name in enumerate(connection.bottom):
            if name not in source:
                raise CaffeFormatError(
                    f"layer {connection.layer.name!r} reads the unknown blob {name!r}; "
                    f"known at this point: {listed(source)}",
                    net.path,
                    layer.line,
                )
            origin = source[name]
            if origin is None or origin.message.layer.type != "padding":
                continue
            if (
                connection.layer.type not in ("conv", "pool")
                or len(connection.bottom) != 1
                or len(origin.message.bottom) != 1
                or len(origin.message.top) != 1
            ):
                raise CaffeFormatError(
                    f"padding layer {origin.message.layer.name!r} must stand between one blob and "
                    f"a conv or pool layer with one bottom, not before {connection.layer.name!r}",
                    net.path,
                    layer.line,
                )
            connection.layer.pad = origin.message.layer.pad
            connection.bottom[index] = origin.message.bottom[0]
        source.update(dict.fromkeys(connection.top, layer))
    return kept


def _upgrade_v0_layer(layer: RawLayer, net: RawNet) -> RawLayer:
    connection, new = layer.message, new_message("V1LayerParameter")
    new.bottom.extend(connection.bottom)
    new.top.extend(connection.top)
    old = connection.layer
    new.name = old.name
    if old.HasField("type"):
        if old.type not in _V0_TYPES:
            raise CaffeFormatError(
                f"layer {old.name!r} has the unknown V0 type {old.type!r}; "
                f"expected one of {', '.join(_V0_TYPES)}",
                net.path,
                layer.line,
            )
        enum = new.DESCRIPTOR.fields_by_name["type"].enum_type
        new.type = enum.values_by_name[_V0_TYPES[old.type]].number
    new.blobs_lr.extend(old.blobs_lr)
    new.weight_decay.extend(old.weight_decay)
    for field, value in old.ListFields():
        if field.name in _V0_TRANSFORM:
            setattr(new.transform_param, _V0_TRANSFORM[field.name], value)
        elif field.name in _V0_FIELDS:
            name, owners = _V0_FIELDS[field.name]
            if old.type in owners:
                _assign(getattr(new, owners[old.type]), name, value)
            else:
                net.notes.append(
                    f"layer {old.name!r}: {field.name} does not belong to type {old.type!r}, "
                    "left out"
                )
    return RawLayer(new, layer.blobs, layer.line)


def _assign(target: Message, name: str, value: Any) -> None:
    if not name:
        target.CopyFrom(value)
        return
    current = getattr(target, name)
    if isinstance(current, Message):
        current.CopyFrom(value)
    elif hasattr(current, "append"):
        current.append(value)
    else:
        setattr(target, name, value)
