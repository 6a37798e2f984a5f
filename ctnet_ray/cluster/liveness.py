"""Whether the Ray that a command goes by is still there, and what is said when it is not.

A driver that has lost Ray waits for it, until Ray's C++ ends the process: without its GCS after a minute,
without its raylet some two seconds later and without a word. So what needs Ray is done in a thread beside,
and the calling one looks after Ray meanwhile, and is quick to say so. What a command started ends with it.
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

import psutil
import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    RpcError,
    WorkerCrashedError,
)
from ray.train import ControllerError

from ctnet_ray.errors import CtnetError, LostRayError

Result = TypeVar("Result")
LOOK_SECONDS = 0.05  #: between two looks at Ray's processes
ASK_SECONDS = 5.0  #: between two calls at the ports of a cluster that was joined
SILENCE_SECONDS = 40.0  #: after which such a cluster is lost; Ray aborts the process at 60 s
_SEEN_SECONDS = 3.0  #: in which a process of Ray's is seen to be gone after the first error of that
_LOSSES = (
    *(RayActorError, RaySystemError, RpcError, WorkerCrashedError, NodeDiedError),
    *(LocalRayletDiedError, ObjectLostError),
)
_FAILS_SECONDS = 60.0  #: in which Ray's start sees that its raylet is gone: after 30 s of waiting for it
_WAY_OUT = "the same command goes on from the last whole day"
_LONGEST_REASON = 150  #: characters of an error of Ray's that are worth reading


class Liveness:
    """What there is of Ray now: processes that this one started, or ports of a cluster that it joined.

    Args:
        starts: Whether Ray is starting: its processes are then looked for again and again.
    """

    def __init__(self, starts: bool = False) -> None:
        self._starts, self._before = starts, psutil.Process().children() if starts else []
        self._started = self._processes()
        self._ports = _ports() if ray.is_initialized() and not self._started else []
        self._asked = self._answered = time.monotonic()

    def loss(self) -> str:
        """Return what of Ray is gone; empty: nothing."""
        if self._starts:
            self._started = self._processes() | self._started
        for name, process in self._started.items():
            if not _runs(process):
                return f"its {name} ended (killed, or out of memory?)"
        now = time.monotonic()
        if self._ports and now - self._asked > ASK_SECONDS:
            silent = [port for port in self._ports if not _answers(port)]
            self._asked = time.monotonic()
            self._answered = self._answered if silent else now
            if now - self._answered > SILENCE_SECONDS:
                return f"nothing answered at {silent[0]} for {SILENCE_SECONDS:.0f} s"
        return ""

    def _processes(self) -> dict[str, psutil.Process]:
        """Return the processes that a Ray of this process's can't do without."""
        there = ray_processes(psutil.Process(), ("gcs_server", "raylet"))
        return {name: process for name, process in there.items() if process not in self._before}


def while_ray_lives(act: Callable[[], Result], way_out: str = _WAY_OUT) -> Result:
    """Do something that needs Ray, in a thread beside.

    Args:
        act: What to do; it is left alone where Ray is lost, or the caller interrupted.
        way_out: What people are told to do where Ray is lost.

    Returns:
        What it returned.

    Raises:
        LostRayError: Ray is gone, said within seconds where this process started it, within a minute where it
            joined a cluster.
        CtnetError: A process of Ray's died, and what it did can't go on without it.
    """
    liveness, future = Liveness(), Future[Result]()
    threading.Thread(target=_fulfil, args=(future, act), daemon=True).start()
    while not wait([future], LOOK_SECONDS).done:
        if loss := liveness.loss():
            raise _lost(loss, way_out)
    error = future.exception()
    if error and is_loss(error):
        raise _lost(_seen(liveness), way_out, error) from error
    return future.result()


def while_ray_starts(start: Callable[[], Result]) -> Result:
    """Start Ray, in a thread beside: where its GCS dies meanwhile, it waits for that until it is aborted.

    Args:
        start: What starts it.

    Returns:
        What it returned.

    Raises:
        LostRayError: A process of Ray's is gone, and the start does not end by itself.
        BaseException: What `start` raises.
    """
    liveness, future = Liveness(starts=True), Future[Result]()

    def start_and_stay() -> None:
        if _fulfil(future, start):
            # Linux ends what a thread has started when the thread ends, where it was asked to, as by Ray.
            threading.Event().wait()

    threading.Thread(target=start_and_stay, daemon=True).start()
    while not wait([future], LOOK_SECONDS).done:
        if loss := liveness.loss():
            # A start without its raylet fails by itself, and is tried again; one without a GCS is aborted.
            patience = _SEEN_SECONDS if "gcs_server" in loss else _FAILS_SECONDS
            if not wait([future], patience).done:
                raise _lost(loss, _WAY_OUT)
    return future.result()


def _fulfil(future: Future[Result], act: Callable[[], Result]) -> bool:
    """Do something for a thread that waits for it; return whether it was done."""
    try:
        future.set_result(act())
    except BaseException as error:  # raised again in the calling thread
        future.set_exception(error)
        return False
    return True


def is_loss(error: BaseException) -> bool:
    """Whether an error says that a process of Ray's is gone."""
    cause = error.controller_failure if isinstance(error, ControllerError) else error
    return isinstance(cause, _LOSSES)


def ray_processes(driver: psutil.Process, names: tuple[str, ...]) -> dict[str, psutil.Process]:
    """Return the processes of Ray with these names that a driver started."""
    processes = {}
    for process in driver.children():
        with suppress(psutil.Error):
            if process.name() in names:
                processes[process.name()] = process
    return processes


def _seen(liveness: Liveness) -> str:
    """Return what of Ray is gone, or will be seen to be in a moment."""
    until = time.monotonic() + _SEEN_SECONDS
    while not (loss := liveness.loss()) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return loss


def _lost(loss: str, way_out: str, error: BaseException | None = None) -> CtnetError:
    """Say that Ray is gone, or that a process of it is."""
    if not loss:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        return CtnetError(f"a process of Ray's died (killed, or out of memory?): {way_out} ({reason})")
    return LostRayError(f"Ray is gone: {loss}: {way_out}")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _ports() -> list[tuple[str, int]]:
    """Return host and port of the cluster's GCS, and of the raylet of this process's node."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    node = context.get_node_id()
    raylets = [
        (entry["NodeManagerAddress"], entry["NodeManagerPort"])
        for entry in ray.nodes()
        if entry["NodeID"] == node
    ]
    return [(host.strip("[]"), int(port)), *raylets]


def _answers(port: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(port, timeout=2):
            return True
    except OSError:
        return False
