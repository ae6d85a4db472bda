"""The server's description of itself, at `/openapi.json`."""

from __future__ import annotations

from typing import Any

from pixelnet_tf import __version__
from pixelnet_tf.page import MEDIA_TYPES, page_paths
from pixelnet_tf.serving.about import RESEARCH_ONLY
from pixelnet_tf.serving.limits import ServerLimits

_TENSOR = {"description": "A number, true or false, {\"b64\": ...}, or nested lists of these."}


def describe_api(names: list[str], modalities: list[str], limits: ServerLimits,
                 with_token: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the server.

    Args:
        names: names of the models.
        modalities: fields of `/v1/segment`.
        with_token: whether a bearer token is asked for.
    """
    name = _parameter("model", {"type": "string", "enum": names} if names else {"type": "string"})
    version = _parameter("version", {"type": "integer", "minimum": 1})
    paths: dict[str, Any] = {
        "/healthz": {"get": _get("health", "The process answers.", security=[])},
        "/readyz": {"get": _get("readiness", "Every model is loaded.", {"503": "Not yet."},
                                security=[])},
        "/openapi.json": {"get": _get("openapi", "This description.")},
        "/v1/models": {"get": _get("listModels", "Names and versions of the models.")},
    }
    for path, parameters, suffix in (("/v1/models/{model}", [name], ""),
                                     ("/v1/models/{model}/versions/{version}", [name, version],
                                      "OfVersion")):
        unknown = {"404": "No such model or version."}
        paths[path] = {"get": _get(f"status{suffix}", "Status, as TensorFlow Serving gives it.",
                                   unknown), "parameters": parameters}
        paths[f"{path}/metadata"] = {"get": _get(
            f"metadata{suffix}", "Signatures, as TensorFlow Serving gives them.", unknown),
            "parameters": parameters}
        paths[f"{path}/serving.json"] = {"get": _get(
            f"serving{suffix}", "How the model was made and how a case is prepared for it.",
            unknown), "parameters": parameters}
        paths[f"{path}:predict"] = {"post": _predict(f"predict{suffix}", limits),
                                    "parameters": parameters}
    paths["/v1/segment"] = {
        "get": _get("choices", "Models that segment volumes: what each takes, and under which "
                               "priors."),
        "post": _segment(modalities, limits)}
    paths["/v1/jobs/{job}"] = {
        "get": _get("job", "How far a request to /v1/segment is that was sent with this `job`.",
                    {"404": "No request of this name is under way."}),
        "parameters": [_parameter("job", {"type": "string"})]}
    paths["/v1/dicom"] = {"post": _dicom(limits)}
    paths |= _monai_label(name, limits)
    for path, file in page_paths("segment.html").items():
        kind = MEDIA_TYPES[file].partition(";")[0]
        paths[path] = {"get": {
            "operationId": file.replace(".", "_"), "summary": "The page to segment cases with.",
            "security": [], "responses": _answers({
                "description": "A file of the page.",
                "content": {kind: {"schema": {"type": "string"}}}}, {})}}
    tree: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "pixelnet-tf", "version": __version__, "description": RESEARCH_ONLY},
        "paths": paths,
        "components": {"schemas": {"Error": {
            "type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}}},
    }
    if with_token:
        tree["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        tree["security"] = [{"token": []}]
    return tree


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _answers(ok: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    common = {"401": "The token is missing or wrong.",
              "403": "A page of another origin, or a host that is not this server.",
              "414": "The URL is too long.",
              "503": "Too many requests wait, or no model is loaded yet."}
    return {"200": ok, **{code: {"description": text, "content": body}
                          for code, text in sorted({**common, **errors}.items())}}


def _get(operation: str, summary: str, errors: dict[str, str] | None = None,
         **more: Any) -> dict[str, Any]:
    ok = {"description": "The answer.",
          "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"operationId": operation, "summary": summary, "responses": _answers(ok, errors or {}),
            **more}


def _predict(operation: str, limits: ServerLimits) -> dict[str, Any]:
    signature = {"signature_name": {"type": "string", "default": "serving_default"}}
    row = {"type": "object", "required": ["instances"], "properties": {
        **signature, "instances": {"type": "array", "minItems": 1, "items": _TENSOR}}}
    column = {"type": "object", "required": ["inputs"],
              "properties": {**signature, "inputs": _TENSOR}}
    ok = {"description": "`predictions` (row form) or `outputs` (column form).",
          "content": {"application/json": {"schema": {"type": "object"}}}}
    errors = {"400": "The body does not fit the signature.", "404": "No such model or version.",
              "408": "The body came too slowly.", "411": "The body does not announce its length.",
              "413": f"More than {limits.json_mib} MiB, or too many or too large slices.",
              "415": "The content is not JSON.", "504": "The answer took too long."}
    return {"operationId": operation, "summary": "Call a signature, as in TensorFlow Serving.",
            "requestBody": {"required": True, "content": {"application/json": {
                "schema": {"oneOf": [row, column]}}}},
            "responses": _answers(ok, errors)}


def _segment(modalities: list[str], limits: ServerLimits) -> dict[str, Any]:
    fields = {modality: {"type": "string", "format": "binary",
                         "description": "A NIfTI file (.nii or .nii.gz) of this modality."}
              for modality in modalities}
    ok = {"description": "The segmentation (.nii.gz), with the geometry of the first modality.",
          "content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}
    errors = {"400": "A field is missing or no sound NIfTI file.", "404": "No such model.",
              "408": "The body came too slowly.", "411": "The body does not announce its length.",
              "413": f"More than {limits.upload_mib} MiB, or a volume too large.",
              "415": "The content is not multipart/form-data.",
              "409": "A request with this `job` is under way.",
              "422": "The volumes do not make a case.", "504": "The answer took too long.",
              "507": "The server has no room for the files."}
    query = [("model", "Needed where the server has several models."),
             ("prior", "One of the model's; default: the one that it was exported with."),
             ("job", "A name for this request, 16 to 64 random letters, digits, `-` or `_`, under "
                     "which /v1/jobs/{job} tells how far it is.")]
    return {"operationId": "segment",
            "summary": "Segment a case from raw volumes: N4, normalisation and clean-up included.",
            "parameters": [{"name": name, "in": "query", "required": False,
                            "schema": {"type": "string"}, "description": text}
                           for name, text in query],
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
                "type": "object", "properties": fields, "required": modalities,
                "additionalProperties": False}}}},
            "responses": _answers(ok, errors)}


def _dicom(limits: ServerLimits) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    ok = {"description": "A field `series`, JSON with the description and number of each series, "
                         "and a NIfTI file `volume-N` of the Nth.",
          "content": {"multipart/form-data": {"schema": {"type": "object"}}}}
    errors = {"400": "The field `zip` is missing or no zip.", "408": "The body came too slowly.",
              "411": "The body does not announce its length.",
              "413": f"More than {limits.upload_mib} MiB, or a series too large.",
              "415": "The content is not multipart/form-data.",
              "422": "No series can be read.", "504": "The answer took too long.",
              "507": "The server has no room for the files."}
    return {"operationId": "dicom",
            "summary": "Read DICOM series as volumes that /v1/segment takes.",
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
                "type": "object", "properties": {"zip": file}, "required": ["zip"],
                "additionalProperties": False}}}},
            "responses": _answers(ok, errors)}


def _monai_label(name: dict[str, Any], limits: ServerLimits) -> dict[str, Any]:
    """What viewers ask that speak to MONAI Label."""
    file = {"type": "string", "format": "binary"}
    session = _parameter("session", {"type": "string"})
    unknown = {"404": "No such session; it may have expired."}
    body = {"400": "No file, or one that is no sound NIfTI file.",
            "408": "The body came too slowly.", "411": "The body does not announce its length.",
            "413": f"More than {limits.upload_mib} MiB, or a volume too large.",
            "415": "The content is not multipart/form-data.",
            "507": "The server has no room for the files."}
    json_answer = {"description": "The answer.",
                   "content": {"application/json": {"schema": {"type": "object"}}}}
    forms = {kind: {"schema": {"type": "object"} if kind != "application/gzip" else file}
             for kind in ("multipart/form-data", "application/json", "application/gzip")}

    def form(properties: dict[str, Any]) -> dict[str, Any]:
        return {"required": True, "content": {"multipart/form-data": {"schema": {
            "type": "object", "properties": properties}}}}

    return {
        "/info/": {"get": _get("info", "The models and their labels, as MONAI Label tells them.")},
        "/session/": {"put": {
            "operationId": "beginSession", "summary": "Keep images for later requests.",
            "parameters": [{"name": "expiry", "in": "query", "required": False,
                            "schema": {"type": "integer"},
                            "description": "Seconds without use until it is gone; 3600 at most."}],
            "requestBody": form({"files": {"type": "array", "items": file}}),
            "responses": _answers(json_answer, body)}},
        "/session/{session}": {
            "get": _get("session", "What is kept.", unknown),
            "delete": _get("removeSession", "Remove what is kept.", unknown),
            "parameters": [session]},
        "/infer/{model}": {"post": {
            "operationId": "infer", "summary": "Segment an image, as MONAI Label does.",
            "parameters": [
                {"name": "session_id", "in": "query", "required": False,
                 "schema": {"type": "string"}, "description": "A session with the image."},
                {"name": "output", "in": "query", "required": False,
                 "schema": {"type": "string", "enum": ["all", "image", "json"]},
                 "description": "The segmentation, what is said of it, or a form of both."}],
            "requestBody": form({"params": {"type": "string"}, "file": file}),
            "responses": _answers({"description": "The segmentation.", "content": forms}, {
                **body, "404": "No such model or session.",
                "422": "The volumes do not make a case.", "504": "The answer took too long."})},
            "parameters": [name]},
    }
