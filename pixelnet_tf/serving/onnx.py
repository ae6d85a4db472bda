"""ONNX: the sparse form (image and pixels to scores), checked against ONNX Runtime at once.

The dense signatures have no ONNX form: they run tile by tile in a loop whose results are joined by
TensorFlow's `TensorListConcatV2`, for which tf2onnx has no conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.errors import RunError, require
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter
from pixelnet_tf.model.pixelnet import plain_scores, plain_taps

MODEL_FILE = "model.onnx"
OPSET = 17
#: Largest difference of a score from TensorFlow's.
TOLERANCE = 1e-4


def onnx_writer() -> Callable[[Path, SliceSegmenter | Ensemble, dict[str, Any]], dict[str, Any]]:
    """The function that writes `model.onnx` (a `Writer` of the export).

    Raises:
        ConfigError: tf2onnx or onnxruntime is not installed.
    """
    require("--format onnx", "onnx", "tf2onnx", "onnxruntime")
    return _write


def sparse_function(segmenter: SliceSegmenter | Ensemble
                    ) -> tf.types.experimental.PolymorphicFunction:
    """`classify_pixels` by the plain hypercolumn: a gather a pixel and no loop, in float32."""
    models = [member.scorer.model for member in segmenter.members]
    # As a number of the graph: a captured tensor would become an input of the ONNX model.
    correction = np.mean([member.correction.numpy() for member in segmenter.members], axis=0)

    @tf.function(autograph=False, input_signature=[
        tf.TensorSpec([None, None, None, models[0].channels], tf.float32, "image"),
        tf.TensorSpec([None, 3], tf.int32, "pixels")])
    def classify_pixels(image: tf.Tensor, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = [plain_scores(model, plain_taps(model, image), tf.cast(pixels, tf.float32))
                  for model in models]
        return {"scores": tf.add_n(scores) / len(models) + correction}

    return classify_pixels


def _write(folder: Path, segmenter: SliceSegmenter | Ensemble, about: dict[str, Any]
           ) -> dict[str, Any]:
    import tf2onnx

    function = sparse_function(segmenter)
    path = folder / MODEL_FILE
    tf2onnx.convert.from_function(function, input_signature=function.input_signature,
                                  opset=OPSET, output_path=str(path))
    difference = largest_difference(path, function, len(about["channels"]))
    if not difference <= TOLERANCE:
        raise RunError(f"ONNX Runtime's scores differ from TensorFlow's by {difference:.3g}, more "
                       f"than {TOLERANCE}; nothing was written", file=path)
    return {
        "signatures": {"classify_pixels": about["signatures"]["classify_pixels"]},
        "mode": "sparse", "precision": "float32",
        "onnx": {"opset": OPSET, "largest_difference": difference,
                 "dense_form": "not convertible: TensorListConcatV2"},
    }


def largest_difference(path: Path, function: Callable[..., dict[str, tf.Tensor]],
                       channels: int) -> float:
    """Largest difference of ONNX Runtime's scores from TensorFlow's, over two batches of noise."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random, largest = np.random.default_rng(0), 0.0
    for batch, height, width in ((1, 64, 64), (3, 61, 75)):
        image = random.normal(size=(batch, height, width, channels)).astype(np.float32)
        pixels = np.stack([random.integers(0, n, 200) for n in image.shape[:3]],
                          axis=1).astype(np.int32)
        theirs, = session.run(["scores"], {"image": image, "pixels": pixels})
        ours = function(image, pixels)["scores"].numpy()
        largest = max(largest, float(np.abs(theirs - ours).max()))
    return largest
