"""Requests that wait together are scored together, where each has few candidates.

Of such a request most time goes into calls, not numbers: sixteen of them as one table cost little more than
one. With more candidates the user's side, computed once a request, is worth more than that.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.http.answer import Answer, Body, answer, failure, scored
from ctnet_ray.serving.http.request import JSON, Limits, RequestError, ScoreRequest, read_request
from ctnet_ray.serving.http.scorer import RequestScorer

MOST_CANDIDATES = 32  #: of a request that is scored with others
_MOST_BYTES = 32_768  #: of its body
_Group = tuple[frozenset[str], frozenset[str]]  # names of the user's fields and of the candidates'


def may_share_a_table(body: Body) -> bool:
    """Whether a body may be of a request that is scored with others: told without reading it."""
    return body.media == JSON and len(body.content) <= _MOST_BYTES


def answers(scorer: RequestScorer, bodies: Sequence[Body], limits: Limits) -> list[Answer]:
    """Return the scores that each body asks for, or what is wrong with it: as `answer` does, up to rounding.

    Requests that give the same fields are one table of all their candidates.
    """
    if len(bodies) == 1:
        return [answer(scorer, bodies[0], limits)]
    answered: dict[int, Answer] = {}
    groups: dict[_Group, dict[int, ScoreRequest]] = {}
    for place, body in enumerate(bodies):
        try:
            request = read_request(body.content, body.media, scorer.fields, limits)
        except RequestError as error:
            answered[place] = failure(error.status, str(error), error.field, scorer.card)
            continue
        if isinstance(request.candidates, Mapping) and request.rows <= MOST_CANDIDATES:
            names = frozenset(request.user), frozenset(request.candidates)
            groups.setdefault(names, {})[place] = request
    for requests in groups.values():
        for place, scores in _scores(scorer, requests).items():
            answered[place] = scored(scorer.card, bodies[place], scores)
    return [
        answered[place] if place in answered else answer(scorer, body, limits)
        for place, body in enumerate(bodies)
    ]


def _scores(scorer: RequestScorer, requests: Mapping[int, ScoreRequest]) -> dict[int, np.ndarray]:
    """Score requests as one table; none where that can't be, for they are not alike or one is wrong."""
    if len(requests) == 1:
        return {}
    first, *_ = requests.values()
    columns = {
        name: [value for one in requests.values() for value in [one.user[name]] * one.rows]
        for name in first.user
    }
    for name in first.candidates:  # a mapping here
        columns[name] = [value for one in requests.values() for value in one.candidates[name]]
    try:
        scores = scorer.score(columns)
    except CtnetError:
        return {}
    ends = np.cumsum([one.rows for one in requests.values()])
    return dict(zip(requests, np.split(scores, ends[:-1]), strict=True))
