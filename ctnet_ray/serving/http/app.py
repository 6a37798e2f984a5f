"""The HTTP application: POST /score, GET /healthz, /ready and /metrics."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ctnet_ray.serving.http import metrics as prometheus
from ctnet_ray.serving.http.access import is_allowed
from ctnet_ray.serving.http.answer import Answer, Body, failure
from ctnet_ray.serving.http.batching import answers, may_share_a_table
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.request import ARROW, JSON, Limits, RequestError, media_type
from ctnet_ray.serving.http.scoring_threads import OverloadedError, ScoringThreads
from ctnet_ray.serving.http.served_model import ServedModel

LOG = logging.getLogger("ctnet_ray.serving")
RETRY_SECONDS = 1  #: what a client that is refused for overload is told to wait
_BODY_SECONDS = 10  #: for a whole body to arrive


class ScoringApp:
    """What the routes do.

    Args:
        model: The model that answers.
        metrics: Where answers are counted.
        limits: How large a request may be.
        threads: Threads that score.
        most_waiting: Requests that may wait for them.
        most_together: Requests of few candidates that a thread scores at once.
        token: Digest of the access token (`access.read_token`); None: no token is asked for.
    """

    def __init__(
        self,
        model: ServedModel,
        metrics: ServingMetrics,
        limits: Limits,
        threads: int,
        most_waiting: int,
        most_together: int,
        token: bytes | None,
    ) -> None:
        self._model, self._metrics, self._limits, self._token = model, metrics, limits, token
        self._threads = ScoringThreads(
            self._answer, threads, most_waiting, most_together, may_share_a_table, metrics
        )

    def asgi(self) -> Starlette:
        """Return the application as a server takes it; its threads end with it."""
        routes = [
            Route("/score", self.score, methods=["POST"]),
            Route("/healthz", self.health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
        ]
        handlers = {HTTPException: _not_found}
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    async def score(self, request: Request) -> Response:
        """Answer with scores."""
        started = time.perf_counter()
        try:
            self._check_token(request)
            media = media_type(request.headers.get("content-type", ""))
            accept = ARROW if ARROW in request.headers.get("accept", "") else JSON
            content = await self._read(request)
            started = time.perf_counter()
            answered = await self._threads.submit(Body(content, media, accept))
        except RequestError as error:
            answered = failure(error.status, str(error), error.field)
        except OverloadedError:
            answered = failure(503, f"overloaded: try again in {RETRY_SECONDS} s")
        except ClientDisconnect:
            answered = failure(400, "the client has gone")
        except Exception:
            LOG.exception("a request failed")
            answered = failure(500, "the server failed at this request: its log says where")
        seconds = time.perf_counter() - started
        self._metrics.count(answered.model, answered.version, answered.status, answered.candidates, seconds)
        return _response(answered)

    async def health(self, request: Request) -> Response:
        """Say whether this process works: 200, or 503."""
        del request
        healthy = self.is_healthy()
        return Response("ok" if healthy else "a thread that scores has ended", 200 if healthy else 503)

    async def ready(self, request: Request) -> Response:
        """Say which version answers; details are for those who have the token."""
        shown = {"ready": True}
        if is_allowed(request.headers.get("authorization", ""), self._token):
            shown |= asdict(self._model.standing())
        return Response(json.dumps(shown), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """Give what Prometheus reads."""
        try:
            self._check_token(request)
        except RequestError as error:
            return _response(failure(error.status, str(error)))
        return Response(self._metrics.text(), media_type=prometheus.CONTENT_TYPE)

    def is_healthy(self) -> bool:
        """Whether requests are still answered."""
        return self._threads.are_alive()

    def _answer(self, bodies: Sequence[Body]) -> Iterator[tuple[int, Answer]]:
        # One reference for whole requests: scores and version are of one model.
        return answers(self._model.scorer, bodies, self._limits)

    def _check_token(self, request: Request) -> None:
        if not is_allowed(request.headers.get("authorization", ""), self._token):
            raise RequestError(401, "no access token, or another: send Authorization: Bearer TOKEN")

    async def _read(self, request: Request) -> bytes:
        """Return the whole body; one that is too large is read no further."""
        most = self._limits.body_bytes
        too_large = RequestError(413, f"the body is larger than {most} bytes: send several requests")
        said = request.headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > most:
            raise too_large
        content = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > most:
                        raise too_large
        except TimeoutError as error:
            raise RequestError(408, f"the body did not arrive within {_BODY_SECONDS} s") from error
        return bytes(content)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        yield
        self._threads.stop()


def _response(answered: Answer) -> Response:
    headers = {}
    if answered.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if answered.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if answered.status in (408, 413):
        headers["Connection"] = "close"  # what the client still sends is not read
    return Response(answered.content, answered.status, headers, answered.media)


async def _not_found(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    there = "POST /score, GET /healthz, /ready and /metrics"
    answered = failure(status, f"{request.method} {request.url.path[:100]} is not there: there are {there}")
    return _response(answered)
