"""A Caffe PixelNet, or a VGG-16, as this project's own model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pixelnet_tf.caffe.pixelnet_form import pixelnet_form
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.caffe.weights import CONVOLUTIONS, MatchTable, load_caffe_weights, match_weights
from pixelnet_tf.config import ModelConfig, config_from_dict, config_to_dict
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet


def import_pixelnet(
    prototxt: str | Path | None,
    caffemodel: str | Path,
    *,
    config: ModelConfig | None = None,
    overrides: Sequence[str] = (),
    classes: int | None = None,
    channels: int | None = None,
    border: int = 100,
    channel_rule: str = "average",
    allow_nan: bool = False,
    seed: int = 1989,
) -> tuple[PixelNet, MatchTable]:
    """Make the project's model from Caffe's files, and say what became of each layer.

    Args:
        prototxt: the network; None: the description inside the caffemodel.
        config: form of a model with the trunk of a VGG-16; None: read off the network, as always
            for a PixelNet (`pixelnet_form`).
        overrides: changes to the form that was read off, as in `model.fc7=aligned`.
        classes, channels: None: those of the file. A VGG-16 has no classes of PixelNet's, so they
            must be given.
        border: zero pixels around the image, which no Caffe file states.
        channel_rule: see `load_caffe_weights`.
        seed: of the layers that the file does not have.

    Raises `ModelError` for files that are not Caffe's, weights of a wrong shape, and forms that the
    project's model does not have.
    """
    network = read_network(prototxt, caffemodel, phase="TEST", allow_nan=allow_nan)
    try:
        form = pixelnet_form(network, border)
        classes = classes or form.classes
        if not classes:
            raise ModelError("the file has no PixelNet scores (it is a VGG-16)",
                             hint="say how many classes the model is to have (--classes)")
        if config is None or form.classes:
            tree = {"model": config_to_dict(form.config)}
            config = config_from_dict(tree, overrides=overrides).model
        shapes = Architecture.of(config, classes).blob_shapes(channels or form.channels)
        # All of a PixelNet's layers must be in the file, of a VGG-16 the convolutions.
        required = tuple(shapes) if form.classes else CONVOLUTIONS
        match_weights(shapes, network, required, channel_rule)
        model = PixelNet(config, channels or form.channels, classes, seed)
        return model, load_caffe_weights(
            model, network, required=required, channel_rule=channel_rule
        )
    except ModelError as error:
        raise ModelError.of(error, file=prototxt or caffemodel) from error
