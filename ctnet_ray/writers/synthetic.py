"""Samples of the synthetic world (`ctnet_ray.writers.synthetic_world`), written day by day.

A sample's histories hold the user's last clicks on strictly earlier days: in all domains, and for each domain
those in it. Beside the features stands the true probability of the click, which no model may read: its AUC is
the best reachable.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from ctnet_ray import storage
from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.day_writer import DayLinks
from ctnet_ray.samples.encoding import hash_ids
from ctnet_ray.samples.existing import DayDiffersError, refusal
from ctnet_ray.samples.store import ROWS_PER_FILE, SampleStore
from ctnet_ray.schema import GROUP, LABEL, TRUE_PROBABILITY
from ctnet_ray.writers.history import column_in
from ctnet_ray.writers.synthetic_config import AGE_BOUNDARIES, PRICE_BOUNDARIES, WorldConfig
from ctnet_ray.writers.synthetic_statistics import STATISTICS, CountedDays
from ctnet_ray.writers.synthetic_world import (
    Array,
    DayState,
    Domain,
    Impressions,
    World,
    build_world,
    draw_day,
    evolve,
)

_HISTORIES = MappingProxyType({"clicked_items": "item", "clicked_categories": "category"})
Progress = Callable[[str, date, int], None]  #: domain, day, rows written since the last call

_NONE = -1  # Marks the empty places of a history.
_ALL = ""  # In place of a domain: clicks in all domains.


@dataclass(frozen=True)
class DomainSummary:
    """What was written of one domain."""

    domain: str
    rows: int
    positives: int
    reachable_auc: float
    """AUC of the true probabilities, exact on each day, mean over the days; NaN without both classes."""

    @property
    def ctr(self) -> float:
        """Clicks per impression."""
        return self.positives / self.rows


@dataclass(frozen=True)
class Histories:
    """The last H clicks of each of U users; changed in place."""

    items: Array
    """int32 [U, H]: indices of items, most recent last, `_NONE` in front."""
    times: Array
    """float32 [U, H]: days since the first day's midnight; -inf where there is no click."""

    @classmethod
    def empty(cls, users: int, length: int) -> "Histories":
        """Return the histories of users who never clicked."""
        shape = users, length
        return cls(np.full(shape, _NONE, np.int32), np.full(shape, -np.inf, np.float32))

    def copy(self) -> "Histories":
        """Return histories that change on their own."""
        return Histories(self.items.copy(), self.times.copy())

    def add(self, user: Array, item: Array, time: Array) -> None:
        """Add N clicks in any order of users and times, [N] each."""
        length = self.items.shape[1]
        touched, row = np.unique(user, return_inverse=True)
        row = np.concatenate([np.repeat(np.arange(len(touched)), length), row])
        item = np.concatenate([self.items[touched].ravel(), item])
        time = np.concatenate([self.times[touched].ravel(), time])
        order = np.lexsort((time, row))
        row = row[order]
        from_end = np.searchsorted(row, row, side="right") - 1 - np.arange(len(row))
        is_last = from_end < length
        place = touched[row[is_last]], length - 1 - from_end[is_last]
        self.items[place] = item[order][is_last]
        self.times[place] = time[order][is_last]


@dataclass(frozen=True)
class _Writing:
    """What the writing of all days has in common."""

    store: SampleStore
    world: World
    ids: "_Ids"
    counted: CountedDays | None
    """Adds statistics; None: the world's samples have none."""
    progress: Progress | None
    existing: Existing


@dataclass(frozen=True)
class _Ids:
    """Sample ids (int64) by index."""

    user: Array
    item: Array
    category: Array
    segment: Array
    shop: Array
    context: Array
    place: Array


def write_world(
    store: SampleStore,
    config: WorldConfig,
    progress: Progress | None = None,
    *,
    existing: Existing = "refuse",
) -> tuple[DomainSummary, ...]:
    """Write all days of all domains.

    Memory holds one chunk of impressions, one file's rows (`SampleStore.write_day`), the items, and the
    users' histories, of each domain and of all, twice; it does not grow with the rows of a day.

    Args:
        store: Where to write.
        config: The world.
        progress: Called after each chunk with the domain, the day and the chunk's rows.
        existing: What becomes of days that are there and would hold something else.

    Returns:
        What was written of the source, of the target and, where there is one, of the third domain.

    Raises:
        CtnetError: Days that are there differ; all are named.
    """
    world = build_world(config)
    refused: list[DayDiffersError] = []
    counted = CountedDays(store, config) if config.statistics else None
    writing = _Writing(store, world, _hash_all(config), counted, progress, existing)
    known = {name: Histories.empty(config.users, config.history) for name in (_ALL, *config.domains)}
    written: dict[str, list[tuple[int, int, float]]] = {domain.name: [] for domain in world.domains}
    for state in evolve(world):
        # A day's clicks are known from the next day on.
        coming = {name: histories.copy() for name, histories in known.items()}
        for domain in world.domains:
            if refused and not store.has_day(domain.name, config.first_day + timedelta(days=state.day)):
                # It is not begun, but its clicks are in the histories of later days that are there.
                deque(_draw(world, domain, state, coming), maxlen=0)
                continue
            try:
                entry = _write_day(writing, domain, state, known, coming)
                written[domain.name].append(entry)
            except DayDiffersError as error:
                refused.append(error)
        known = coming
    if refused:
        raise CtnetError(refusal(refused))
    return tuple(_summarise(name, days) for name, days in written.items())


def schema_dict(config: WorldConfig) -> dict[str, Any]:
    """Return the schema of the world's samples, in the layout of the schema file.

    Tables have at least four rows an id, so that few ids share a row.
    """

    def rows(ids: int) -> dict[str, int]:
        return {"rows": 1 << (4 * ids - 1).bit_length()}

    def sequence(table: str, **more: str) -> dict[str, Any]:
        return {"kind": "sequence", "table": table, "max_length": config.history, "attends_to": table, **more}

    def categorical(**more: list[str]) -> dict[str, Any]:
        return {"kind": "categorical", **more}

    sources = [domain for domain in config.domains if domain != config.target]

    return {
        "embedding_dim": 16,
        "tables": {
            "item": rows(config.items),
            "category": rows(config.categories),
            "user": rows(config.users),
            "segment": rows(config.segments),
            "shop": rows(config.shops),
            "context": rows(config.contexts),
            "feed_slot": rows(config.slots),
            "channel_theme": rows(config.themes),
        },
        "features": {
            "item": categorical(),
            "category": categorical(),
            "user": categorical(),
            "segment": categorical(),
            "shop": categorical(),
            "price": {"kind": "numeric", "boundaries": list(PRICE_BOUNDARIES)},
            "context": categorical(),
            "item_age": {"kind": "numeric", "boundaries": list(AGE_BOUNDARIES)},
            **{history: sequence(table) for history, table in _HISTORIES.items()},
            **{
                column_in(history, domain): sequence(table, clicks_in=domain)
                for domain in config.domains
                for history, table in _HISTORIES.items()
            },
            "domain": {"kind": "domain", "domains": sources, "towers": ["source"]},
            "feed_slot": categorical(towers=["source"], domains=[config.source]),
            "channel_theme": categorical(towers=["target"], domains=[config.target]),
            **(STATISTICS.features(config.domains) if config.statistics else {}),
        },
    }


def write_schema(uri: str, config: WorldConfig) -> None:
    """Write the schema file of the world's samples to a local path or URI whose folder is there."""
    filesystem, path = storage.resolve(uri)
    with filesystem.open_output_stream(path) as stream:
        stream.write(schema_text(config).encode())


def schema_text(config: WorldConfig) -> str:
    """Return the schema file of the world's samples."""
    text = yaml.safe_dump(schema_dict(config), sort_keys=False, default_flow_style=None, width=110)
    return "# Features of the synthetic world (jobs.prepare synthetic).\n" + text


def exact_auc(score: Array, positive: Array) -> float:
    """Return the probability that a positive scores above a negative, ties at half; NaN without both.

    Args:
        score: [N].
        positive: bool [N].
    """
    negatives, positives = np.sort(score[~positive]), np.sort(score[positive])
    if not len(negatives) or not len(positives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").mean()
    not_above = np.searchsorted(negatives, positives, side="right").mean()
    return float(below + not_above) / 2 / len(negatives)


def _write_day(
    writing: _Writing,
    domain: Domain,
    state: DayState,
    known: Mapping[str, Histories],
    coming: Mapping[str, Histories],
) -> tuple[int, int, float]:
    """Write one day of one domain, add its clicks to `coming`, return rows, positives and AUC.

    Histories go by domain, those of all domains by `_ALL`.
    """
    world, counted = writing.world, writing.counted
    day = world.config.first_day + timedelta(days=state.day)
    scores, clicks, counts = [], [], []
    # Eight full histories make rows of 1.3 kB: a quarter of the usual rows of a file keeps a day below 2 GB.
    rows_per_file = ROWS_PER_FILE // 4
    look_back = [name if of == _ALL else column_in(name, of) for of in known for name in _HISTORIES]
    with writing.store.write_day(
        domain.name,
        day,
        seed=world.config.seed,
        existing=writing.existing,
        links=counted.links(day, look_back) if counted else DayLinks(look_back),
        rows_per_file=rows_per_file,
    ) as writer:
        for shown in _draw(world, domain, state, coming):
            samples = _to_table(world, domain, state, writing.ids, known, shown)
            if counted:
                samples = counted.with_statistics(samples, day)
            added_N = writer.write(samples)
            if counted:
                counts.append(counted.counts(samples.filter(pa.array(added_N)), domain.name))
            scores.append(shown.probability)
            clicks.append(shown.click)
            if writing.progress:
                writing.progress(domain.name, day, len(shown.user))
        if counted:
            writer.state = counted.state(counts)
    return writer.rows, writer.positives, exact_auc(np.concatenate(scores), np.concatenate(clicks))


def _draw(
    world: World, domain: Domain, state: DayState, coming: Mapping[str, Histories]
) -> Iterator[Impressions]:
    """Yield the impressions of one day of one domain, and add their clicks to `coming`."""
    for shown in draw_day(world, domain, state):
        for name in _ALL, domain.name:
            coming[name].add(shown.user[shown.click], shown.item[shown.click], shown.time[shown.click])
        yield shown


def _to_table(
    world: World,
    domain: Domain,
    state: DayState,
    ids: _Ids,
    known: Mapping[str, Histories],
    shown: Impressions,
) -> pa.Table:
    items, item = world.items, shown.item
    entities = {"clicked_items": ids.item, "clicked_categories": ids.category[items.category]}
    histories: dict[str, pa.Array] = {}
    for name, history in known.items():
        clicked, offsets = _flatten(history.items[shown.user])
        for column, id_V in entities.items():
            values = pa.ListArray.from_arrays(offsets, id_V[clicked])
            histories[column if name == _ALL else column_in(column, name)] = values
    return pa.table(
        {
            LABEL: shown.click.astype(np.int8),
            GROUP: ids.user[shown.user],
            TRUE_PROBABILITY: shown.probability,
            "item": ids.item[item],
            "category": ids.category[items.category[item]],
            "user": ids.user[shown.user],
            "segment": ids.segment[world.segment[shown.user]],
            "shop": ids.shop[items.shop[item]],
            "price": items.price[item],
            "context": ids.context[shown.context],
            "item_age": (state.day - items.born[item]).astype(np.float32),
            **histories,
            **({domain.place_column: ids.place[shown.place]} if domain.place_column else {}),
        }
    )


def _flatten(history: Array) -> tuple[Array, Array]:
    """Return the clicks of histories [N, H] one after the other, and int32 offsets [N + 1] into them."""
    there = history != _NONE
    offsets = np.zeros(len(history) + 1, np.int32)
    np.cumsum(there.sum(1), out=offsets[1:])
    return history[there], offsets


def _hash_all(config: WorldConfig) -> _Ids:
    def hashed(count: int) -> Array:
        return hash_ids(pa.array(np.arange(count))).to_numpy()

    return _Ids(
        user=hashed(config.users),
        item=hashed(config.items),
        category=hashed(config.categories),
        segment=hashed(config.segments),
        shop=hashed(config.shops),
        context=hashed(config.contexts),
        place=hashed(max(config.slots, config.themes)),
    )


def _summarise(domain: str, days: list[tuple[int, int, float]]) -> DomainSummary:
    rows, positives, aucs = zip(*days, strict=True)
    there = [auc for auc in aucs if not np.isnan(auc)]
    return DomainSummary(domain, sum(rows), sum(positives), float(np.mean(there)) if there else float("nan"))
