"""Serving: what a model's name means, now and later, and a server of it until it is ended."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FrameType

from ctnet_ray import storage
from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.serving import SERVE_AGAIN, ServingOptions, serving
from ctnet_ray.config import TrackingConfig
from ctnet_ray.credentials import bare_uri
from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.deltas import Delta, apply_deltas, find_deltas, order_fault
from ctnet_ray.serving.folder import OpenExport, open_folder, read_manifest
from ctnet_ray.serving.http.access import check_host
from ctnet_ray.serving.http.served_model import ModelSource
from ctnet_ray.serving.scorer import Card, Scorer
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.publisher import NEWEST
from ctnet_ray.tracking.tracker import Tracker


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model's version: NAME/VERSION, NAME@ALIAS, or NAME for its newest day."""

    name: str
    mlflow_uri: str
    experiment: str

    def current(self) -> str:
        """Return NAME/VERSION.

        Raises:
            CtnetError: There is no such version, or MLflow fails.
        """
        if "/" in self.name:
            return self.name
        model, _, alias = self.name.partition("@")
        tracker = _tracker(self.mlflow_uri, self.experiment)
        with tracker.talking():
            # One request, where `resolve` reads all versions.
            models = tracker.client.search_registered_models(f"name = '{model}'") if "'" not in model else []
        numbers = {name: number for entry in models for name, number in entry.aliases.items()}
        number = numbers.get(alias or NEWEST)
        return f"{model}/{number}" if number else tracker.resolve(self.name).id

    def load(self, version: str) -> Scorer:
        """Open a version.

        Raises:
            CtnetError: As `open_scorer`.
        """
        # TorchRec takes seconds, and an exported folder needs none.
        from ctnet_ray.export.opening import open_scorer

        return open_scorer(_tracker(self.mlflow_uri, self.experiment).resolve_verified(version))


@dataclass
class ExportedFolder:
    """A folder that `jobs.export` made, and the deltas in it; one that is made again is served in turn."""

    name: str
    opened: OpenExport | None = field(default=None, init=False, repr=False)
    """What this process loaded last: later deltas are applied to it."""

    def __reduce__(self) -> tuple[type["ExportedFolder"], tuple[str]]:
        # Serve pickles what a replica was made with, after it was made too; a program can't be.
        return ExportedFolder, (self.name,)

    def current(self) -> str:
        """Return the folder and the digest of the version that its deltas lead to.

        Raises:
            CtnetError: There is no exported version; or all deltas that lead on are applied, and others lead
                from elsewhere.
        """
        card, deltas, waiting = self._look()
        last = deltas[-1].result.card if deltas else card
        if waiting and self._is_loaded(last):
            raise CtnetError(order_fault(last, waiting))
        return f"{self.name} ({last.digest[:12]})"

    def load(self, version: str) -> Scorer:
        """Open it, or apply to what is open the deltas that came since.

        Raises:
            CtnetError: As `open_export`.
        """
        del version
        card, deltas, _ = self._look()
        cards = [card, *(delta.result.card for delta in deltas)]
        done = next((index for index, card in enumerate(cards) if self._is_loaded(card)), None)
        opened = self.opened if done is not None else None
        self.opened = apply_deltas(opened or open_folder(self.name), deltas[done or 0 :])
        return self.opened.scorer

    def _look(self) -> tuple[Card, list[Delta], Delta | None]:
        """Return the exported version, the deltas that lead on from it, and one that leads from elsewhere."""
        manifest, _ = read_manifest(self.name)
        return manifest.card, *find_deltas(self.name, manifest.card)

    def _is_loaded(self, card: Card) -> bool:
        return self.opened is not None and self.opened.manifest.card == card


def model_source(name: str, tracking: TrackingConfig) -> ModelSource:
    """Return where a name's versions come from.

    Args:
        name: NAME, NAME/VERSION or NAME@ALIAS of a registered model, or an exported version's folder.
        tracking: Where it is registered.

    Raises:
        CtnetError: There is no such model, version, alias or exported folder.
    """
    if "://" in name or storage.exists(name):
        source: ModelSource = ExportedFolder(storage.absolute(name))
    else:
        _tracker(tracking.mlflow_uri, tracking.experiment).resolve(name)
        # A server's user and password are in this process's environment now, which replicas inherit.
        is_server = tracking.mlflow_uri.lower().startswith("http")
        uri = bare_uri(tracking.mlflow_uri) if is_server else tracking.mlflow_uri
        source = RegisteredModel(name, uri, tracking.experiment)
    source.current()
    return source


def serve_model(name: str, options: ServingOptions, tracking: TrackingConfig) -> None:
    """Serve a model until this process is told to end (SIGINT, SIGTERM).

    Args:
        name: As `model_source`.
        options: How it is served.
        tracking: Where it is registered.

    Raises:
        CtnetError: It can't be found or loaded, the port is taken, or Ray does not start or is lost.
    """
    check_host(options.host, options.token)
    # Told last: a Ray that starts takes SIGTERM for itself, and ends the process at once with it.
    with serving(model_source(name, tracking), options) as address, _until_told():
        said = f"{name} is served at {address}/score (health: /healthz, /ready; metrics: /metrics)"
        open_console().print(said, soft_wrap=True, highlight=False)
        while_ray_lives(threading.Event().wait, SERVE_AGAIN)


@contextmanager
def _until_told() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the block in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _tracker(uri: str, experiment: str) -> Tracker:
    return Tracker(uri, experiment, create=False)
