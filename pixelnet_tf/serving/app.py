"""The server's routes (ASGI, Starlette)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any, BinaryIO, TypeVar

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pixelnet_tf.errors import RunError
from pixelnet_tf.io.scratch import remove_leftovers, remove_own
from pixelnet_tf.page import page_paths
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.dicom_upload import convert_dicom
from pixelnet_tf.serving.guard import Guard, error_answer
from pixelnet_tf.serving.jobs import Jobs
from pixelnet_tf.serving.json_log import JsonLog
from pixelnet_tf.serving.json_process import JsonProcesses, is_large
from pixelnet_tf.serving.limits import Gate, ServerLimits
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.memory import LARGE_BYTES, give_back_memory
from pixelnet_tf.serving.monai_label import (
    describe_app,
    infer_answer,
    modalities_of,
    read_params,
)
from pixelnet_tf.serving.openapi import describe_api
from pixelnet_tf.serving.page_routes import page_routes
from pixelnet_tf.serving.predict_json import PredictCall, parse_predict, render_predict
from pixelnet_tf.serving.registry import ModelRegistry
from pixelnet_tf.serving.request_body import Intake, check_json_type, no_room
from pixelnet_tf.serving.segment_upload import check_prior, choices_of, segment_upload
from pixelnet_tf.serving.sessions import Sessions

_T = TypeVar("_T")
#: What is answered at `/`.
PAGE = "segment.html"
#: Between two returns of memory to the system.
_GIVE_BACK_SECONDS = 5.0


class _ModelName(Convertor[str]):
    """A model's name in a path: `:` ends it."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _VersionNumber(Convertor[int]):
    """A version in a path."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("model", _ModelName())
register_url_convertor("version", _VersionNumber())


def build_app(registry: ModelRegistry, limits: ServerLimits | None = None,
              token: str | None = None, log: JsonLog | None = None,
              hosts: Collection[str] = ()) -> Starlette:
    """The ASGI application: TensorFlow Serving's REST API, `/v1/segment`, a page for it, and the
    part of MONAI Label's API that viewers need.

    Starting it starts the registry. Every error is `{"error": message}`.

    Args:
        registry: models to serve.
        limits: limits of requests; None takes the defaults.
        token: bearer token that every request must carry, but for health, readiness, and the page
            itself, which asks for it.
        log: receives a line for each request.
        hosts: names by which the server may be called, beside addresses and `localhost`.
    """
    limits, log = limits or ServerLimits(), log or JsonLog()
    endpoints = _Endpoints(registry, limits, token is not None)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if removed := await asyncio.to_thread(remove_leftovers):
            log("leftovers_removed", folders=removed)
        registry.start()
        giving_back = asyncio.create_task(endpoints.give_back())
        try:
            yield
        finally:
            giving_back.cancel()
            endpoints.close()
            registry.stop()
            remove_own()

    routes = [
        Route("/healthz", endpoints.health),
        Route("/readyz", endpoints.ready),
        Route("/openapi.json", endpoints.openapi),
        Route("/v1/models", endpoints.models),
        Route("/v1/segment", endpoints.choices),
        Route("/v1/segment", endpoints.segment, methods=["POST"]),
        Route("/v1/jobs/{job:str}", endpoints.job),
        Route("/v1/dicom", endpoints.dicom, methods=["POST"]),
        Route("/info/", endpoints.info),
        Route("/session/", endpoints.begin_session, methods=["PUT"]),
        Route("/session/{session:str}", endpoints.session, methods=["GET", "DELETE"]),
        Route("/infer/{model:model}", endpoints.infer, methods=["POST"]),
        *page_routes(PAGE),
    ]
    for path in ("/v1/models/{model:model}", "/v1/models/{model:model}/versions/{version:version}"):
        routes += [
            Route(path, endpoints.status),
            Route(f"{path}/metadata", endpoints.metadata),
            Route(f"{path}/serving.json", endpoints.about),
            Route(f"{path}:predict", endpoints.predict, methods=["POST"]),
        ]
    # Starlette's type says that a handler takes any exception; it gives each its own.
    handlers: dict[Any, Any] = {ApiError: _on_api_error, HTTPException: _on_http_error,
                                Exception: _on_fault}
    return Starlette(
        routes=routes, lifespan=lifespan,
        middleware=[Middleware(Guard, log=log, token=token,
                               url_characters=limits.url_characters, hosts=hosts,
                               open_paths=page_paths(PAGE))],
        exception_handlers=handlers)


class _Endpoints:
    """The functions behind the routes."""

    def __init__(self, registry: ModelRegistry, limits: ServerLimits, with_token: bool):
        self._registry, self._limits, self._with_token = registry, limits, with_token
        self._predictions = Gate(limits.concurrency, limits.queue, "predict")
        # N4 takes long; a volume must not hold up slices.
        self._volumes = Gate(1, limits.queue, "segment")
        # Nor may bodies that take long to read: few of them are let in.
        self._large_bodies = Gate(limits.concurrency, limits.concurrency, "json")
        self._json_processes = JsonProcesses(limits)
        self._jobs, self._sessions = Jobs(), Sessions(limits.upload_mib << 20)
        self._large_since = False
        self._bodies, self._uploads = (Intake(mib, limits.seconds, limits.stall_seconds)
                                       for mib in (limits.json_mib, limits.upload_mib))

    def close(self) -> None:
        self._json_processes.close()
        self._large_bodies.close()
        self._predictions.close()
        self._volumes.close()
        self._sessions.close()

    async def give_back(self) -> None:
        """Return memory to the system while requests are large, for as long as the server runs."""
        while True:
            await asyncio.sleep(_GIVE_BACK_SECONDS)
            if self._large_since:
                self._large_since = False
                await asyncio.to_thread(give_back_memory)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if not self._registry.ready:
            raise ApiError(503, "a model is still being loaded")
        return JSONResponse({"status": "ready"})

    async def openapi(self, request: Request) -> Response:
        models = self._registry.models
        modalities = next((list(m.config.study.inputs) for m in models if m.config), [])
        return JSONResponse(describe_api([m.name for m in models], modalities, self._limits,
                                         self._with_token))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"models": [{"name": m.name, "version": m.version}
                                        for m in self._registry.models]})

    async def status(self, request: Request) -> Response:
        return JSONResponse(self._registry.status(request.path_params["model"],
                                                  request.path_params.get("version")))

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self._model(request).metadata())

    async def about(self, request: Request) -> Response:
        model = self._model(request)
        if model.about is None:
            raise ApiError(404, f"model {model.name!r} has no serving.json; it was exported by "
                                "another program")
        return JSONResponse(model.about)

    async def predict(self, request: Request) -> Response:
        model = self._model(request)
        check_json_type(request)

        def parsed_if_small(body: bytearray) -> PredictCall | None:
            return None if is_large(body) else parse_predict(body, model.signatures, self._limits)

        def compute(call: PredictCall) -> bytes:
            return render_predict(call, model.run(call.signature, call.inputs), self._limits)

        self._predictions.check()
        body = await self._bodies.read_body(request)
        self._large_since |= len(body) > LARGE_BYTES
        end = self._end()
        with self._predictions as gate:
            call = await self._asked(request, end, gate.run(parsed_if_small, body))
            if call is None:
                with self._large_bodies as large:
                    call = await self._asked(request, end, large.run(
                        self._json_processes.read, body, model.signatures))
            del body
            answer = await self._asked(request, end, gate.run(compute, call))
        self._large_since |= len(answer) > LARGE_BYTES
        return Response(answer, media_type="application/json", headers=_origin(model))

    async def choices(self, request: Request) -> Response:
        return JSONResponse({"models": [choices_of(m) for m in self._registry.models if m.config],
                             "upload_mib": self._limits.upload_mib})

    async def segment(self, request: Request) -> Response:
        model = self._segmenting_model(request)
        prior = request.query_params.get("prior")
        if prior is not None:
            check_prior(model, prior)
        self._volumes.check()
        self._large_since = True
        with self._jobs.under_way(request.query_params.get("job")) as job:
            async with self._uploads.read_files(request) as files:
                job.progress("waiting", 0, 0)
                with self._volumes as gate:
                    answer = await self._asked(request, self._end(), gate.run(
                        segment_upload, model, files, self._limits, prior, job))
        return Response(answer, media_type="application/gzip", headers={
            "Content-Disposition": 'attachment; filename="segmentation.nii.gz"',
            **_origin(model)})

    async def job(self, request: Request) -> Response:
        task, done, total = self._jobs.get(request.path_params["job"]).state
        return JSONResponse({"task": task, "done": done, "total": total})

    async def dicom(self, request: Request) -> Response:
        self._volumes.check()
        self._large_since = True
        async with self._uploads.read_files(request) as files:
            with self._volumes as gate:
                answer, kind = await self._asked(request, self._end(), gate.run(
                    convert_dicom, files, self._limits))
        return Response(answer, media_type=kind)

    async def info(self, request: Request) -> Response:
        return JSONResponse(describe_app(self._registry.models))

    async def begin_session(self, request: Request) -> Response:
        try:
            expiry = int(request.query_params.get("expiry", 0))
        except ValueError:
            raise ApiError(400, "`expiry` must be a number of seconds") from None
        self._sessions.check()
        self._large_since = True
        async with self._uploads.read_form(request) as form:
            if not form.files:
                raise ApiError(400, "send the image as the multipart field `files`")
            try:
                session = await asyncio.to_thread(self._sessions.add, [
                    (name or str(number), file)
                    for number, (_, file, name) in enumerate(form.files)], expiry)
            except (OSError, RunError) as error:
                raise no_room(error) from None
        return JSONResponse({"session_id": session.name, "session_info": session.to_json()})

    async def session(self, request: Request) -> Response:
        find = self._sessions.remove if request.method == "DELETE" else self._sessions.get
        return JSONResponse(find(request.path_params["session"]).to_json())

    async def infer(self, request: Request) -> Response:
        model = self._model(request)
        output = request.query_params.get("output", "all")
        if output not in ("image", "json", "all"):
            raise ApiError(400, f"`output` {output[:40]!r} is not made; ask for image, json or all")
        begun = time.monotonic()
        self._volumes.check()
        self._large_since = True
        async with self._uploads.read_form(request) as form:
            prior = read_params(form.texts.get("params", "")).get("prior")
            if prior is not None:
                check_prior(model, str(prior))
            name = request.query_params.get("session_id", "")
            sent = {called or "image": file for field, file, called in form.files
                    if field != "label"}
            if not (name or sent):
                raise ApiError(400, "send an image as the field `file`, or name a session_id; this "
                                    "server has no data store")
            with self._volumes as gate, ExitStack() as stack:
                if name:
                    sent = {called: stack.enter_context(path.open("rb"))
                            for called, path in self._sessions.get(name).files.items()}
                answer = await self._asked(request, self._end(), gate.run(
                    self._inferred, model, sent, prior))
        body, kind = infer_answer(model, answer, time.monotonic() - begun, output)
        return Response(body, media_type=kind, headers=_origin(model))

    def _inferred(self, model: LoadedModel, sent: dict[str, BinaryIO], prior: str | None) -> bytes:
        inputs = model.config.study.inputs if model.config else ()
        with modalities_of(sent, inputs or ("image",)) as files:
            return segment_upload(model, files, self._limits, prior)

    def _model(self, request: Request) -> LoadedModel:
        return self._registry.get(request.path_params["model"],
                                  request.path_params.get("version"))

    def _segmenting_model(self, request: Request) -> LoadedModel:
        if name := request.query_params.get("model"):
            return self._registry.get(name)
        models = self._registry.models
        if not models:
            raise ApiError(503, "a model is still being loaded; try again", {"Retry-After": "2"})
        if len(models) > 1:
            raise ApiError(400, "say which model, as in /v1/segment?model=NAME; this server has "
                                f"{[m.name for m in models]}")
        return models[0]

    def _end(self) -> float:
        """The time of the event loop by which what is asked now must be answered."""
        return asyncio.get_running_loop().time() + self._limits.seconds

    async def _asked(self, request: Request, end: float, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of work, as long as somebody waits for it; what has not begun never begins.

        Raises:
            ApiError: 504 where it takes longer than until `end`.
        """
        doing = asyncio.ensure_future(work)
        # After the whole body nothing comes but that the client is gone.
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait((doing, gone), timeout=end - asyncio.get_running_loop().time(),
                               return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            if gone.done():
                raise ApiError(400, "the client is gone")
            raise ApiError(504, f"the request took longer than {self._limits.seconds:g} s; send "
                                "fewer slices, or later")
        finally:
            doing.cancel()
            gone.cancel()


def _origin(model: LoadedModel) -> dict[str, str]:
    return {"X-Model": model.name, "X-Model-Version": str(model.version)}


async def _on_api_error(request: Request, error: ApiError) -> JSONResponse:
    """Handler of the errors that this package raises."""
    return error_answer(error)


async def _on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    """Handler of the routes' own errors: no such page, wrong method."""
    text = {404: "no such page; /openapi.json lists what there is",
            405: "this page does not take the method "
                 f"{request.method[:20]}; see /openapi.json"}.get(error.status_code, error.detail)
    return JSONResponse({"error": str(text)}, error.status_code, error.headers)


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    """Handler of a fault of the server's own; the log has the cause, the answer has not."""
    return JSONResponse({"error": "the server failed on this request; its log has the cause"},
                        500)
