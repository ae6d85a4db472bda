"""The warm-up file that TensorFlow Serving replays before a version answers.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of `PredictionLog` messages. Their
protobuf classes are in `tensorflow-serving-api`, which an export does not need: the few fields are
encoded here, field numbers from `tensorflow_serving/apis/{prediction_log,predict,model}.proto`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

_PREDICT_LOG = 6  # PredictionLog.predict_log
_REQUEST = 1  # PredictLog.request
_MODEL_SPEC, _INPUTS = 1, 2  # PredictRequest
_NAME, _SIGNATURE = 1, 3  # ModelSpec
_KEY, _VALUE = 1, 2  # an entry of a map

#: Slices of the requests: their side in pixels, and how many are sent together.
_SIDE, _BATCHES = 240, (1, 8)


def predict_log(name: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """One `PredictionLog` with a request to a signature of a model, serialised."""
    spec = _field(_NAME, name.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for key, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, key.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def write_warmup(folder: Path, name: str, channels: int) -> Path:
    """Write the warm-up file under a SavedModel's folder, a request for each batch size.

    The slices are noise inside a disc, so that every branch of the graph runs.
    """
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in _BATCHES:
            writer.write(predict_log(name, "serving_default",
                                     {"image": warmup_image(batch, _SIDE, channels)}))
    return path


def warmup_image(batch: int, side: int, channels: int) -> np.ndarray:
    """Noise inside a disc, zero outside: (batch, side, side, channel) float32."""
    radius = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    image = np.random.default_rng(0).normal(size=(batch, side, side, channels))
    image[:, radius > 0.2 * side] = 0
    return image.astype(np.float32)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
