"""TensorFlow Serving's JSON: the body of `:predict` to arrays, arrays to its answer.

Loads no TensorFlow: the processes of `json_process` are small.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelnet_tf.errors import nearest_hint
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.limits import ServerLimits

#: Values of an answer that become text at once; other threads wait meanwhile.
_BLOCK_VALUES = 1 << 13
#: Bytes of text that a value takes: a fraction, and a whole number.
_FRACTION_BYTES, _WHOLE_BYTES = 24, 6


@dataclass(frozen=True)
class TensorInfo:
    """A named input or output: its NumPy type (strings: object) and shape.

    A size is None where it is free, and the shape is None where its rank is.
    """

    tensor: str
    dtype: np.dtype
    proto_type: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a signature, by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclass(frozen=True)
class PredictCall:
    """A parsed body: the signature, its inputs, and whether the answer is in row form."""

    signature: str
    inputs: dict[str, np.ndarray]
    by_row: bool


def parse_predict(body: bytes | bytearray, signatures: Mapping[str, Signature], limits: ServerLimits
                  ) -> PredictCall:
    """Read a body in row form (`instances`) or column form (`inputs`).

    Strings are given as {"b64": ...}, as TensorFlow Serving has it.

    Raises:
        ApiError: 400, saying what does not fit the signature; 413 beyond the limits.
    """
    tree = _json(body)
    if not isinstance(tree, dict):
        raise ApiError(400, 'the body must be a JSON object: {"instances": [...]} or '
                            '{"inputs": ...}')
    name = tree.get("signature_name", "serving_default") or "serving_default"
    if not isinstance(name, str) or name not in signatures:
        raise ApiError(400, f"signature_name {str(name)[:100]!r} is unknown"
                            f"{nearest_hint(str(name)[:100], signatures)}; the model has "
                            f"{sorted(signatures)}")
    signature = signatures[name]
    by_row = "instances" in tree
    if by_row == ("inputs" in tree):
        raise ApiError(400, 'give exactly one of "instances" (row form) and "inputs" (column '
                            "form)")
    values = (_rows(tree["instances"], signature) if by_row
              else _columns(tree["inputs"], signature))
    inputs = {key: _array(values[key], info, key) for key, info in signature.inputs.items()}
    if by_row and len({len(array) for array in inputs.values() if array.ndim}) > 1:
        raise ApiError(400, "every instance must hold each input once")
    _check_size(inputs, limits)
    return PredictCall(name, inputs, by_row)


def render_predict(call: PredictCall, outputs: dict[str, np.ndarray], limits: ServerLimits
                   ) -> bytes:
    """The answer: `predictions`, a value or an object an instance, or `outputs`.

    Raises:
        ApiError: 400 where an output is not finite, which JSON cannot say, and 413 where the text
            would be too long.
    """
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ApiError(400, f"{name!r} of the answer is not finite; send other numbers")
    rows = {value.shape[:1] for value in outputs.values()}
    if call.by_row and len(outputs) > 1 and (len(rows) > 1 or () in rows):
        raise ApiError(400, "the signature's outputs are not a row an instance; ask in column "
                            'form, by "inputs"')
    length = sum(value.size * (_FRACTION_BYTES if value.dtype.kind == "f" else _WHOLE_BYTES)
                 for value in outputs.values())
    if length > limits.answer_mib << 20:
        raise ApiError(413, f"the answer would be longer than {limits.answer_mib} MiB; send fewer "
                            "slices, or ask for labels alone by segment_encoded")
    return "".join(_answer_text(call, outputs)).encode()


def _answer_text(call: PredictCall, outputs: dict[str, np.ndarray]) -> Iterator[str]:
    """The answer in pieces."""
    yield '{"predictions":' if call.by_row else '{"outputs":'
    if len(outputs) == 1:
        (name, value), = outputs.items()
        yield from _text(value, name)
    elif not call.by_row:
        yield from _object_text(outputs)
    else:
        for number in range(len(next(iter(outputs.values())))):
            yield "," if number else "["
            # With the dots a single string stays in an array.
            yield from _object_text({name: value[number, ...] for name, value in outputs.items()})
        yield "]"
    yield "}"


def _object_text(values: dict[str, np.ndarray]) -> Iterator[str]:
    for number, (name, value) in enumerate(values.items()):
        yield f'{"," if number else "{"}{json.dumps(name)}:'
        yield from _text(value, name)
    yield "}"


def _text(value: np.ndarray, name: str) -> Iterator[str]:
    """An array as JSON, in blocks."""
    if value.ndim == 0 or value.size <= _BLOCK_VALUES:
        yield _dumped(value, name)
        return
    if value.ndim == 1:
        for start in range(0, len(value), _BLOCK_VALUES):
            yield "," if start else "["
            yield _dumped(value[start:start + _BLOCK_VALUES], name)[1:-1]
    else:
        for number, row in enumerate(value):
            yield "," if number else "["
            yield from _text(row, name)
    yield "]"


def _dumped(value: np.ndarray, name: str) -> str:
    return json.dumps(_plain(value, name), separators=(",", ":"))


def _json(body: bytes | bytearray) -> Any:
    def refuse(word: str) -> None:
        raise ApiError(400, f"the body holds {word}; every number must be finite")

    try:
        return json.loads(body, parse_constant=refuse)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply; no tensor has so many "
                            "dimensions") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {str(error)[:200]}") from None


def _rows(instances: Any, signature: Signature) -> dict[str, list]:
    """`instances`, a list of values or of objects, to a list an input."""
    if not isinstance(instances, list) or not instances:
        raise ApiError(400, '"instances" must be a list of at least one instance')
    if not _is_object(instances[0]):
        if len(signature.inputs) > 1:
            raise ApiError(400, "each instance must be an object with the keys "
                                f"{list(signature.inputs)}")
        return {next(iter(signature.inputs)): instances}
    for instance in instances:
        if not _is_object(instance):
            raise ApiError(400, "the instances must be all objects or all values")
        _check_keys(instance, signature, "an instance")
    return {key: [instance[key] for instance in instances] for key in signature.inputs}


def _columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    """`inputs`, a value or an object, to a value an input."""
    if _is_object(inputs):
        _check_keys(inputs, signature, '"inputs"')
        return inputs
    if len(signature.inputs) > 1:
        raise ApiError(400, '"inputs" must be an object with the keys '
                            f"{list(signature.inputs)}")
    return {next(iter(signature.inputs)): inputs}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _check_keys(given: dict, signature: Signature, where: str) -> None:
    wanted = set(signature.inputs)
    if set(given) != wanted:
        missing, more = sorted(wanted - set(given)), sorted(set(given) - wanted)
        raise ApiError(400, f"{where} must have exactly the keys {sorted(wanted)}; "
                            + (f"{missing} missing" if missing else
                               f"{str(more)[:100]} not known"))


def _array(value: Any, info: TensorInfo, name: str) -> np.ndarray:
    """A nested list to an array of the signature's type; its shape is checked."""
    wanted = f"{name!r} must be {_words(info)}"
    try:
        array = np.asarray(_decoded(value) if info.dtype == object else value,
                           dtype=object if info.dtype == object else None)
    except (ValueError, OverflowError, RecursionError):
        raise ApiError(400, f"{wanted}: lists of one depth have different lengths") from None
    if info.dtype != object:
        array = _cast(array, info.dtype, wanted)
    elif not all(isinstance(item, bytes) for item in array.flat):
        raise ApiError(400, f'{wanted}: a string is given as {{"b64": "..."}}')
    if info.shape is not None and array.ndim != len(info.shape):
        raise ApiError(400, f"{wanted}: got {array.ndim} dimensions")
    if info.shape is not None and any(want is not None and want != got for want, got in
                                      zip(info.shape, array.shape, strict=True)):
        raise ApiError(400, f"{wanted}: got the shape {list(array.shape)}")
    if array.size == 0:
        raise ApiError(400, f"{wanted}: it is empty, shape {list(array.shape)}")
    return array


def _cast(array: np.ndarray, dtype: np.dtype, wanted: str) -> np.ndarray:
    if array.size == 0:
        return array.astype(dtype)
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if array.dtype.kind not in kinds:
        held = {"f": "fractions", "b": "true or false", "U": "strings"}.get(
            array.dtype.kind, "values of several types, null, or lists of different lengths")
        raise ApiError(400, f"{wanted}: it holds {held}")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise ApiError(400, f"{wanted}: a number is out of range")
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise ApiError(400, f"{wanted}: a number is too large for {dtype}")
    return cast


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "a b64 string is not Base64") from None
    return value


def _words(info: TensorInfo) -> str:
    kind = "bytes" if info.dtype == object else str(info.dtype)
    if info.shape is None:
        return f"{kind} of any shape"
    return f"{kind} of shape {['?' if n is None else n for n in info.shape]}".replace("'", "")


def _check_size(inputs: dict[str, np.ndarray], limits: ServerLimits) -> None:
    for name, array in inputs.items():
        if name in ("image", "image_bytes") and len(array) > limits.slices:
            raise ApiError(413, f"{len(array)} slices; send at most {limits.slices} in a request")
        sides = array.shape[1:3] if array.ndim == 4 else array[0] if name == "size_yx" else ()
        if len(sides) == 0:
            continue
        if not 1 <= min(sides) <= max(sides) <= limits.side:
            raise ApiError(413 if min(sides) > 0 else 400, "height and width must be 1 to "
                           f"{limits.side} pixels, got {[int(side) for side in sides]}")
        if len(array) * int(sides[0]) * int(sides[1]) > limits.pixels:
            raise ApiError(413, f"more than {limits.pixels} pixels; send fewer slices")


def _plain(value: np.ndarray, name: str) -> Any:
    if value.dtype != object:
        return value.tolist()
    # As in TensorFlow Serving: bytes if the name says so, else text.
    if name.endswith("_bytes"):
        return _nested(value.tolist(), lambda b: {"b64": base64.b64encode(b).decode()})
    return _nested(value.tolist(), lambda b: b.decode("utf-8", "replace"))


def _nested(value: Any, function: Callable[[Any], Any]) -> Any:
    return [_nested(item, function) for item in value] if isinstance(value, list) \
        else function(value)
