"""Threads that score: a bounded number of requests waits for them, and what is beyond is refused at once.

A thread that is free takes light requests together, its share of what waits: none waits for others to come.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ctnet_ray.serving.http.metrics import ServingMetrics

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class OverloadedError(Exception):
    """As many requests wait as may."""


@dataclass(frozen=True, eq=False)
class _Job(Generic[Asked, Answer]):
    asked: Asked
    future: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop

    def settle(self, outcome: Answer | BaseException) -> None:
        self.loop.call_soon_threadsafe(_settle, self.future, outcome)


class ScoringThreads(Generic[Asked, Answer]):
    """Threads that take the requests of an event loop in the order in which they came.

    Args:
        answer: Answers requests, and gives each one's place and answer as soon as it is there; called in
            these threads. Requests that a failure leaves without an answer are given to it again, alone.
        threads: Their number.
        most_waiting: Requests that may wait, beside those that are being answered.
        most_together: Requests that a thread takes at once.
        is_light: Whether a request may be taken together with others.
        metrics: Where waiting requests are shown.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Iterable[tuple[int, Answer]]],
        threads: int,
        most_waiting: int,
        most_together: int,
        is_light: Callable[[Asked], bool],
        metrics: ServingMetrics,
    ) -> None:
        self._answer, self._metrics = answer, metrics
        self._most_waiting, self._most_together, self._is_light = most_waiting, most_together, is_light
        self._changed = threading.Condition()  # holds all below
        self._waiting: deque[_Job[Asked, Answer]] = deque()
        self._idle = threads
        self._is_ended = False
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
        loop = asyncio.get_running_loop()
        job = _Job(asked, loop.create_future(), loop)
        with self._changed:
            if len(self._waiting) >= self._most_waiting + self._idle:
                raise OverloadedError
            self._waiting.append(job)
            self._show()
            self._changed.notify()
        return await job.future

    def are_alive(self) -> bool:
        """Whether all threads still take requests."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the threads after the requests that wait."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _show(self) -> None:
        self._metrics.show_waiting(max(0, len(self._waiting) - self._idle))

    def _walk(self) -> None:
        while jobs := self._take():
            self._settle_all(jobs)
            with self._changed:
                self._idle += 1

    def _take(self) -> list[_Job[Asked, Answer]]:
        """Wait for a request, and return it with light ones behind it; none: this is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ended)
            if not self._waiting:
                return []
            share = min(len(self._waiting) // len(self._threads), self._most_together)
            jobs = [self._waiting.popleft()]
            if self._is_light(jobs[0].asked):
                while len(jobs) < share and self._is_light(self._waiting[0].asked):
                    jobs.append(self._waiting.popleft())
            self._idle -= 1
            self._show()
            return jobs

    def _settle_all(self, jobs: Sequence[_Job[Asked, Answer]]) -> None:
        left, failure = dict(enumerate(jobs)), None
        try:
            for place, answer in self._answer([job.asked for job in jobs]):
                left.pop(place).settle(answer)
        except BaseException as error:  # a request's failure, not the thread's
            failure = error
        for job in left.values():
            if len(jobs) > 1:
                self._settle_all([job])
            else:
                job.settle(failure or RuntimeError("a request was not answered"))


def _settle(future: asyncio.Future, outcome: object) -> None:
    if future.cancelled():
        return  # the client has gone
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
