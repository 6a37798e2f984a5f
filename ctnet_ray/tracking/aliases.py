"""Aliases of registered models, such as champion: which version one means, and which it meant before.

MLflow keeps what an alias means now. What it meant before stands in a tag of the model, the newest last, so
that a roll-back needs nobody's memory; who promoted or rolled back a version, when and why, in its own tags.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.actor import who
from ctnet_ray.runs.records import Version
from ctnet_ray.tracking.publisher import NEWEST
from ctnet_ray.tracking.tracker import Tracker

_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_RESERVED = (NEWEST, "latest")  #: set by the tracker, and by MLflow itself
_REMEMBERED = 50  #: versions that a roll-back can go back over
_REASON_CHARACTERS = 500


@dataclass(frozen=True)
class Change:
    """Who let an alias mean a version, or mean it no longer."""

    by: str
    """USER@HOST; CTNET_ACTOR says it for a service."""
    at: str
    """UTC, ISO 8601."""
    why: str


def change(why: str) -> Change:
    """Return a change that is made now, by who runs this."""
    reason = " ".join(why.split())[:_REASON_CHARACTERS]
    return Change(who(), datetime.now(UTC).isoformat(timespec="seconds"), reason)


def check_alias(alias: str) -> str:
    """Return an alias that people may set.

    Raises:
        CtnetError: It can't be one, or is set by nobody but the jobs or MLflow.
    """
    if alias in _RESERVED:
        raise CtnetError(
            f"alias {alias!r} follows the newest day by itself: choose another, such as champion"
        )
    if not _ALIAS.fullmatch(alias):
        raise CtnetError(f"alias {alias!r}: a letter, then letters, digits, '_' and '-', all small")
    return alias


class Aliases:
    """The aliases of one model.

    Args:
        tracker: Where the model is registered.
        model: Its name.
    """

    def __init__(self, tracker: Tracker, model: str) -> None:
        self._tracker, self._client, self._model = tracker, tracker.client, model

    def holder(self, alias: str) -> Version | None:
        """Return the version that an alias means; None where it means none.

        Raises:
            CtnetError: There is no such model, or MLflow fails.
        """
        with self._tracker.talking():
            is_set = alias in self._client.get_registered_model(self._model).aliases
        return self._tracker.resolve(f"{self._model}@{alias}") if is_set else None

    def promote(self, version: Version, alias: str, by: Change, evidence: dict[str, Any]) -> None:
        """Let an alias mean a version. A second call after a kill ends what the first began.

        Args:
            version: One of the model's.
            alias: The alias.
            by: Who, when and why.
            evidence: What it was compared with and what came out, plain data.

        Raises:
            CtnetError: MLflow fails.
        """
        former = self._former(alias)
        number = str(version.number)
        with self._tracker.talking():
            entry = json.dumps({**asdict(by), "evidence": evidence}, sort_keys=True)
            self._client.set_model_version_tag(self._model, number, f"{alias}.promoted", entry)
            # First, so that a call that was killed behind it can be rolled back.
            self._client.set_registered_model_alias(self._model, alias, number)
            if former[-1:] != [number]:
                remembered = " ".join([*former, number][-_REMEMBERED:])
                self._client.set_registered_model_tag(self._model, _tag(alias), remembered)

    def roll_back(self, alias: str, by: Change) -> tuple[Version, Version]:
        """Let an alias mean the version again that it meant before.

        Args:
            alias: The alias.
            by: Who, when and why.

        Returns:
            The version that it meant, and the one that it means now.

        Raises:
            CtnetError: It means nothing, or meant nothing before, or MLflow fails.
        """
        now = self.holder(alias)
        if now is None:
            raise CtnetError(f"{self._model} has no alias {alias!r}: set it with jobs.promote")
        # Set by hand in MLflow, it may mean a version that the tag does not end with.
        former = [number for number in self._former(alias) if number != str(now.number)]
        there = {str(version.number): version for version in self._tracker.versions(self._model)}
        former = [number for number in former if number in there]
        if not former:
            raise CtnetError(f"{now.id} is the first {alias} of {self._model}: there is none to go back to")
        with self._tracker.talking():
            entry = json.dumps(asdict(by), sort_keys=True)
            self._client.set_model_version_tag(self._model, str(now.number), f"{alias}.rolled_back", entry)
            # Last, so that a call that was killed before it does not go back to the version that it left.
            self._client.set_registered_model_tag(self._model, _tag(alias), " ".join(former))
            self._client.set_registered_model_alias(self._model, alias, former[-1])
        return now, there[former[-1]]

    def _former(self, alias: str) -> list[str]:
        """Return the numbers of the versions that an alias meant, the newest last."""
        with self._tracker.talking():
            return self._client.get_registered_model(self._model).tags.get(_tag(alias), "").split()


def _tag(alias: str) -> str:
    return f"{alias}.versions"
