"""Batch scores on Ray Data: each worker opens the version once and scores parts of the input."""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import ray.data
from rich.progress import Progress

from ctnet_ray import storage
from ctnet_ray.cluster.liveness import while_ray_lives
from ctnet_ray.cluster.start import ensure_ray
from ctnet_ray.config import ComputeConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.batch_scores import Part, Scored, begin, find_parts, finish, score_part
from ctnet_ray.export.log_rows import read_mapping
from ctnet_ray.export.opening import LookUp, open_scorer, read_card
from ctnet_ray.runs.records import Version
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.terminal import open_console
from ctnet_ray.training.context import start_alone

_ERROR, _ROWS = "error", "rows"


class _Worker:
    """A scorer in an actor of Ray Data."""

    def __init__(
        self,
        version: Version | str,
        domain: str | None,
        look_up: LookUp,
        output: str,
        skip_bad: bool,
        threads: int,
    ) -> None:
        start_alone(threads)
        self._version, self._domain, self._look_up = version, domain, look_up
        self._output, self._skip_bad = output, skip_bad

    @cached_property
    def _scorer(self) -> Scorer:
        """What scores; opened by the first call, for what a constructor raises comes as a traceback."""
        return open_scorer(self._version, self._domain, self._look_up)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            part = Part(**row)
            score_part(self._scorer, part, self._output, skip_bad=self._skip_bad)
        except CtnetError as error:
            # Raised here, it would reach the driver as a traceback of Ray's in which its type is lost.
            return {_ERROR: str(error), _ROWS: 0}
        return {_ERROR: "", _ROWS: part.rows}


def score_files(
    version: Version | str,
    domain: str | None,
    source: str,
    output: str,
    *,
    skip_bad: bool,
    list_separator: str = "",
    mapping: str | None = None,
    compute: ComputeConfig,
) -> Scored:
    """Score many rows by a version; parts that are there are not scored again.

    Args:
        version: The version; or its folder, or that of an export of it.
        domain: Domain of the rows; None: the one that it was trained for.
        source: The rows (`ctnet_ray.export.batch_scores.find_parts`).
        output: Folder of the scores, local or URI, reachable from every worker.
        skip_bad: Whether rows that can't be scored are left out and counted.
        list_separator: Text between the items of a list in CSV files.
        mapping: Mapping file by which rows are read; None: by the names of the version's fields.
        compute: Workers.

    Raises:
        CtnetError: A row can't be scored, there are no rows, or the folder holds something else.
    """
    output = storage.absolute(output)
    card = read_card(version, domain)
    place = source if "://" in source else storage.absolute(source)
    parts = find_parts(place, list_separator, read_mapping(mapping) if mapping else "")
    missing = begin(output, parts, card, skip_bad=skip_bad)
    if missing:
        ensure_ray(compute)
        total = sum(part.rows for part in parts)
        done = total - sum(part.rows for part in missing)
        with Progress(console=open_console(stderr=True)) as progress:
            task = progress.add_task("scoring rows", total=total, completed=done)
            # Rows of sample days have their statistics.
            look_up = LookUp(enabled=not all(part.is_samples for part in missing))
            threads = math.ceil(compute.cpus_per_worker)
            arguments = (version, domain, look_up, output, skip_bad, threads)

            def score() -> None:
                for row in _scored(missing, arguments, compute).iter_rows():
                    if row[_ERROR]:
                        raise CtnetError(row[_ERROR])
                    progress.advance(task, row[_ROWS])

            while_ray_lives(score)
    return finish(output, parts, card)


def _scored(parts: Sequence[Part], arguments: tuple[Any, ...], compute: ComputeConfig) -> ray.data.Dataset:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    workers = min(compute.workers, len(parts))
    scored = ray.data.from_items([asdict(part) for part in parts], override_num_blocks=len(parts)).map(
        _Worker,  # type: ignore[arg-type]
        fn_constructor_args=arguments,
        num_cpus=compute.cpus_per_worker,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    scored.context.enable_progress_bars = False  # of this dataset, not of the process
    return scored
