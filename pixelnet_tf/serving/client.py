"""The client of a served model: this project's server, or TensorFlow Serving."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelnet_tf.errors import ConfigError, DataError, ModelError, PixelNetError, RunError
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: Seconds before each further try.
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
_TRY_AGAIN = (408, 429, 502, 503, 504)
#: Bytes of an answer that are read: of labels and of a probability, each a JSON number, and beside.
_LABEL_BYTES, _PROBABILITY_BYTES, _OTHER_BYTES = 5, 32, 4 << 20
_URL = re.compile(r"(?P<server>https?://[^/?#]+)(?:/v1/models/(?P<name>[^/:?#]+)"
                  r"(?P<version>/versions/[0-9]+)?)?/?")


class ServedModel:
    """A model behind `http://host:port/v1/models/NAME[/versions/N]`.

    Nothing is taken on trust: redirects are not followed (the token would go to wherever they
    lead), an answer is read no further than what was asked for can take, and labels are held
    against the study's.

    Args:
        url: the model's; of a server with one model, `http://host:port` will do.
        token: bearer token, or None.
        timeout_seconds: longest wait for one answer.
        reporter: receives a message when a request is tried again.

    Raises:
        ConfigError: not such a URL, or the server has several models.
        RunError: the server cannot be reached.
    """

    def __init__(self, url: str, token: str | None = None, timeout_seconds: float = 300.0,
                 reporter: Reporter | None = None):
        match = _URL.fullmatch(url)
        if match is None:
            raise ConfigError("--server takes http://host:port or "
                              f"http://host:port/v1/models/NAME, got {url!r}", value=url)
        self._server, self._token = match["server"], token
        self._timeout_seconds, self._reporter = timeout_seconds, reporter_or_log(reporter)
        name = match["name"] or self._only_name()
        self.url = f"{self._server}/v1/models/{name}{match['version'] or ''}"

    def about(self) -> dict[str, Any]:
        """`serving.json` of the model.

        Raises:
            ModelError: the server has none, as TensorFlow Serving.
        """
        try:
            return self._call("GET", f"{self.url}/serving.json")
        except ModelError as error:
            raise ModelError(f"{error}; from TensorFlow Serving no serving.json can be had",
                             hint="give the export's by --serving-json") from None

    def segment_slices(self, images: np.ndarray, label_values: Sequence[int],
                       domain: np.ndarray | None = None, probabilities: bool = False,
                       scores: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels of normalised slices, and their probabilities where they are asked for.

        Args:
            images: (batch, height, width, channel) float32.
            label_values: label values of the study, one for each class.
            domain: (batch, height, width) bool, the pixels to classify; None leaves it to the
                model to find them.
            probabilities: they come as JSON numbers, many times slower than labels alone.
            scores: how many there are a pixel; None: one for each label value.

        Returns:
            Label values (batch, height, width) uint8, and (batch, height, width, class) float32
            or None.

        Raises:
            DataError, RunError: the server refuses, or does not answer.
            ModelError: what it answers are no labels or probabilities of this study.
        """
        inputs: dict[str, Any]
        if probabilities:
            signature, inputs = "serving_default", {"image": images.tolist()}
            if domain is not None:
                signature, inputs["domain"] = "segment_domain", domain.tolist()
        else:
            signature = "segment_encoded"
            inputs = {"image_bytes": _encoded(images, "<f4"),
                      "size_yx": [list(images.shape[1:3])] * len(images)}
            if domain is not None:
                signature = "segment_domain_encoded"
                inputs["domain_bytes"] = _encoded(domain, "u1")
        pixels, scores = images[..., 0].size, scores or len(label_values)
        outputs = self._predict(
            {"signature_name": signature, "inputs": inputs},
            pixels * (_LABEL_BYTES + _PROBABILITY_BYTES * probabilities * scores))
        if not probabilities:
            # A single output stands without its name.
            outputs = {"labels": outputs}
        labels = self._array(outputs, "labels", images.shape[:3])
        others = labels[~np.isin(labels, label_values) | (labels.dtype.kind == "f")]
        if others.size:
            raise ModelError(f"{self.url}: answered labels that the study has not: "
                             f"{np.unique(others)[:5].tolist()}; it has {list(label_values)}")
        if not probabilities:
            return labels.astype(np.uint8), None
        shares = self._array(outputs, "probabilities", (*images.shape[:3], scores))
        if shares.dtype.kind not in "fiu" or not ((shares >= 0) & (shares <= 1)).all():
            raise ModelError(f"{self.url}: answered probabilities that are not between 0 and 1")
        return labels.astype(np.uint8), shares.astype(np.float32)

    def _array(self, outputs: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One output as numbers of a shape."""
        try:
            array = np.asarray(outputs[name])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            array = np.array(None)
        if array.dtype.kind not in "fiu":
            raise ModelError(f"{self.url}: the answer has no {name}; the model is no export of "
                             "`pixelnet-tf export`")
        if array.shape != shape:
            raise ModelError(f"{self.url}: answered {name} {array.shape} for slices of {shape}")
        return array

    def _predict(self, body: dict[str, Any], most_bytes: int) -> Any:
        answer = self._call("POST", f"{self.url}:predict", body, most_bytes)
        if not isinstance(answer, dict) or "outputs" not in answer:
            raise RunError(f"{self.url}: the answer holds no `outputs`; is this a model server?")
        return answer["outputs"]

    def _only_name(self) -> str:
        try:
            models = self._call("GET", f"{self._server}/v1/models")["models"]
            names = [model["name"] for model in models]
        except (ModelError, KeyError, TypeError):
            raise ConfigError(
                f"{self._server} does not list its models",
                hint=f"give the model's own URL, {self._server}/v1/models/NAME") from None
        if len(names) != 1:
            raise ConfigError(f"{self._server} has the models {names}",
                              hint="say which, as in "
                                   f"{self._server}/v1/models/{names[0] if names else 'NAME'}")
        return names[0]

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None,
              most_bytes: int = 0) -> Any:
        """One request, tried again while the server is busy or away."""
        most_bytes += _OTHER_BYTES
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        for wait in (*BACK_OFF_SECONDS, None):
            request = urllib.request.Request(url, data, headers, method=method)
            try:
                with _OPENER.open(request, timeout=self._timeout_seconds) as answer:
                    text = answer.read(most_bytes + 1)
                if len(text) > most_bytes:
                    raise RunError(f"{url}: the answer is longer than {most_bytes} bytes, more "
                                   "than what was asked for takes; is this a model server?")
                return json.loads(text)
            except urllib.error.HTTPError as error:
                reason = f"{error.code}, {_message(error)}"
                if error.code not in _TRY_AGAIN:
                    raise _refusal(error.code, f"{url}: the server says {reason}") from None
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            except (ValueError, RecursionError):
                raise RunError(f"{url}: the answer is not JSON; is this a model server?") from None
            if wait is not None:
                self._reporter.message(f"{url}: {reason}; next try in {wait:g} s")
                time.sleep(wait)
        raise RunError(f"{url}: no answer after {len(BACK_OFF_SECONDS) + 1} tries ({reason})",
                       hint="see whether the server runs, then call again: finished cases are kept")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect unfollowed; it is then an error like any other."""

    def redirect_request(self, *arguments: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _encoded(slices: np.ndarray, dtype: str) -> list[dict[str, str]]:
    """A string in Base64 for each slice."""
    return [{"b64": base64.b64encode(row.tobytes()).decode()}
            for row in np.ascontiguousarray(slices, dtype)]


def _message(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        return f"a redirect to {str(error.headers.get('Location'))[:200]!r}"
    try:
        return str(json.loads(error.read(_OTHER_BYTES))["error"])[:500]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, http.client.HTTPException):
        return error.reason


def _refusal(status: int, message: str) -> PixelNetError:
    if 300 <= status < 400:
        return ConfigError(f"{message}; redirects are not followed",
                           hint="give the model's own URL")
    if status in (401, 403):
        return ConfigError(message, hint="set PIXELNET_TOKEN or give --token-file")
    if status == 404:
        return ModelError(message)
    return DataError(message) if status < 500 else RunError(message)
