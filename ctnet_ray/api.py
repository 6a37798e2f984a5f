"""What notebooks and programs call; `import ctnet_ray as ct` has it, and loads torch and MLflow when used.

version = ct.open_version("channel.ctnet@champion")
version.score({"user": [7], "item": [3], "clicked_items": [[1, 2]]})    # probabilities, float32 [1]
version.export("exported")
ct.open_export("exported").score(rows)                                  # without Ray, MLflow and TorchRec
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ctnet_ray import storage
from ctnet_ray.config import TrackingConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.deltas import Written, export_since
from ctnet_ray.export.opening import LookUp, Traced, traced
from ctnet_ray.export.writing import export
from ctnet_ray.models.tower import TowerModel
from ctnet_ray.runs.records import Version
from ctnet_ray.schema import Role, Schema
from ctnet_ray.serving.fields import Field
from ctnet_ray.serving.folder import open_export
from ctnet_ray.serving.scorer import Card, Rows, Scorer, Scores
from ctnet_ray.training import versions
from ctnet_ray.training.versions import OpenVersion, VersionRecord

__all__ = ["ModelVersion", "open_export", "open_version"]


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model, opened: its source version brought in, its checksums compared."""

    opened: OpenVersion
    """The model as it was trained: `opened.model`, on `opened.device`."""
    mlflow_uri: str
    """Where lineage is looked up."""
    domain: str | None = None
    """Domain whose rows are scored; None: the one that it was trained for."""
    look_up: LookUp = field(default_factory=LookUp)
    """Where its statistics come from."""

    def score(self, rows: Rows) -> Scores:
        """Return the probability of a click for each row, float32 [N]: `Scorer.score`."""
        return self.scorer.score(rows)

    def score_request(self, user: Mapping[str, Any], candidates: Rows) -> Scores:
        """Return it for each of a user's candidates, float32 [C]: `Scorer.score_request`."""
        return self.scorer.score_request(user, candidates)

    def layers(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Return what a model of one tower computes for rows, by layer, float32 [N, width] each.

        Raises:
            CtnetError: It has several towers, or rows can't be scored.
        """
        if not isinstance(self.opened.model, TowerModel):
            raise CtnetError(
                f"{self.card.id} is a {self.record.spec.network}, and only a model of one tower has layers "
                "to ask for: open its base model, or its source version"
            )
        samples = self.scorer.samples_of(rows)
        encoder = self.opened.encoder(self.card.domain)
        return self.opened.layers(encoder.scored_batch(samples))

    def export(self, uri: str) -> None:
        """Write it for scoring elsewhere, to be opened by `open_export`.

        Args:
            uri: Folder, local or URI; an export that is there is replaced.

        Raises:
            CtnetError: The folder holds something else, or can't be written.
        """
        export(self._traced, uri)

    def export_since(self, name: str, uri: str) -> Written:
        """Write what changed since an earlier version of the same run, for `open_export(base, deltas)`.

        Args:
            name: The earlier version, as for `open_version`; it needs no weights any more.
            uri: Folder, local or URI; a delta that is there is replaced.

        Raises:
            CtnetError: There is no such version, or it is none of this one's run; or the folder holds
                something else, or can't be written.
        """
        since = versions.read_record(find_version(name, self.mlflow_uri))
        return export_since(self._traced, self.opened, since, uri)

    @property
    def record(self) -> VersionRecord:
        """Run, step and specification of the model."""
        return self.opened.record

    @property
    def card(self) -> Card:
        """Which version it is."""
        return self.scorer.card

    @property
    def fields(self) -> tuple[Field, ...]:
        """What a row may say, by name."""
        return self.scorer.fields

    @property
    def schema(self) -> Mapping[Role, Schema]:
        """Features and tables of each tower."""
        return self.record.spec.inputs

    @cached_property
    def lineage(self) -> dict[str, Any]:
        """Everything that went into it, plain data (`ctnet_ray.tracking.lineage.ancestry`).

        Raises:
            CtnetError: It is not registered.
        """
        from ctnet_ray.tracking.lineage import ancestry
        from ctnet_ray.tracking.tracker import Tracker

        version = self.record.version
        if version.number is None:
            raise CtnetError(f"{version.id} was opened by its folder: open it by its registered name")
        return ancestry(Tracker(self.mlflow_uri, TrackingConfig().experiment, create=False), version.id)

    @property
    def notice(self) -> str:
        """Why its statistics are not looked up; empty: they are, or it reads none."""
        return self._traced.notice

    @property
    def scorer(self) -> Scorer:
        """What scores."""
        return self._traced.scorer

    @cached_property
    def _traced(self) -> Traced:
        return traced(self.opened, self.domain, self.look_up)


def open_version(
    name: str,
    mlflow_uri: str | None = None,
    device: str = "cpu",
    domain: str | None = None,
    *,
    samples: str | None = None,
    statistics: bool = True,
) -> ModelVersion:
    """Open a model version.

    Args:
        name: Folder of the version, local or URI; or of a registered model NAME/VERSION, NAME@ALIAS, or NAME
            for the version of its newest day.
        mlflow_uri: Where it is registered; None: `sqlite:///mlflow.db`, the default of all commands.
        device: Where its model goes, such as "cuda"; scores are computed on CPUs.
        domain: Domain of the rows to score; None: the one that it was trained for.
        samples: Sample store whose counts its statistics are looked up in, as of its day; None: the one that
            it was trained from, if they are there.
        statistics: Whether statistics are looked up; else rows have to say them.

    Raises:
        CtnetError: There is no such version, a file of it was changed, or its source version is not there.
    """
    # The file of a relative URI is that of now: MLflow would remember the first one's.
    mlflow_uri = (TrackingConfig(mlflow_uri=mlflow_uri) if mlflow_uri else TrackingConfig()).mlflow_uri
    opened = versions.open_version(find_version(name, mlflow_uri), device)
    return ModelVersion(opened, mlflow_uri, domain, LookUp(samples, statistics))


def find_version(name: str, mlflow_uri: str) -> Version | str:
    """Return the version that a name means, or the folder that it is."""
    if "://" in name or storage.exists(name):
        return storage.absolute(name)
    # MLflow takes seconds to load, and a folder needs none.
    from ctnet_ray.tracking.tracker import Tracker

    return Tracker(mlflow_uri, TrackingConfig().experiment, create=False).resolve_verified(name)
