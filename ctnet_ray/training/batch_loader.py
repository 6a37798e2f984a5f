"""Which batches a run takes, in which order: each reading of a day, and several domains within a step.

What a run does with batches is an *activity*, named as people are shown it: "train 2022-05-01", "score
2022-05-02". An activity has readings, each of a domain; all readings of a domain stand in one stream.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import partial
from itertools import chain, starmap

from ctnet_ray.batches.batch import Batch
from ctnet_ray.batches.batching import batches
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.batches.frozen_layers import layers_folder
from ctnet_ray.runs.plan import RunPlan, StepLeft, StepPlan, beside_epochs
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.samples.reading import Reading, plan_reading
from ctnet_ray.samples.store import Manifest
from ctnet_ray.schema import LABEL
from ctnet_ray.training.context import Context

EVALUATION_BATCH_SIZE = 8192  #: rows of a scoring step on each worker

Readings = Sequence[tuple[str, Reading]]  #: domain and reading, in order
Activity = tuple[str, Readings]
Counted = Iterator[tuple[Batch, int]]  #: each batch with the rows that it holds over all workers


class BatchLoader:
    """Hands out the batches of activities.

    Args:
        run: Name of the run, for those who are shown its progress.
        model: What reads the batches.
        activities: What is read, in the order in which it is asked for.
        context: Where to read, and whom to tell.
        label: Column of the samples that is predicted.
    """

    def __init__(
        self,
        run: str,
        model: ModelSpec,
        activities: Iterable[Activity],
        context: Context,
        label: str = LABEL,
    ) -> None:
        self._run, self._context, self._activities = run, context, deque(activities)
        readings = _by_domain(chain.from_iterable(readings for _, readings in self._activities))
        inputs, layers = model.inputs, model.given_layers
        self._encoders = {domain: Encoder(inputs, domain, layers, label) for domain in readings}
        self._tables = {
            domain: context.tables(tuple(of_domain), self._encoders[domain].folding)
            for domain, of_domain in readings.items()
        }
        self._rows = 0
        self._total = sum(reading.day_rows for of_domain in readings.values() for reading in of_domain)

    def batches(self, activity: str) -> Iterator[Batch]:
        """Return an activity's batches, several domains' spread evenly; to be called once, in order."""
        following, readings = self._activities.popleft()
        assert following == activity, f"{following} comes before {activity}"  # noqa: S101
        for batch, rows in spread(starmap(self._stream, _by_domain(readings).items())):
            yield batch
            self._rows += rows
            self._context.progress(self._run, activity, self._rows, self._total)

    def _stream(self, domain: str, readings: Sequence[Reading]) -> tuple[int, Counted]:
        """Return the number of batches, and the batches."""
        tables, encoder = self._tables[domain], self._encoders[domain]
        return sum(reading.steps for reading in readings), (
            (batch, reading.total_rows(step))
            for reading in readings
            for step, batch in enumerate(batches(reading, tables, encoder))
        )


def training_activity(day: date) -> str:
    """Name the training of a step, by its day."""
    return f"train {day}"


def scoring_activity(day: date) -> str:
    """Name the scoring of a sample day."""
    return f"score {day}"


def run_readings(plan: RunPlan, left: Iterable[StepLeft], context: Context) -> Iterator[Activity]:
    """Say what the steps of a run that are left read."""
    for step, record in ((entry.step, entry.record) for entry in left):
        if step.train and not record:
            yield training_activity(step.day), [*_training_readings(plan, step, context)]
        if step.evaluate:
            yield scoring_reading(step.evaluate, context, given_layers(plan, step, step.evaluate))


def scoring_reading(day: Manifest, context: Context, frozen_layers: str = "") -> Activity:
    """Say what the scoring of a sample day reads.

    Args:
        day: The sample day.
        context: Which worker reads, of how many.
        frozen_layers: Folder of the frozen tower's layers; empty: none are given.
    """
    reading = plan_reading(
        day,
        rank=context.rank,
        world_size=context.world_size,
        batch_size=EVALUATION_BATCH_SIZE * context.world_size,
        frozen_layers=frozen_layers,
    )
    return scoring_activity(day.day), [(day.domain, reading)]


def spread(streams: Iterable[tuple[int, Counted]]) -> Counted:
    """Merge streams of known lengths so that each is spread evenly over the whole.

    Streams of 4 and 2 batches: a a b a a b would leave the end to the second, so batch i of n stands at
    (i + 1/2) / n: a (1/8), b (1/4), a (3/8), a (5/8), b (3/4), a (7/8).
    """
    placed = [_placed(order, count, stream) for order, (count, stream) in enumerate(streams)]
    for _, _, part in heapq.merge(*placed, key=lambda entry: entry[:2]):
        yield part


def _placed(order: int, count: int, stream: Counted) -> Iterator[tuple[float, int, tuple[Batch, int]]]:
    """Give each batch of a stream its place between 0 and 1, and the stream's order for equal places."""
    for index, part in enumerate(stream):
        yield (index + 0.5) / count, order, part


def _by_domain(readings: Iterable[tuple[str, Reading]]) -> dict[str, list[Reading]]:
    grouped: dict[str, list[Reading]] = defaultdict(list)
    for domain, reading in readings:
        grouped[domain].append(reading)
    return grouped


def _training_readings(plan: RunPlan, step: StepPlan, context: Context) -> Iterator[tuple[str, Reading]]:
    config = plan.training
    read = partial(plan_reading, rank=context.rank, world_size=context.world_size)
    for days, epochs, batch_size in (
        (step.train, config.epochs, config.batch_size),
        (step.beside, beside_epochs(config), config.beside_batch_size or config.batch_size),
    ):
        for day in days:
            layers = given_layers(plan, step, day)
            for epoch in range(epochs):
                seed = (config.seed, step.day.toordinal(), day.day.toordinal(), epoch)
                yield day.domain, read(day, batch_size=batch_size, seed=seed, frozen_layers=layers)


def given_layers(plan: RunPlan, step: StepPlan, day: Manifest) -> str:
    """Return the folder of the frozen tower's layers for a day that a step reads; empty: none are given."""
    if not (plan.frozen_layers and step.source):
        return ""
    return layers_folder(plan.frozen_layers, step.source.uri, day)
