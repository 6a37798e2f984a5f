"""What a client asks: scores of many candidates for one user, as JSON or as an Arrow stream.

JSON:   {"user": {"user": 7, "segment": "a"}, "candidates": {"item": [1, 2], "shop": ["x", "y"]}}
        {"user": {...}, "candidates": [{"item": 1, "shop": "x"}, {"item": 2, "shop": "y"}]}
Arrow:  a stream of the candidates' columns; the user as JSON in the schema's metadata, key "user"
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from annotated_types import Gt
from pydantic.dataclasses import dataclass as checked_dataclass

from ctnet_ray.errors import CtnetError, nearest
from ctnet_ray.section import Section
from ctnet_ray.serving.fields import Field
from ctnet_ray.serving.http.arrow_body import ArrowBodyError, read_stream
from ctnet_ray.serving.http.scorer import Columns
from ctnet_ray.serving.http.values import column_fault, value_fault

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_PARTS = ("user", "candidates")
_SHOWN_CHARACTERS = 100


class RequestError(CtnetError):
    """A request that can't be answered; what is said is for the client.

    Args:
        status: HTTP status.
        reason: One line.
        field: Name of the field that is wrong, or "".
    """

    def __init__(self, status: int, reason: str, field: str = "") -> None:
        super().__init__(" ".join(reason.split()))
        self.status, self.field = status, field


@checked_dataclass(frozen=True)
class Limits(Section, section="limits"):
    """How large a request may be."""

    body_bytes: Annotated[int, Gt(0)] = 4 << 20
    """Bytes of a body."""
    candidates: Annotated[int, Gt(0)] = 10_000
    """Candidates of a request."""


@dataclass(frozen=True)
class ScoreRequest:
    """One user and candidates, their names and types checked."""

    user: Mapping[str, Any]
    candidates: Columns
    rows: int
    """Number of candidates."""


def media_type(header: str) -> str:
    """Return which of the two media types a Content-Type says.

    Raises:
        RequestError: It says neither (415).
    """
    said = header.partition(";")[0].strip().lower()
    if said not in (JSON, ARROW):
        raise RequestError(415, f"content type {said[:_SHOWN_CHARACTERS]!r}: send {JSON} or {ARROW}")
    return said


def read_request(body: bytes, media: str, fields: Iterable[Field], limits: Limits) -> ScoreRequest:
    """Read the body of a request.

    Args:
        body: At most `limits.body_bytes`.
        media: JSON or ARROW.
        fields: What the model's rows may have.
        limits: Most candidates.

    Raises:
        RequestError: It is not what it should be; the field is named (400, 422).
    """
    user, candidates = _read_arrow(body, limits) if media == ARROW else _read_json(body)
    if not isinstance(candidates, Mapping):
        rows, names = candidates.num_rows, candidates.column_names
    else:
        rows, names = _count_rows(candidates), list(candidates)
    if not rows:
        raise RequestError(422, "there are no candidates: give at least one", "candidates")
    if rows > limits.candidates:
        raise RequestError(
            422, f"{rows} candidates: at most {limits.candidates} a request, send several", "candidates"
        )
    _check_names(user, names, fields)
    by_name = {field.name: field for field in fields}
    for name, value in user.items():
        if fault := value_fault(by_name[name], value):
            raise RequestError(422, f"field {name!r} of the user: {fault}", name)
    for name in names:
        if fault := column_fault(by_name[name], candidates[name]):
            raise RequestError(422, f"field {name!r} of the candidates: {fault}", name)
    return ScoreRequest(user, candidates, rows)


def _read_json(body: bytes) -> tuple[dict[str, Any], Mapping[str, Sequence[Any]]]:
    asked = _parse(body, "the body")
    if not isinstance(asked, dict):
        raise RequestError(422, f"the body is {_name(asked)}: send an object of 'user' and 'candidates'")
    for name in asked:
        if name not in _PARTS:
            raise _unknown(name, _PARTS, "a request has 'user' and 'candidates'")
    if "candidates" not in asked:
        raise RequestError(422, "there is no 'candidates': give a list of objects, or lists", "candidates")
    return _check_user(asked.get("user", {})), _columns(asked["candidates"])


def _read_arrow(body: bytes, limits: Limits) -> tuple[dict[str, Any], Columns]:
    try:
        table = read_stream(body, limits.candidates)
    except ArrowBodyError as error:
        raise RequestError(error.status, str(error)) from error
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise RequestError(422, f"there are two columns {name!r}: give one", name)
    user = (table.schema.metadata or {}).get(b"user", b"{}")
    return _check_user(_parse(user, "the schema's metadata 'user'")), table


def _parse(text: bytes, part: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:_SHOWN_CHARACTERS]
        raise RequestError(400, f"{part} is not JSON ({reason})") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _check_user(user: Any) -> dict[str, Any]:
    if not isinstance(user, dict):
        raise RequestError(422, f"'user' is {_name(user)}: give an object, a value each field", "user")
    return user


def _columns(candidates: Any) -> Mapping[str, Sequence[Any]]:
    """Return candidates as columns; of a list of objects those that any of them has."""
    if isinstance(candidates, dict):
        for name, values in candidates.items():
            if not isinstance(values, list):
                raise RequestError(
                    422, f"field {name!r} of the candidates: {_name(values)} where a list is due", name
                )
        return candidates
    if not isinstance(candidates, list):
        raise RequestError(
            422, f"'candidates' is {_name(candidates)}: give a list of objects, or lists", "candidates"
        )
    for place, candidate in enumerate(candidates):
        if not isinstance(candidate, dict):
            raise RequestError(422, f"candidate {place} is {_name(candidate)}: give an object", "candidates")
    if candidates and not any(candidates):
        raise RequestError(422, "the candidates have no field: give one at least", "candidates")
    names = dict.fromkeys(name for candidate in candidates for name in candidate)
    return {name: [candidate.get(name) for candidate in candidates] for name in names}


def _count_rows(candidates: Mapping[str, Sequence[Any]]) -> int:
    rows = 0
    for place, (name, values) in enumerate(candidates.items()):
        if place and len(values) != rows:
            raise RequestError(
                422, f"field {name!r} of the candidates: {len(values)} values where others have {rows}", name
            )
        rows = len(values)
    return rows


def _check_names(user: Iterable[str], names: Iterable[str], fields: Iterable[Field]) -> None:
    known = {field.name for field in fields}
    for name in (*user, *names):
        if name not in known:
            raise _unknown(name, known, f"the model reads {', '.join(sorted(known))}")
    for name in names:
        if name in user:
            raise RequestError(
                422, f"field {name!r}: given for the user and for the candidates, give it once", name
            )


def _unknown(name: str, known: Iterable[str], which: str) -> RequestError:
    shown = name[:_SHOWN_CHARACTERS]
    return RequestError(422, f"unknown field {shown!r}{nearest(shown, known)}: {which}", shown)


def _name(value: Any) -> str:
    """Say what kind of JSON value something is."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
