"""MLflow behind a password and TLS: a real server, as docs/cluster.md starts it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ctnet_ray.cluster.serving import listen
from ctnet_ray.errors import CtnetError
from ctnet_ray.tracking.tracker import Tracker
from tests.integration.nodes import wait_for
from tests.integration.tracked_runs import write_run

pytestmark = [
    pytest.mark.slow,  # the server takes most of a minute to start
    # MLflow's client opens artifacts' connections anew, and leaves them to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PASSWORD = "correct-horse-battery"  # noqa: S105
CERTIFICATE, KEY = "server.pem", "server.key"


@dataclass(frozen=True)
class Server:
    uri: str
    certificate: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    folder = tmp_path_factory.mktemp("secured")
    _sign(folder / CERTIFICATE, folder / KEY)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        "admin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    uri = f"https://127.0.0.1:{port}"
    typed = f"mlflow server --app-name basic-auth --host 127.0.0.1 --port {port} --workers 1".split()
    typed += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    typed += ["--artifacts-destination", f"{folder}/artifacts"]
    typed += ["--uvicorn-opts", f"--ssl-certfile {CERTIFICATE} --ssl-keyfile {KEY}"]
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": f"{folder}/auth.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the test",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with subprocess.Popen(
        [sys.executable, "-m", *typed],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: process.poll() is not None or _answers(uri, folder / CERTIFICATE))
            assert process.poll() is None
            yield Server(uri, folder / CERTIFICATE)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.send_signal(signal.SIGKILL)
            process.kill()


@pytest.fixture
def environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What the page says: user, password and certificate."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(server.certificate))
    return monkeypatch


def test_a_version_is_registered_and_compared_through_it(
    server: Server, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", "secured")
    tracker = Tracker(server.uri, "behind_tls")
    for _ in range(2):
        tracker.publish(str(tmp_path / "run"))
    reading = Tracker(server.uri, "behind_tls", create=False)
    versions = reading.versions("m.secured")
    assert [version.number for version in versions] == [1, 2, 3]
    assert reading.resolve_verified("m.secured@newest").number == 3


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("MLFLOW_TRACKING_PASSWORD", "wrong", "401"),
        ("MLFLOW_TRACKING_USERNAME", None, "401"),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", None, "certificate verify failed"),
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "/MLFLOW_TRACKING_SERVER_CERT_PATH.pem", "invalid path"),
    ],
)
def test_a_wrong_password_or_certificate_is_one_line(
    server: Server, environment: pytest.MonkeyPatch, name: str, value: str | None, line: str
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(CtnetError) as refused:
        Tracker(server.uri, "behind_tls")
    assert time.monotonic() - started < 30  # MLflow's own client tries for minutes
    said = str(refused.value)
    assert line in said
    assert name in said
    assert "\n" not in said
    assert PASSWORD not in said


def _sign(certificate: Path, key: Path) -> None:
    """Write a key, and a certificate for this machine that is signed by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _answers(uri: str, certificate: Path) -> bool:
    try:
        return requests.get(f"{uri}/health", verify=str(certificate), timeout=5).ok
    except requests.RequestException:
        return False
