"""Passwords in tracking URIs are used, and stand in no record, parameter, artifact, message or database."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ctnet_ray.config import TrackingConfig
from ctnet_ray.credentials import bare_uri, hidden, without_credentials
from ctnet_ray.errors import CtnetError
from ctnet_ray.tracking import connection
from ctnet_ray.tracking.connection import talking
from ctnet_ray.tracking.tracker import Tracker
from jobs import command
from tests.unit.loop_world import World, walk

URIS = {
    "postgresql://anna:hunter2@db/mlflow": "postgresql://db/mlflow",
    "postgresql+psycopg2://anna:hunter2@db:5432/mlflow?sslmode=require": (
        "postgresql+psycopg2://db:5432/mlflow?sslmode=require"
    ),
    "postgresql://db/mlflow?user=anna&password=hunter2": "postgresql://db/mlflow",
    "postgresql://anna:a/b?hunter2@db/mlflow": "postgresql://db/mlflow",
    "postgresql://anna:b@hunter2@db/mlflow?sslpassword=hunter2": "postgresql://db/mlflow",
    "mysql+pymysql://anna:100%25hunter2@db/mlflow": "mysql+pymysql://db/mlflow",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dhunter2": "mssql+pyodbc:///",
    "https://anna:hunter2@mlflow.example:5000/api": "https://mlflow.example:5000/api",
    "http://hunter2@mlflow.example": "http://mlflow.example",
    "http://anna:a/hunter2@mlflow.example": "http://mlflow.example",
    "http://anna:1/hunter2@mlflow.example": "http://mlflow.example",
    "http://mlflow.example/x?a=1&token=hunter2&a=2": "http://mlflow.example/x?a=1&a=2",
}
HARMLESS = (
    *("sqlite:////data/a@b/mlflow.db", "sqlite:///mlflow.db", "http://127.0.0.1:5000", "databricks"),
    *("databricks://profile", "file:///data/a@b", "postgresql://db/mlflow?host=a&host=b", "/a:b@c"),
)


@pytest.mark.parametrize(("uri", "bare"), URIS.items())
def test_a_uri_without_its_secrets(uri: str, bare: str) -> None:
    assert bare_uri(uri) == bare
    assert without_credentials(f"could not connect to '{uri}', see {uri}") == (
        f"could not connect to '{bare}', see {bare}"
    )
    config = TrackingConfig(mlflow_uri=uri)
    assert config.mlflow_uri == uri
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize("uri", HARMLESS)
def test_a_uri_without_secrets_stays_as_it_is(uri: str) -> None:
    assert bare_uri(uri) == without_credentials(uri) == uri


@pytest.mark.parametrize("uri", URIS)
def test_a_message_that_quotes_a_part_of_the_uri(uri: str) -> None:
    quoted = uri.partition("://")[2].partition(":")[2].rpartition("@")[0]
    quoted = quoted or ("DRIVER=X;PWD=hunter2" if "odbc" in uri else "hunter2")
    said = hidden(f'no host "x" for {uri}; password {quoted} is wrong', uri)
    assert "hunter2" not in said
    with pytest.raises(CtnetError) as caught, talking(uri):
        raise OSError(f"no host for {quoted} in {uri}")
    assert "hunter2" not in str(caught.value)


def test_spaces_in_a_password() -> None:
    uri = "postgresql://anna:hunter 2 @ home@db/mlflow"
    assert bare_uri(uri) == "postgresql://db/mlflow"
    assert hidden(f"can't open {uri}", uri) == "can't open postgresql://db/mlflow"


def test_a_server_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow prints the URI that it was given at the end of a run."""
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    assert connection._tell_environment("http://anna:a%40b@h:5000") == "http://h:5000"
    told = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    assert told == ("anna", "a@b")


def test_a_run_and_its_picture_hold_no_secret(
    job_world: World, tmp_path: Path, empty_database: bytes
) -> None:
    uri = "postgresql://anna:hunter2@db/mlflow"
    config = job_world.config(first=0, last=1, tracking__mlflow_uri=uri, tracking__name="secretive")
    plan = walk(job_world.plan(config, folder=tmp_path / "models" / "run"))
    assert plan.record.config["tracking"]["mlflow_uri"] == "postgresql://db/mlflow"
    assert "hunter2" not in str(asdict(plan.record))
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "ctnet")
    tracker.publish(plan.folder)
    tracker.finish(plan.record.run, "FAILED", "no reason")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in written}
    assert {"run.json", "card.json", "_manifest.json", "mlflow.db"} <= names
    assert [path for path in written if b"hunter2" in path.read_bytes()] == []
    # The picture is there, with the rest of the URI.
    assert b"postgresql://db/mlflow" in (tmp_path / "mlflow.db").read_bytes()


def test_what_was_typed_is_told_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "postgresql://anna:hunter2@db/mlflow"
    monkeypatch.setattr(sys, "argv", ["compare", f"--tracking.mlflow_uri={uri}", "--output", "a=b", uri])
    assert command.typed("jobs.compare") == (
        "python -m jobs.compare --tracking.mlflow_uri=postgresql://db/mlflow --output a=b "
        "postgresql://db/mlflow"
    )

    def main(output: str = "") -> None:
        raise CtnetError(f"no way to {output}")

    def ended(*options: Any) -> str:
        with pytest.raises(SystemExit):
            command.run(main, "", args=options)
        return capsys.readouterr().err

    assert ended("--output", uri) == "error: no way to postgresql://db/mlflow\n"
    assert "hunter2" not in ended(f"--outputs={uri}")
