"""Ray: the cluster that is named, or one on this machine."""

import logging
import math
import os
import signal
import socket
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psutil
import ray
from ray._private import ray_constants, worker
from ray.exceptions import AuthenticationError, RayError

from ctnet_ray.cluster.liveness import while_ray_starts
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.stream import READING_CPUS
from ctnet_ray.terminal import open_console

_NOT_STARTED = (RuntimeError, OSError, RayError)  #: a node that is too slow is a plain `Exception` of Ray's
_END_SECONDS = 5.0  #: that a process needs at most to end when it is killed
_LONGEST_REASON = 150  #: characters of an error of Ray's that are worth reading


def ensure_ray(compute: ComputeConfig) -> None:
    """Join the Ray cluster that RAY_ADDRESS or `ray job submit` names, or start one on this machine.

    Raises:
        CtnetError: The cluster does not answer or refuses, or this machine can't hold the workers.
    """
    workers = compute.fewest_workers
    needs = {"CPU": workers * compute.cpus_per_worker, "GPU": float(workers * compute.gpu)}
    if not ray.is_initialized():
        if not os.environ.get("CTNET_RAY_LOGS"):
            worker.print_to_stdstream = _say_in_a_line  # nothing public lets Ray be brief
        if os.environ.get("RAY_ADDRESS"):
            _join(os.environ["RAY_ADDRESS"])
        else:
            _start(compute)
    resources = ray.cluster_resources()
    for resource, amount in needs.items():
        if amount <= resources.get(resource, 0):
            continue
        lack = f"{workers} workers need {amount:g} {resource}s and there are {resources.get(resource, 0):g}"
        if not os.environ.get("RAY_ADDRESS"):
            raise CtnetError(f"{lack}: lower compute.workers or compute.cpus_per_worker, or use a cluster")
        # An autoscaling cluster may grow to it, one that does not never will: Ray waits without a word.
        open_console(stderr=True).log(f"{lack}: waiting for the cluster to grow")


def _join(address: str) -> None:
    try:
        ray.init(**_quiet())
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        reason = str(error).splitlines()[0]
        raise CtnetError(
            f"no way into the Ray cluster at {address} ({reason}): start it, see that RAY_AUTH_MODE and the "
            "token are the cluster's, or unset RAY_ADDRESS"
        ) from error


def _start(compute: ComputeConfig) -> None:
    there = os.cpu_count() or 1
    workers = min(compute.workers, max(compute.fewest_workers, int(there / compute.cpus_per_worker)))
    cpus = workers * compute.cpus_per_worker
    if cpus > there:
        raise CtnetError(
            f"the workers need {cpus:g} CPUs and this machine has {there}: lower compute.workers or "
            "compute.cpus_per_worker, or use a cluster"
        )
    # Workers may take all cores: reading, which is little, gets CPUs of Ray's beyond those that there are.
    groups = int(there / cpus)
    logical = math.ceil(groups * (cpus + workers * READING_CPUS))
    with _environment():
        _init(max(there, logical))


def _init(cpus: int) -> None:
    """Start Ray; where that takes it too long, once more.

    Raises:
        CtnetError: It does not start in time.
    """
    before = set(psutil.Process().children())
    if threading.current_thread() is threading.main_thread():
        # As Ray does where it is started in the main thread: what it started ends with this process.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    for is_last in (False, True):
        try:
            # "local": not a cluster that somebody has started here for other work.
            init = partial(ray.init, "local", num_cpus=cpus, include_dashboard=False, **_quiet())
            while_ray_starts(init)
            return
        except Exception as error:
            if not isinstance(error, _NOT_STARTED) and type(error) is not Exception:
                raise
            _end_all(set(psutil.Process().children()) - before)
            if is_last:
                raise _too_slow(error) from error


def _end_all(processes: set[psutil.Process]) -> None:
    """End what a start that failed left: its processes would compete with the next one's."""
    ray.shutdown()
    ended = []
    for process in processes:
        with suppress(psutil.Error):
            if "/ray/" in " ".join(process.cmdline()):
                process.kill()
                ended.append(process)
    psutil.wait_procs(ended, timeout=_END_SECONDS)


def _too_slow(error: Exception) -> CtnetError:
    reason = " ".join(str(error).split())[:_LONGEST_REASON]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return CtnetError(
        f"Ray did not start on {socket.gethostname()}, tried twice ({reason}; {load}): "
        "run the same command again when the machine has less to do"
    )


@contextmanager
def _environment() -> Iterator[None]:
    """Set what a Ray that is started here goes by.

    It listens on 127.0.0.1 alone: Ray does so where it takes no other machines in, as on other systems than
    Linux. Its workers have the niceness of this command: Ray's own, 15, starves them beside other work.
    """
    os.environ.setdefault(ray_constants.RAY_WORKER_NICENESS, "0")
    switch, given = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    os.environ[switch] = "0"  # for the processes that are started
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, where it was read when Ray was imported
    try:
        yield
    finally:
        del os.environ[switch]
        ray_constants.ENABLE_RAY_CLUSTER = given


def _say_in_a_line(message: dict[str, Any], ignore_prefix: bool) -> None:
    """Say what Ray tells drivers, such as that a process died, without pages of its logs."""
    del ignore_prefix
    text = next(iter("\n".join(message["lines"]).strip().splitlines()), "")
    open_console(stderr=True).log(
        f"Ray: {textwrap.shorten(text, _LONGEST_REASON, placeholder=' ...')}", markup=False
    )


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": bool(os.environ.get("CTNET_RAY_LOGS")), "logging_level": logging.ERROR}
