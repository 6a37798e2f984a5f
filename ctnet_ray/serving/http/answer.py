"""From a body to an answer: parse, check, score, write. Called in the threads that score."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.http.request import ARROW, JSON, Limits, RequestError, ScoreRequest, read_request
from ctnet_ray.serving.http.scorer import Card, RequestScorer


@dataclass(frozen=True)
class Body:
    """What a client sent, and how it wants the answer."""

    content: bytes
    media: str
    """JSON or ARROW."""
    accept: str = JSON
    """JSON or ARROW."""


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    content: bytes
    media: str = JSON
    model: str = ""
    version: str = ""
    candidates: int = 0
    """Number of them that were scored."""


def answer(scorer: RequestScorer, body: Body, limits: Limits) -> Answer:
    """Return the scores that a body asks for, or what is wrong with it."""
    try:
        request = read_request(body.content, body.media, scorer.fields, limits)
    except RequestError as error:
        return failure(error.status, str(error), error.field, scorer.card)
    return answer_request(scorer, body, request)


def answer_request(scorer: RequestScorer, body: Body, request: ScoreRequest) -> Answer:
    """Return the scores that a request asks for, or what is wrong with it; `body` is what it was read of."""
    try:
        scores = scorer.score_request(request.user, request.candidates)
    except CtnetError as error:
        return failure(422, " ".join(str(error).split()), getattr(error, "field", ""), scorer.card)
    return scored(scorer.card, body, scores)


def scored(card: Card, body: Body, scores: np.ndarray) -> Answer:
    """Return an answer with scores, as a body wants it."""
    write = write_arrow if body.accept == ARROW else write_json
    return Answer(200, write(card, scores), body.accept, card.model, card.label, len(scores))


def failure(status: int, reason: str, field: str = "", card: Card | None = None) -> Answer:
    """Return an answer that says what is wrong.

    Args:
        status: HTTP status.
        reason: One line.
        field: The field that is wrong, or "".
        card: Of the version that was asked; None: none was.
    """
    said = {"error": reason} | ({"field": field} if field else {})
    model, version = (card.model, card.label) if card else ("", "")
    return Answer(status, json.dumps(said).encode(), model=model, version=version)


def write_json(card: Card, scores: np.ndarray) -> bytes:
    """Return scores as JSON, with the nine digits that a float32 has."""
    written = ",".join(map("%.9g".__mod__, scores.tolist()))
    named = json.dumps({"model": card.model, "version": card.label})
    return f'{named[:-1]}, "scores": [{written}]}}'.encode()


def write_arrow(card: Card, scores: np.ndarray) -> bytes:
    """Return scores as an Arrow stream of one column `score`; model and version in its metadata."""
    batch = pa.record_batch({"score": pa.array(scores, pa.float32())})
    named = batch.replace_schema_metadata({"model": card.model, "version": card.label})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, named.schema) as stream:
        stream.write_batch(named)
    return sink.getvalue().to_pybytes()
