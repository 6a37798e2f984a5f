"""Threads that score: a bounded number of requests waits for them, and what is beyond is refused at once."""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ctnet_ray.serving.http.metrics import ServingMetrics

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class OverloadedError(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True)
class _Job(Generic[Asked, Answer]):
    asked: Asked
    future: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop


class ScoringThreads(Generic[Asked, Answer]):
    """Threads that answer requests of an event loop, in the order in which they came.

    Args:
        answer: Answers one request; called in these threads.
        threads: Their number.
        most_waiting: Requests that may wait, beside those that are being answered.
        metrics: Where waiting requests are shown.
    """

    def __init__(
        self, answer: Callable[[Asked], Answer], threads: int, most_waiting: int, metrics: ServingMetrics
    ) -> None:
        self._answer, self._metrics = answer, metrics
        self._jobs: queue.SimpleQueue[_Job[Asked, Answer] | None] = queue.SimpleQueue()
        self._most = most_waiting + threads
        self._inside = 0  # changed by the event loop alone
        self._threads = [
            threading.Thread(target=self._walk, name=f"score-{one}", daemon=True) for one in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, asked: Asked) -> Answer:
        """Return the answer to a request.

        Raises:
            OverloadedError: As many wait as may.
        """
        if self._inside >= self._most:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        job = _Job(asked, loop.create_future(), loop)
        self._inside += 1
        self._show()
        self._jobs.put(job)
        try:
            return await job.future
        finally:
            self._inside -= 1
            self._show()

    def are_alive(self) -> bool:
        """Whether all threads still take requests."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the threads after the requests that wait."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _show(self) -> None:
        self._metrics.show_waiting(max(0, self._inside - len(self._threads)))

    def _walk(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                outcome, failure = self._answer(job.asked), None
            except BaseException as error:  # the request's failure, not the thread's
                outcome, failure = None, error
            job.loop.call_soon_threadsafe(_settle, job.future, outcome, failure)


def _settle(future: asyncio.Future, outcome: object, failure: BaseException | None) -> None:
    if future.cancelled():
        return  # the client has gone
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(outcome)
