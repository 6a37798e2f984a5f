"""A scorer of four fields by a formula, and a server of it on this machine."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pyarrow as pa
import uvicorn

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.fields import Field
from ctnet_ray.serving.http.app import ScoringApp
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.request import JSON, Limits
from ctnet_ray.serving.http.served_model import ServedModel

TWO = {"user": {"user": 7}, "candidates": {"item": ["a", "b"], "price": [0.5, 1]}}  #: a request


@dataclass(frozen=True)
class FormulaCard:
    model: str
    label: str
    day: str = "2022-05-04"

    @property
    def id(self) -> str:
        return f"{self.model}/{self.label}"


class FormulaScorer:
    """The score of a candidate is version / (version + 1 + price), so that versions differ."""

    fields = (
        Field("user", "id", required=False),
        Field("clicked", "ids", required=False),
        Field("item", "id", required=False),
        Field("price", "number", required=False),
        Field("pixels", "numbers", 2, required=False),
    )

    def __init__(self, version: int, model: str = "ctnet") -> None:
        self.card = FormulaCard(model, str(version))
        self.asked: list[tuple[Mapping[str, Any], dict[str, list[Any]]]] = []
        self.began = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def score(self, rows: pa.Table | Mapping[str, Any]) -> np.ndarray:
        return self.score_request({}, rows)

    def score_request(self, user: Mapping[str, Any], candidates: pa.Table | Mapping[str, Any]) -> np.ndarray:
        self.began += 1
        assert self.may_answer.wait(10)
        columns = candidates.to_pydict() if isinstance(candidates, pa.Table) else dict(candidates)
        self.asked.append((user, columns))
        rows = len(next(iter(columns.values())))
        price = np.array(columns.get("price", [0] * rows), np.float32)
        version = int(self.card.label)
        return np.float32(version) / (version + 1 + price)


class Registry:
    """A source of versions: what the name means can be changed, and fail."""

    name = "ctnet@champion"

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.broken: set[int] = set()
        self.scorers: list[FormulaScorer] = []

    def current(self) -> str:
        return f"ctnet/{self.version}"

    def load(self, version: str) -> FormulaScorer:
        number = int(version.rpartition("/")[2])
        if number in self.broken:
            raise CtnetError(f"{version} is damaged: make it again")
        self.scorers.append(FormulaScorer(number))
        return self.scorers[-1]


@dataclass(frozen=True)
class Response:
    status: int
    headers: Message
    content: bytes


class Server:
    """A running server, and requests to it."""

    def __init__(self, port: int, model: ServedModel, registry: Registry) -> None:
        self.port, self.model, self.registry = port, model, registry

    def send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> Response:
        """Send one request; of headers' names `_` is `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())

    def score(self, asked: Any, content_type: str = JSON, **headers: str) -> tuple[int, dict[str, Any]]:
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        response = self.send("POST", "/score", body, content_type=content_type, **headers)
        return response.status, json.loads(response.content)

    def get(self, path: str, **headers: str) -> str:
        return self.send("GET", path, None, **headers).content.decode()


@contextmanager
def serving(
    registry: Registry | None = None,
    limits: Limits | None = None,
    token: bytes | None = None,
    most_waiting: int = 100,
    most_together: int = 16,
) -> Iterator[Server]:
    """Serve a registry's version until the block ends."""
    registry, metrics = registry or Registry(), ServingMetrics()
    model = ServedModel(registry, metrics)
    app = ScoringApp(model, metrics, limits or Limits(), 1, most_waiting, most_together, token)
    config = uvicorn.Config(app.asgi(), "127.0.0.1", 0, log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Server(port, model, registry)
    finally:
        server.should_exit = True
        thread.join()
