"""What the HTTP side asks of a scorer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

Columns = pa.Table | Mapping[str, Sequence[Any]]
"""Candidates: one value each of some fields, in the order of the scores."""


class Card(Protocol):
    """Where a scorer's model comes from."""

    @property
    def model(self) -> str:
        """Name of the registered model."""
        ...

    @property
    def id(self) -> str:
        """The version, for people: NAME/VERSION, or RUN@DAY of one that is not registered."""
        ...

    @property
    def label(self) -> str:
        """The version as answers name it: its number, or RUN@DAY."""
        ...

    @property
    def day(self) -> str:
        """Day that it was trained on last, YYYY-MM-DD."""
        ...


class RequestScorer(Protocol):
    """Scores candidates of one user."""

    @property
    def card(self) -> Card:
        """Where its model comes from."""
        ...

    @property
    def fields(self) -> Any:  # a cached property is no property to type checkers
        """What rows may have: a sequence of `ctnet_ray.serving.fields.Field`."""
        ...

    def score(self, rows: Columns) -> np.ndarray:
        """Return the probability of each row, float32 [N].

        Raises:
            CtnetError: As `score_request`.
        """
        ...

    def score_request(self, user: Mapping[str, Any], candidates: Columns) -> np.ndarray:
        """Return the probability of each candidate, float32 [C].

        Raises:
            CtnetError: A value can't be; its attribute `field` names the field.
        """
        ...
