"""Ray Serve: replicas that score over HTTP. Serve places, watches and replaces them; requests don't pass it.

Each replica listens on the port itself, and the kernel spreads connections over those of a machine
(SO_REUSEPORT): Serve's own proxy costs more than scoring does (docs/serving.md).
"""

import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from ray import serve
from ray.serve._private import replica as serve_replica
from ray.serve.schema import LoggingConfig

from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError, LostRayError
from ctnet_ray.serving.http.access import check_host
from ctnet_ray.serving.http.app import ScoringApp
from ctnet_ray.serving.http.metrics import MULTIPROCESS, ServingMetrics
from ctnet_ray.serving.http.request import Limits
from ctnet_ray.serving.http.served_model import ModelSource, ServedModel, keep_looking

_START_SECONDS = 30  #: for a server to listen, after its model is loaded
_END_SECONDS = 10  #: for requests that are being answered, when a replica ends
_HEALTH_SECONDS = 5
SERVE_AGAIN = "start the same command again"  #: told where Ray is lost


@dataclass(frozen=True)
class ServingOptions:
    """How a model is served."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port of all replicas."""
    replicas: int = 1
    """Processes that score."""
    threads: int = 1
    """Threads of each that score, a CPU each."""
    most_waiting: int = 100
    """Requests that wait in a replica; what is beyond gets 503."""
    most_together: int = 16
    """Requests of few candidates that a thread scores at once, where so many wait."""
    look_seconds: float = 10.0
    """Seconds between two looks at what the model's name means."""
    keep_alive_seconds: int = 75
    """Seconds that an idle connection stays open: longer than whoever stands in front keeps his."""
    limits: Limits = field(default_factory=Limits)
    """How large a request may be."""
    token: bytes | None = None
    """Digest of the access token (`access.read_token`); None: none is asked for."""

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            CtnetError: A number is too small; the message names the option.
        """
        least = {
            "port": 1,
            "replicas": 1,
            "threads": 1,
            "most_waiting": 0,
            "most_together": 1,
            "look_seconds": 0.1,
            "keep_alive_seconds": 1,
        }
        for name, smallest in least.items():
            if (given := getattr(self, name)) < smallest:
                raise CtnetError(f"--{name} can't be {given}: give {smallest} or more")


class Replica:
    """A process that scores.

    Args:
        source: Where versions come from.
        options: How they are served.

    Raises:
        CtnetError: The first version can't be loaded, or the port is taken.
    """

    def __init__(self, source: ModelSource, options: ServingOptions) -> None:
        _close_serve_s_port()
        torch.set_num_threads(1)  # each thread that scores has a CPU
        _forget_the_dead()
        metrics = ServingMetrics()
        model = ServedModel(source, metrics)
        self._app = ScoringApp(
            model,
            metrics,
            options.limits,
            options.threads,
            options.most_waiting,
            options.most_together,
            options.token,
        )
        config = uvicorn.Config(
            self._app.asgi(),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=options.keep_alive_seconds,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        self._server = uvicorn.Server(config)
        listening = listen(options.host, options.port)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), daemon=True)
        self._thread.start()
        self._ended = threading.Event()
        keep_looking(model.look, options.look_seconds, self._ended)
        self._wait()

    def check_health(self) -> None:
        """Tell Serve whether to replace this replica.

        Raises:
            RuntimeError: It answers no more.
        """
        if not self._thread.is_alive() or not self._app.is_healthy():
            raise RuntimeError("a thread of the server has ended")

    def __call__(self) -> None:
        """Serve wants a deployment to be callable; nobody calls it."""

    def __del__(self) -> None:
        """End the server, after the requests that it is answering."""
        if hasattr(self, "_ended"):
            self._ended.set()
            self._server.should_exit = True
            self._thread.join(_END_SECONDS)

    def _wait(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise CtnetError("the HTTP server did not start: see the replica's log")
            time.sleep(0.01)


@contextmanager
def serving(source: ModelSource, options: ServingOptions, name: str = "ctnet") -> Iterator[str]:
    """Serve a model until the block ends.

    Args:
        source: Where versions come from; it goes to the replicas.
        options: How they are served.
        name: Of the Serve application.

    Yields:
        The address, http://HOST:PORT.

    Raises:
        CtnetError: Ray does not start or is lost, the port is taken, or the model can't be loaded.
    """
    check_host(options.host, options.token)
    check_port(options.host, options.port)
    started_here = not ray.is_initialized()
    ensure_ray(ComputeConfig(workers=options.replicas, cpus_per_worker=options.threads))
    counts = tempfile.mkdtemp(prefix="ctnet-serve-")
    is_lost = False
    try:
        while_ray_lives(partial(_deploy, source, options, name, counts), SERVE_AGAIN)
        host = f"[{options.host}]" if ":" in options.host else options.host
        yield f"http://{host}:{options.port}"
    except LostRayError:
        is_lost = True  # and would be waited for
        raise
    finally:
        if not is_lost:
            serve.delete(name)
            if started_here:
                ray.shutdown()
        shutil.rmtree(counts, ignore_errors=True)


def check_port(host: str, port: int) -> None:
    """Refuse a port that somebody listens on: replicas share theirs, and would share it with others too.

    Raises:
        CtnetError: It is taken.
    """
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return
    raise CtnetError(f"port {port} of {host} is taken: end what listens there, or give another --port")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens beside those of other replicas.

    Raises:
        CtnetError: The address is none of this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CtnetError(f"can't listen on {host}, port {port} ({error.strerror}): give another") from error
    return listening


def _deploy(source: ModelSource, options: ServingOptions, name: str, counts: str) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    quiet = LoggingConfig(log_level=logging.WARNING, enable_access_log=False)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    actor: dict[str, Any] = {"num_cpus": options.threads}
    if options.replicas > 1:
        actor["runtime_env"] = {"env_vars": {MULTIPROCESS: counts}}
    deployment = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=options.replicas,
        ray_actor_options=actor,
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=_END_SECONDS,
        max_constructor_retry_count=1,
        logging_config=quiet,
    )
    try:
        serve.run(deployment.bind(source, options), name=name, route_prefix=None)
    except RuntimeError as error:
        raise _reason(name) from error


def _close_serve_s_port() -> None:
    """Let Serve's replica open no port for calls of other deployments.

    It would listen on all interfaces, ask for no token, and unpickle what it gets (Ray 2.60); nobody here
    calls it.
    """
    serve_replica.add_port_to_grpc_server = lambda server, address: 0


def _reason(name: str) -> CtnetError:
    """Return why the replicas did not start: what one of them said, from Serve's account of it."""
    told = serve.status().applications.get(name)
    text = "\n".join(one.message for one in told.deployments.values()) if told else ""
    said = re.findall(r"^(?:[\w.]*\.)?(\w+(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    ours = [reason for kind, reason in said if kind in ("CtnetError", "InputError")]
    reason = ours[-1] if ours else (": ".join(said[-1]) if said else "see Serve's logs")
    return CtnetError(reason if ours else f"the replicas did not start ({reason})")


def _forget_the_dead() -> None:
    """Let gauges of replicas that died count no more."""
    folder = os.environ.get(MULTIPROCESS)
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for file in Path(folder).glob("gauge_live*_*.db"):
        process = int(file.stem.rpartition("_")[2])
        if not psutil.pid_exists(process):
            mark_process_dead(process, folder)
