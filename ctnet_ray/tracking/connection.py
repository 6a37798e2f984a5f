"""Connecting to MLflow: soon, safely from several processes, and with failures that are one line."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import requests
import sqlalchemy
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.tracking._model_registry.client import ModelRegistryClient
from sqlalchemy.exc import SQLAlchemyError

from ctnet_ray.credentials import bare_uri, hidden, user_and_password
from ctnet_ray.errors import CtnetError

# It tells of every table that it makes, and shows a traceback of what `talking` says in one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("mlflow.store.db.utils").addFilter(lambda record: not record.exc_info)

# Its bars run between a command's lines.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

_PROBE_SECONDS = (5, 10)  # to connect, to answer
_CREATION_SECONDS = 300
_SHOWN_CHARACTERS = 300
CERTIFICATES = "MLFLOW_TRACKING_SERVER_CERT_PATH"  #: MLflow's variable
_DENIED_ADVICE = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who may do this, then run the same "
    "command again"
)
_NOT_THERE_ADVICE = "see that it runs and that tracking.mlflow_uri is right, then run the same command again"


class NoDatabaseError(CtnetError):
    """There is no database file, and none was to be made."""


def connect(uri: str, experiment: str, create: bool, tags: Mapping[str, str]) -> tuple[MlflowClient, str]:
    """Return a client that works, and the id of the experiment.

    Args:
        uri: Tracking and registry URI.
        experiment: Name of the experiment.
        create: Whether a database or an experiment that is not there is created; if not, the id is "".
        tags: Tags of an experiment that is created.

    Raises:
        NoDatabaseError: There is no database file, and none is to be created.
        CtnetError: Nothing answers, or the experiment was deleted.
    """
    with talking(uri):
        if _is_server(uri):
            _probe_server(uri)
        file = _sqlite_file(uri) if _is_database(uri) else None
        if file and not file.exists() and not create:
            raise NoDatabaseError(
                f"no MLflow database at {file}: set tracking.mlflow_uri to where the runs are"
            )
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        # MLflow does not lock while it creates the tables: two processes would break each other's database.
        lock = FileLock(f"{file}.lock", timeout=_CREATION_SECONDS) if file and create else nullcontext()
        with lock:
            if _is_database(uri):
                _probe_database(uri)
            told = _tell_environment(uri)
            client = MlflowClient(tracking_uri=told, registry_uri=told)
            # Artifacts go beside an SQLite file, and elsewhere to where the server has them.
            artifacts = (file.parent / "mlruns").as_uri() if file else None
            known = client.get_experiment_by_name(experiment)
            if not known and create:
                known = _create_experiment(client, experiment, artifacts, tags)
    if known and known.lifecycle_stage != "active":
        raise CtnetError(
            f"experiment {experiment!r} in {bare_uri(uri)} was deleted: "
            "restore it or set another tracking.experiment"
        )
    return client, known.experiment_id if known else ""


def registry(client: MlflowClient) -> ModelRegistryClient:
    """Return what writes to the registry at once.

    The client's own methods first read all versions of a model, to see that it is no prompt: 30 ms of CPU a
    tag once there are 730 of them.
    """
    return client._get_registry_client()


@contextmanager
def talking(uri: str) -> Iterator[None]:
    """Say in one line what goes wrong between us and MLflow.

    Raises:
        CtnetError: In place of MLflow's, the database's, the network's and the disk's errors.
    """
    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
        reason = hidden(" ".join(str(error).split()), uri)[:_SHOWN_CHARACTERS]
        denied = re.search(r"failed with error code 40[13]\b", reason)
        way_out = _DENIED_ADVICE if denied else _NOT_THERE_ADVICE
        raise CtnetError(f"MLflow at {bare_uri(uri)} fails ({reason}): {way_out}") from error


@contextmanager
def unless_exists() -> Iterator[None]:
    """Let somebody else have created it first."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


@contextmanager
def unless_absent() -> Iterator[None]:
    """Let somebody have deleted it."""
    try:
        yield
    except MlflowException as error:
        # MLflow's client says it of some calls in words alone, and why in the cause.
        codes = {getattr(one, "error_code", None) for one in (error, error.__cause__)}
        if ErrorCode.Name(RESOURCE_DOES_NOT_EXIST) not in codes:
            raise


def _create_experiment(
    client: MlflowClient, name: str, artifacts: str | None, tags: Mapping[str, str]
) -> Experiment | None:
    with unless_exists():
        client.create_experiment(name, artifacts, dict(tags))
    return client.get_experiment_by_name(name)


def _tell_environment(uri: str) -> str:
    """Return the URI that MLflow gets: it prints a server's, and takes user and password elsewhere too."""
    named = user_and_password(uri) if _is_server(uri) else None
    if not named:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = named
    return bare_uri(uri)


def _is_server(uri: str) -> bool:
    return bool(re.match(r"https?://", uri, re.IGNORECASE))


def _is_database(uri: str) -> bool:
    return bool(re.match(r"(sqlite|postgresql|mysql|mssql)\b", uri))


def _probe_server(uri: str) -> None:
    """Fail soon where nothing answers: MLflow itself goes on trying for minutes."""
    authorities = os.environ.get(CERTIFICATES) or True
    try:
        requests.get(
            uri,
            timeout=_PROBE_SECONDS,
            verify=authorities if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS") != "true" else False,
            cert=os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        )
    except requests.exceptions.SSLError as error:
        raise CtnetError(
            f"the certificate of MLflow at {bare_uri(uri)} is not trusted ({_ssl_reason(error)}): "
            f"name a file with the certificate of who signed it by {CERTIFICATES}"
        ) from error
    except requests.RequestException as error:
        raise CtnetError(
            f"no MLflow server answers at {bare_uri(uri)} ({type(error).__name__}): "
            "start it, or set tracking.mlflow_uri to where it is"
        ) from error


def _ssl_reason(error: Exception) -> str:
    """Return what of an error of TLS says why, such as "certificate verify failed: ..."."""
    reason = re.search(r"SSLError\([^']*'(.+?)'", str(error))
    return (reason[1] if reason else str(error))[:_SHOWN_CHARACTERS]


def _probe_database(uri: str) -> None:
    """Fail soon where there is no database: MLflow itself goes on trying for two minutes."""
    try:
        engine = sqlalchemy.create_engine(uri)
    except ImportError as error:
        raise CtnetError(f"the database {bare_uri(uri)} needs a driver: {error}") from error
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _sqlite_file(uri: str) -> Path | None:
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database).absolute()
