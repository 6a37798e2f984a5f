"""An open-loop load generator: requests leave when they are due, whether or not earlier ones are answered.

Latency counts from when a request was due, so that a server that falls behind can't hide it.
"""

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_GRACE_SECONDS = 5  #: for the last answers
_MOST_CONNECTIONS = 256
Check = Callable[[int, Any], bool]  #: number of a body, the JSON of its answer -> whether that is right


@dataclass(frozen=True)
class Load:
    """What a load did; latencies in milliseconds."""

    rate: float
    """Requests a second that were due."""
    answered: float
    """Requests a second that were answered with 200."""
    failed: int
    """Requests that got another status, or none."""
    p50: float
    p95: float
    p99: float
    versions: dict[str, int]
    """Answers by version."""
    wrong: int = 0
    """Answers with 200 that the check refused."""

    @property
    def is_sustained(self) -> bool:
        """Whether the server kept up: nothing failed, and as many were answered as were due."""
        return not self.failed and self.answered > 0.95 * self.rate


def offer(
    host: str,
    port: int,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int = 0,
    path: str = "/score",
    is_right: Check = lambda body, answer: True,
) -> Load:
    """Send JSON bodies at random moments (Poisson).

    Args:
        host: This machine's own address.
        port: Port of the server.
        bodies: Taken in turns.
        rate: Requests a second.
        seconds: How long.
        seed: Of the moments.
        path: Where they go.
        is_right: Asked of each answer with 200, by the number of its body.
    """
    return asyncio.run(_Offering(host, port, bodies, path, is_right).run(rate, seconds, seed))


def find_knee(
    host: str,
    port: int,
    bodies: Sequence[bytes],
    seconds: float,
    most_p99: float,
    first_rate: float = 20.0,
    path: str = "/score",
) -> list[Load]:
    """Offer rising rates until the server no longer keeps up; the last load but one is the knee.

    Args:
        host: This machine's own address.
        port: Port of the server.
        bodies: Taken in turns.
        seconds: Of each rate.
        most_p99: Milliseconds; a p99 beyond it counts as not keeping up.
        first_rate: Requests a second to begin with.
        path: Where they go.
    """
    offer(host, port, bodies, first_rate, 1.0, path=path)  # what is made at first requests
    loads: list[Load] = []
    rate = first_rate
    while not loads or (loads[-1].is_sustained and loads[-1].p99 <= most_p99):
        loads.append(offer(host, port, bodies, rate, seconds, len(loads), path))
        rate *= 1.25
    return loads


def knee(loads: Sequence[Load], most_p99: float) -> Load | None:
    """Return the highest load that the server kept up with; None: it kept up with none."""
    good = [load for load in loads if load.is_sustained and load.p99 <= most_p99]
    return good[-1] if good else None


class _Offering:
    """Connections that are kept open, and what came back."""

    def __init__(self, host: str, port: int, bodies: Sequence[bytes], path: str, is_right: Check) -> None:
        self._address = (host, port)
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._slots = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._latencies: list[float] = []
        self._versions: Counter[str] = Counter()
        self._is_right = is_right
        self._failed = self._wrong = 0

    async def run(self, rate: float, seconds: float, seed: int) -> Load:
        moments = random.Random(seed)  # noqa: S311
        loop, sent, due = asyncio.get_running_loop(), 0, 0.0
        started = loop.time()
        tasks = set()
        while (due := due + moments.expovariate(rate)) < seconds:
            if (wait := started + due - loop.time()) > 0:
                await asyncio.sleep(wait)
            tasks.add(asyncio.create_task(self._send(sent % len(self._requests), started + due)))
            sent += 1
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
            for task in late:
                task.cancel()
            self._failed += len(late)
        for _, writer in self._idle:
            writer.close()
        p50, p95, p99 = (1000 * np.percentile(self._latencies or [np.inf], [50, 95, 99])).tolist()
        answered = sum(self._versions.values()) / seconds
        versions = dict(self._versions)
        return Load(sent / seconds, answered, self._failed, p50, p95, p99, versions, self._wrong)

    async def _send(self, body: int, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._slots:
                status, content = await self._exchange(self._requests[body])
        except (OSError, asyncio.IncompleteReadError, ValueError):
            status, content = 0, b""
        if status != 200:
            self._failed += 1
            return
        self._latencies.append(loop.time() - due)
        answer = json.loads(content)
        self._versions[str(answer.get("version", ""))] += 1
        self._wrong += not self._is_right(body, answer)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(maxsplit=2)[1]), body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return an idle connection that the server has not closed, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._address, limit=1 << 22)
