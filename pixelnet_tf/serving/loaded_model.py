"""One version of a SavedModel in memory, run by the names of its signatures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from pixelnet_tf.config import Config
from pixelnet_tf.errors import DataError, ModelError, PixelNetError
from pixelnet_tf.io import manifest
from pixelnet_tf.io.files import check_written, read_json_object
from pixelnet_tf.serving.about import exported_config
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.predict_json import Signature, TensorInfo
from pixelnet_tf.serving.warmup import warmup_image


class LoadedModel:
    """A version folder that `pixelnet-tf export` (or any TensorFlow) wrote.

    Attributes:
        name, version: name and version of the model.
        about: `serving.json`, or None for a SavedModel of other origin.
        config: the configuration in it, or None.
        signatures: the signatures by their names.

    Raises:
        ModelError: the folder holds no SavedModel that can be loaded.
    """

    def __init__(self, folder: Path, name: str, version: int):
        self.name, self.version = name, version
        self.about = read_about(folder)
        self.config: Config | None = None
        try:
            if self.about is not None:
                self.config = exported_config(self.about)
            proto = saved_model_pb2.SavedModel.FromString(
                (folder / "saved_model.pb").read_bytes())
            self.signatures = _signatures(proto.meta_graphs[0])
            for file in manifest.files_in(folder):
                check_written(file, "export the model again")
            self._model = tf.saved_model.load(str(folder))
        except (OSError, ValueError, KeyError, IndexError, DecodeError, PixelNetError,
                tf.errors.OpError) as error:
            raise ModelError(f"cannot be loaded as a SavedModel: {str(error).splitlines()[0]}",
                             file=folder) from None

    def warm_up(self) -> None:
        """Answer once, so that the first request does not pay for the graph's preparation."""
        signature = self.signatures.get("serving_default")
        if not signature or list(signature.inputs) != ["image"]:
            return
        shape = signature.inputs["image"].shape
        if shape is None or len(shape) != 4:
            return
        image = warmup_image(1, 64, shape[-1] or 1)
        self.run("serving_default", {"image": image})
        if "segment_domain" in self.signatures:
            # Of volumes that are sent to /v1/segment.
            self.run("segment_domain", {"image": image, "domain": (image != 0).any(axis=-1)})

    def run(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Call a signature; arrays in and out, by name.

        Raises:
            ApiError: 400 where the graph refuses the inputs, 413 where memory does not suffice.
        """
        infos = self.signatures[signature].inputs
        tensors = {name: tf.constant(value, tf.string if infos[name].dtype == object else None)
                   for name, value in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**tensors)
        except tf.errors.ResourceExhaustedError:
            raise ApiError(413, "the request needs more memory than there is; send fewer or "
                                "smaller slices") from None
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise ApiError(400, f"{signature} refused the inputs: {_reason(error)}") from None
        return {name: value.numpy() for name, value in outputs.items()}

    def segment_slices(self, images: np.ndarray, domain: np.ndarray, probabilities: bool = False
                       ) -> tuple[np.ndarray, np.ndarray | None]:
        """Label values of normalised slices, and their probabilities where they are asked for.

        Args:
            images: (batch, height, width, channel) float32.
            domain: (batch, height, width) bool, the pixels to classify; models that an earlier
                version exported find them by themselves.
        """
        if "segment_domain" in self.signatures:
            outputs = self.run("segment_domain", {"image": images, "domain": domain})
        else:
            outputs = self.run("serving_default", {"image": images})
        return outputs["labels"], outputs["probabilities"] if probabilities else None

    def metadata(self) -> dict[str, Any]:
        """The answer of TensorFlow Serving's metadata API."""
        signatures = {
            name: {"inputs": {key: _info_json(info) for key, info in signature.inputs.items()},
                   "outputs": {key: _info_json(info) for key, info in signature.outputs.items()},
                   "method_name": "tensorflow/serving/predict", "defaults": {}}
            for name, signature in self.signatures.items()}
        return {"model_spec": {"name": self.name, "signature_name": "",
                               "version": str(self.version)},
                "metadata": {"signature_def": {"signature_def": signatures}}}


def read_about(folder: Path) -> dict[str, Any] | None:
    """`serving.json` of a version folder, or None where there is none; raises `ModelError`."""
    path = folder / "serving.json"
    if not path.is_file():
        return None
    try:
        return read_json_object(path, "export the model again")
    except DataError as error:
        raise ModelError.of(error) from None


def _signatures(graph: meta_graph_pb2.MetaGraphDef) -> dict[str, Signature]:
    return {name: Signature(_infos(definition.inputs), _infos(definition.outputs))
            for name, definition in sorted(graph.signature_def.items())
            if definition.method_name == "tensorflow/serving/predict"}


def _infos(tensors: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorInfo]:
    found = {}
    for name, info in sorted(tensors.items()):
        dtype = tf.as_dtype(info.dtype)
        shape = None if info.tensor_shape.unknown_rank else tuple(
            None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
        found[name] = TensorInfo(info.name, np.dtype(dtype.as_numpy_dtype),
                                 types_pb2.DataType.Name(info.dtype), shape)
    return found


def _info_json(info: TensorInfo) -> dict[str, Any]:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in info.shape or ()]
    return {"dtype": info.proto_type, "name": info.tensor,
            "tensor_shape": {"dim": dims, "unknown_rank": info.shape is None}}


def _reason(error: tf.errors.OpError) -> str:
    """The line that says what was wrong, without the places in the graph around it."""
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(
        ("Graph execution error", "Detected at node", "<stack traces", "[[{{node"))]
    return (telling or ["they do not fit the graph"])[0].removeprefix("assertion failed: ")[:500]
