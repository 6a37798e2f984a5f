"""The model that answers, and how a newer version takes its place without a dropped or mixed request.

A version is loaded beside the one that answers, tried on a row of its own, and swapped in by one assignment.
Whoever scores takes the reference once a request, so that scores and the version's name are of one model.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.fields import Field
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.scorer import RequestScorer

LOG = logging.getLogger("ctnet_ray.serving")


class ModelSource(Protocol):
    """What a name such as NAME@ALIAS means, which may change. It is sent to replicas: plain data."""

    @property
    def name(self) -> str:
        """What was asked for."""
        ...

    def current(self) -> str:
        """Return what the name means now, such as NAME/3; another text when it means another version.

        Raises:
            CtnetError: It can't be told.
        """
        ...

    def load(self, version: str) -> RequestScorer:
        """Return the scorer of what `current` returned.

        Raises:
            CtnetError: It can't be loaded.
        """
        ...


@dataclass(frozen=True)
class Standing:
    """How the model stands, for readiness."""

    model: str
    version: str
    day: str
    since: str
    """When it began to answer: UTC, ISO 8601."""
    asked: str
    """What the server was asked to serve."""
    failure: str
    """Why the last look swapped no newer version in, or could not read the registry; "": nothing failed."""


class ServedModel:
    """One model of a process.

    Args:
        source: Where versions come from.
        metrics: Where swaps and failures are counted.

    Raises:
        CtnetError: The first version can't be loaded.
    """

    def __init__(self, source: ModelSource, metrics: ServingMetrics) -> None:
        self._source, self._metrics = source, metrics
        self._version = ""
        self._failure = ""
        self.scorer: RequestScorer = self._swap_in(source.current())
        """The one that answers. Take it once a request."""

    def look(self) -> bool:
        """Swap in the version that the name means now; whatever fails leaves the one that answers.

        Returns:
            Whether another version answers now.
        """
        try:
            version = self._source.current()
            if version == self._version:
                self._failure = ""
                return False
            self._swap_in(version)
        except Exception as error:
            # Of whatever kind: the version that answers must go on answering.
            known = isinstance(error, CtnetError)
            failure = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
            if failure != self._failure:
                LOG.error("%s stays: %s", self._version, failure, exc_info=not known)
            self._failure = failure
            self._metrics.count_failed_load()
            return False
        return True

    def standing(self) -> Standing:
        """Return how the model stands."""
        card = self.scorer.card
        return Standing(card.model, card.label, card.day, self._since, self._source.name, self._failure)

    def _swap_in(self, version: str) -> RequestScorer:
        scorer = self._source.load(version)
        try_once(scorer)
        old = (self.scorer.card.model, self.scorer.card.label) if self._version else None
        self.scorer = scorer
        self._version, self._failure = version, ""
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._metrics.show_swap(old, (scorer.card.model, scorer.card.label))
        LOG.info("%s answers for %s", version, self._source.name)
        return scorer


def try_once(scorer: RequestScorer) -> None:
    """Score a row of zeros: what a model makes at its first call is then made, and it is seen to score.

    Raises:
        CtnetError: The score is no probability.
    """
    # What is looked up is left out, so that the look-up is tried too.
    row = {field.name: _nothing(field) for field in scorer.fields if not field.looked_up}
    of_candidate, nothing = row.popitem()
    (score,) = scorer.score_request(row, {of_candidate: [nothing]})
    if not (np.isfinite(score) and 0 <= score <= 1):
        card = scorer.card
        raise CtnetError(f"{card.id} scores a row of zeros {score}: it is not served")


def _nothing(field: Field) -> Any:
    return {"id": "0", "number": 0.0, "ids": ["0"], "numbers": [0.0] * field.width}[field.kind]


def keep_looking(look: Callable[[], Any], seconds: float, ended: threading.Event) -> threading.Thread:
    """Look again and again in a thread of its own, until `ended` is set.

    Args:
        look: What is called; it raises nothing.
        seconds: Between two looks.
        ended: Ends it.
    """

    def walk() -> None:
        while not ended.wait(seconds):
            look()

    thread = threading.Thread(target=walk, name="look-for-versions", daemon=True)
    thread.start()
    return thread
