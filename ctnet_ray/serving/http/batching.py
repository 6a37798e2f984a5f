"""Requests that wait together are scored together, where each has few candidates.

Of such a request most time goes into calls, not numbers: sixteen of them as one table cost little more than
one. With more candidates, or long lists of the user, the user's side, computed once a request, is worth more.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.http.answer import Answer, Body, answer, answer_request, failure, scored
from ctnet_ray.serving.http.request import JSON, Limits, RequestError, ScoreRequest, read_request
from ctnet_ray.serving.http.scorer import RequestScorer

MOST_CANDIDATES = 32  #: of a request that is scored with others
_MOST_ELEMENTS = 2048  #: of its user's lists, which stand beside each of its candidates
_MOST_VALUES = 1024  #: of its body, told by its commas
_MOST_BYTES = 32_768
_Group = tuple[frozenset[str], frozenset[str]]  # names of the user's fields and of the candidates'


def may_share_a_table(body: Body) -> bool:
    """Whether a body may be of a request that is scored with others: told without reading it."""
    content = body.content
    return body.media == JSON and len(content) <= _MOST_BYTES and content.count(b",") <= _MOST_VALUES


def answers(scorer: RequestScorer, bodies: Sequence[Body], limits: Limits) -> Iterator[tuple[int, Answer]]:
    """Give the place and the answer of each body, as `answer` does, up to rounding.

    Small requests that give the same fields are one table of all their candidates; they come first.
    """
    if len(bodies) == 1:
        yield 0, answer(scorer, bodies[0], limits)
        return
    alone: dict[int, ScoreRequest] = {}
    groups: dict[_Group, dict[int, ScoreRequest]] = {}
    for place, body in enumerate(bodies):
        try:
            request = read_request(body.content, body.media, scorer.fields, limits)
        except RequestError as error:
            yield place, failure(error.status, str(error), error.field, scorer.card)
            continue
        names = frozenset(request.user), frozenset(_columns(request))
        (groups.setdefault(names, {}) if _is_small(request) else alone)[place] = request
    for requests in groups.values():
        if len(requests) > 1 and (scores := _scores(scorer, list(requests.values()))):
            for place, one in zip(requests, scores, strict=True):
                yield place, scored(scorer.card, bodies[place], one)
        else:
            alone |= requests
    for place, request in alone.items():
        yield place, answer_request(scorer, bodies[place], request)


def _columns(request: ScoreRequest) -> Mapping[str, Sequence]:
    return request.candidates if isinstance(request.candidates, Mapping) else {}


def _is_small(request: ScoreRequest) -> bool:
    elements = sum(len(value) for value in request.user.values() if isinstance(value, list))
    is_json = isinstance(request.candidates, Mapping)
    return is_json and request.rows <= MOST_CANDIDATES and request.rows * elements <= _MOST_ELEMENTS


def _scores(scorer: RequestScorer, requests: Sequence[ScoreRequest]) -> list[np.ndarray] | None:
    """Score requests as one table; None: they are not alike, or one is wrong."""
    columns = {
        name: [value for one in requests for value in [one.user[name]] * one.rows]
        for name in requests[0].user
    }
    for name in _columns(requests[0]):
        columns[name] = [value for one in requests for value in _columns(one)[name]]
    try:
        scores = scorer.score(columns)
    except CtnetError:
        return None
    return np.split(scores, np.cumsum([one.rows for one in requests])[:-1])
