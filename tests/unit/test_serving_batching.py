"""Requests that wait together are scored together, and answered as each alone."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.serving.http.answer import Answer, Body, answer
from ctnet_ray.serving.http.batching import MOST_CANDIDATES, answers, may_share_a_table
from ctnet_ray.serving.http.metrics import ServingMetrics
from ctnet_ray.serving.http.request import ARROW, JSON, Limits
from ctnet_ray.serving.http.scoring_threads import OverloadedError, ScoringThreads
from tests.unit.serving_world import TWO, FormulaScorer, serving

LIMITS = Limits()


def body(asked: Any, media: str = JSON, accept: str = JSON) -> Body:
    return Body(asked if isinstance(asked, bytes) else json.dumps(asked).encode(), media, accept)


def arrow() -> bytes:
    table = pa.table({"item": ["a"], "price": [3.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def in_order(answered: Iterable[tuple[int, Answer]]) -> list[Answer]:
    return [one for _, one in sorted(answered, key=itemgetter(0))]


ALIKE = [
    {"user": {"user": 7}, "candidates": {"item": ["a", "b"], "price": [0.5, 1]}},
    {"user": {"user": "x"}, "candidates": [{"price": 2, "item": 3}]},
    {"user": {"user": None}, "candidates": {"price": [None, 4, 5], "item": [1, 2, 3]}},
]
OTHERS = [
    {"candidates": {"price": [9]}},
    {"user": {"user": 7}, "candidates": {"price": ["dear"], "item": [1]}},
    b"no JSON",
    {"user": {"user": 1}, "candidates": {"item": [1] * 33, "price": [2.0] * 33}},
]
BODIES = [*map(body, [*OTHERS[:2], *ALIKE, *OTHERS[2:]]), body(ALIKE[0], accept=ARROW), body(arrow(), ARROW)]


def test_each_is_answered_as_it_is_alone_and_those_alike_are_one_table() -> None:
    together = FormulaScorer(1)

    answered = in_order(answers(together, BODIES, LIMITS))

    assert answered == [answer(FormulaScorer(1), one, LIMITS) for one in BODIES]
    assert [one.status for one in answered] == [200, 422, 200, 200, 200, 400, 200, 200, 200]
    asked = [(user, len(columns["price"])) for user, columns in together.asked]
    # The three alike and the one that wants Arrow: 2 + 1 + 3 + 2 candidates, users among the columns.
    assert asked == [({}, 8), ({"user": 1}, 33), ({}, 1), ({}, 1)]
    assert together.asked[0][1]["user"] == [7, 7, "x", None, None, None, 7, 7]
    assert MOST_CANDIDATES == 32


def test_where_a_table_of_all_can_t_be_scored_each_is_scored_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FormulaScorer, rows: object) -> np.ndarray:
        raise CtnetError("field 'user': its values are not alike")

    monkeypatch.setattr(FormulaScorer, "score", refuse)
    scorer, alike = FormulaScorer(2), [body(one) for one in ALIKE]
    assert in_order(answers(scorer, alike, LIMITS)) == [
        answer(FormulaScorer(2), one, LIMITS) for one in alike
    ]
    assert [user for user, _ in scorer.asked] == [one["user"] for one in ALIKE]


def test_what_may_be_scored_with_others_is_told_by_its_body() -> None:
    assert may_share_a_table(body(TWO))
    assert not may_share_a_table(body(arrow(), ARROW))
    assert not may_share_a_table(body(b" " * 40_000))
    assert not may_share_a_table(body({"candidates": {"item": [1] * 1100}}))


def test_long_lists_of_a_user_are_not_repeated_for_each_candidate() -> None:
    long, short = (
        body({"user": {"clicked": [1] * length}, "candidates": {"item": [1] * 30}}) for length in (90, 9)
    )
    scorer = FormulaScorer(1)
    assert len(in_order(answers(scorer, [long, short, long, short], LIMITS))) == 4
    assert [len(columns["item"]) for _, columns in scorer.asked] == [60, 30, 30]


def test_an_answer_is_there_before_heavier_ones_are_made() -> None:
    scorer = FormulaScorer(1)
    answered = answers(scorer, BODIES, LIMITS)
    assert [next(answered)[0] for _ in range(2)] == [1, 5]  # what is wrong needs no scores
    assert not scorer.asked
    assert [next(answered)[0] for _ in range(4)] == [2, 3, 4, 7]
    assert len(scorer.asked) == 1


def test_requests_that_wait_for_a_thread_are_one_table() -> None:
    with serving() as server:
        scorer = server.registry.scorers[0]
        tried = scorer.began
        scorer.may_answer.clear()
        threads = [threading.Thread(target=server.score, args=(TWO,)) for _ in range(6)]
        threads[0].start()
        while scorer.began == tried:
            time.sleep(0.01)
        for thread in threads[1:]:
            thread.start()
        while "ctnet_waiting_requests 5.0" not in server.get("/metrics"):
            time.sleep(0.01)
        scorer.may_answer.set()
        for thread in threads:
            thread.join()
    assert [len(columns["item"]) for _, columns in scorer.asked[tried:]] == [2, 10]


def submit_all(
    answer_all: Callable[[Sequence[int]], Iterable[tuple[int, str]]],
    asked: Sequence[int],
    most_waiting: int = 100,
) -> tuple[list[object], list[list[int]], float]:
    """Submit whole numbers to one thread, the first of which is held until all others wait.

    Returns:
        What came of each, what the thread took each time, and how many were shown to wait while it was held.
    """
    calls: list[list[int]] = []
    held = threading.Event()
    metrics = ServingMetrics()

    def answer_some(some: Sequence[int]) -> Iterator[tuple[int, str]]:
        calls.append([*some])
        if len(calls) == 1:
            assert held.wait(10)
        yield from answer_all(some)

    async def submit() -> tuple[list[object], float]:
        tasks = [asyncio.create_task(threads.submit(asked[0]))]
        while not calls:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(threads.submit(number)) for number in asked[1:]]
        await asyncio.sleep(0)
        waiting = len(threads._waiting)
        held.set()
        return await asyncio.gather(*tasks, return_exceptions=True), waiting

    threads: ScoringThreads[int, str] = ScoringThreads(
        answer_some, 1, most_waiting, 4, lambda number: number < 100, metrics
    )
    try:
        outcomes, waiting = asyncio.run(submit())
        return outcomes, calls, waiting
    finally:
        threads.stop()


def texts(some: Sequence[int]) -> Iterable[tuple[int, str]]:
    return enumerate(map(str, some))


def test_a_thread_takes_light_ones_together_and_a_heavy_one_alone() -> None:
    outcomes, calls, waiting = submit_all(texts, [0, 1, 2, 3, 4, 5, 100, 6, 7])
    assert outcomes == ["0", "1", "2", "3", "4", "5", "100", "6", "7"]
    assert calls == [[0], [1, 2, 3, 4], [5], [100], [6, 7]]
    assert waiting == 8


def test_as_many_may_wait_as_are_said_beside_those_that_are_answered() -> None:
    outcomes, _, waiting = submit_all(texts, range(6), most_waiting=3)
    assert outcomes[:4] == ["0", "1", "2", "3"]
    assert [type(one) for one in outcomes[4:]] == [OverloadedError] * 2
    assert waiting == 3


def test_one_that_fails_takes_no_other_with_it() -> None:
    def invert(some: Sequence[int]) -> Iterator[tuple[int, str]]:
        for place, number in enumerate(some):
            yield place, str(6 // number)

    outcomes, calls, _ = submit_all(invert, [1, 2, 0, 3])
    assert [str(one) for one in outcomes] == ["6", "3", "integer division or modulo by zero", "2"]
    # What had its answer is not asked again.
    assert calls == [[1], [2, 0, 3], [0], [3]]


def test_one_that_is_passed_over_is_no_silence() -> None:
    outcomes, _, _ = submit_all(lambda some: [(0, "first")], [1, 2, 3])
    assert [str(one) for one in outcomes] == ["first", "first", "first"]
    outcomes, _, _ = submit_all(lambda some: [], [1])
    assert [str(one) for one in outcomes] == ["a request was not answered"]
