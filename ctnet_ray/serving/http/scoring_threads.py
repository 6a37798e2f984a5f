"""Threads that score: a bounded number of requests waits for them, and what is beyond is refused at once.

A thread that is free takes light requests together, its share of what waits: none waits for others to come.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
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
        answer: Answers requests, one each; called in these threads. Where it fails for several, it is
            called for each.
        threads: Their number.
        most_waiting: Requests that may wait, beside those that are being answered.
        most_together: Requests that are answered at once.
        is_light: Whether a request may be answered at once with others.
        metrics: Where waiting requests are shown.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Sequence[Answer]],
        threads: int,
        most_waiting: int,
        most_together: int,
        is_light: Callable[[Asked], bool],
        metrics: ServingMetrics,
    ) -> None:
        self._answer, self._metrics = answer, metrics
        self._most_together, self._is_light = most_together, is_light
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
        job = self._jobs.get()
        while job is not None:
            jobs, following = self._together(job)
            for one, outcome in zip(jobs, self._outcomes(jobs), strict=True):
                one.loop.call_soon_threadsafe(_settle, one.future, outcome)
            job = following or self._jobs.get()

    def _together(self, job: _Job[Asked, Answer]) -> tuple[list[_Job[Asked, Answer]], _Job | None]:
        """Return a job with those behind it that are answered at once; and the next, if it was taken."""
        jobs = [job]
        share = min(self._jobs.qsize() // len(self._threads), self._most_together - 1)
        for _ in range(share if self._is_light(job.asked) else 0):
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._jobs.put(None)  # the end: this thread comes to it next
                break
            if not self._is_light(following.asked):
                return jobs, following
            jobs.append(following)
        return jobs, None

    def _outcomes(self, jobs: Sequence[_Job[Asked, Answer]]) -> list[Answer | BaseException]:
        """Return an answer to each, or why there is none: the request's failure, not the thread's."""
        try:
            return [*self._answer([job.asked for job in jobs])]
        except BaseException as error:
            if len(jobs) == 1:
                return [error]
        return [outcome for job in jobs for outcome in self._outcomes([job])]


def _settle(future: asyncio.Future, outcome: object) -> None:
    if future.cancelled():
        return  # the client has gone
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
