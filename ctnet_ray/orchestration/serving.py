"""Serving: what a model's name means, now and later, and a server of it until it is ended."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType

from ctnet_ray import storage
from ctnet_ray.cluster.serving import ServingOptions, serving
from ctnet_ray.config import TrackingConfig
from ctnet_ray.credentials import bare_uri
from ctnet_ray.serving import folder
from ctnet_ray.serving.http.access import check_host
from ctnet_ray.serving.http.served_model import ModelSource
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.terminal import open_console
from ctnet_ray.tracking.tracker import NEWEST, Tracker


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
            found = tracker.client.search_registered_models(f"name = '{model}'") if "'" not in model else []
        numbers = {name: number for entry in found for name, number in entry.aliases.items()}
        number = numbers.get(alias or NEWEST)
        return f"{model}/{number}" if number else tracker.resolve(self.name).id

    def load(self, version: str) -> Scorer:
        """Open a version.

        Raises:
            CtnetError: As `open_scorer`.
        """
        # TorchRec takes seconds, and an exported folder needs none.
        from ctnet_ray.export.opening import open_scorer

        return open_scorer(_tracker(self.mlflow_uri, self.experiment).resolve(version))


@dataclass(frozen=True)
class ExportedFolder:
    """A folder that `jobs.export` made; one that is made again in its place is served in turn."""

    name: str

    def current(self) -> str:
        """Return the folder and the digest of its version.

        Raises:
            CtnetError: There is no exported version.
        """
        manifest, _ = folder.read_manifest(self.name)
        return f"{self.name} ({manifest.card.digest[:12]})"

    def load(self, version: str) -> Scorer:
        """Open it.

        Raises:
            CtnetError: As `open_export`.
        """
        del version
        return folder.open_export(self.name)


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
        CtnetError: It can't be found or loaded, the port is taken, or Ray does not start.
    """
    check_host(options.host, options.token)
    # Told last: a Ray that starts takes SIGTERM for itself, and aborts the process with it.
    with serving(model_source(name, tracking), options) as address, _until_told() as wait:
        said = f"{name} is served at {address}/score (health: /healthz, /ready; metrics: /metrics)"
        open_console().print(said, soft_wrap=True, highlight=False)
        wait()


@contextmanager
def _until_told() -> Iterator[Callable[[], None]]:
    """Yield what waits for SIGINT or SIGTERM; both end the block in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield signal.pause
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _tracker(uri: str, experiment: str) -> Tracker:
    return Tracker(uri, experiment, create=False)
