"""A seeded world of two or three domains whose click probabilities are known.

Users and items are shared. On day t, domain d shows user u an item v and the click's logit is

    bias_d + 0.9 <taste_u(t), v> / sqrt(K) + 1.3 quality_v(t) + 0.6 trend_category(t - lag_d)
           + shop_d + price_d + context_d + category_d + user_d + place_d

Taste, quality and trend are stationary AR(1) walks, x <- rho x + sqrt(1 - rho^2) eps, common to all domains;
the effects with index d are the domain's own *tilt*, and the target's correlate with the source's at -0.4.
New items come every day and the target shows them a day after the source. So the source knows early and
from many samples what changes (quality of new items, trends), and wrongly what doesn't (the tilts): the
situation in which a target gains from a source again and again, and not by taking its scores.

These are the default constants; configs/sparse_world.yaml has others, after the real logs of a small target:
few samples an id, and users who differ, alike in both domains, more than items do.

A third domain, where there is one, is a second source: it sees items and trends as early as the first, and
its tilts correlate with the target's at +0.4.

Started from the prototype's "world F"; what differs, and why:

* Users drift around their segment (only the personal part of a taste walks, at rho 0.96, which keeps the
  daily change of the whole as it was), so that the segment means on the last day what it meant on the first.
* Fresh items arrive before the first day as they do after it, instead of 450 at once: the age of what is
  shown, and so the value of knowing new items, doesn't change over the days by construction.
* Prices are numbers (log-normal); the ten bands on which clicks depend are the schema's bucket boundaries.
* Each domain has a place of its own that the other's samples lack: the feed's slot, with a bias that falls
  from the first to the last, and the channel's theme, with an effect a theme.
* Clicks of a day are ordered by a time of day over all domains, so that histories interleave them.
* Every random number comes from a stream named by (seed, purpose, day, domain, chunk): a domain's walk,
  items and tilts are the same whatever the number of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctnet_ray.writers.synthetic_config import PRICE_BOUNDARIES, WorldConfig

Array = np.ndarray

# Purposes of random streams: numbers stay what they are, or every world changes.
_ITEMS, _USERS, _WALK, _SOURCE, _TARGET, _DRAW, _THIRD, _ACTIVITY = range(8)


@dataclass(frozen=True)
class Items:
    """What stays the same of V items."""

    category: Array
    """int32 [V]."""
    shop: Array
    """int32 [V]."""
    price: Array
    """float32 [V]."""
    band: Array
    """int32 [V]: number of `PRICE_BOUNDARIES` that are at most the price."""
    vector: Array
    """float32 [V, K], unit variance."""
    popularity: Array
    """float64 [V], above 0."""
    born: Array
    """int32 [V]: day of arrival, 0 on the first sample day."""
    fresh: Array
    """bool [V]: not evergreen."""


@dataclass(frozen=True)
class Tilt:
    """Effects on the logit that are a domain's own, float32."""

    shop: Array
    price: Array
    context: Array
    category: Array
    user: Array
    place: Array
    """Of the source's slots or the target's themes; one without effect elsewhere."""


@dataclass(frozen=True)
class Domain:
    """What makes a domain."""

    name: str
    rows: int
    """Impressions a day."""
    stream: int
    """Names its random streams."""
    bias: float
    trend_lag: int
    """Days by which trends come later."""
    delay: int
    """Age in days at which items are first shown."""
    user_cdf: Array
    """float64 [U]: distribution function of the users of impressions."""
    exposure: Array
    """float64 [C]: how much a category is shown."""
    tilt: Tilt
    place_column: str
    """Sample column of the place; empty: none."""


@dataclass(frozen=True)
class World:
    """What stays the same over the days."""

    config: WorldConfig
    items: Items
    segment: Array
    """int32 [U]: segment of each user."""
    segment_taste: Array
    """float32 [segments, K]."""
    domains: tuple[Domain, ...]
    """Source, target and, where there is one, the third."""


@dataclass(frozen=True)
class DayState:
    """What drifts, as it is on one day."""

    day: int
    """0 on the first sample day."""
    taste: Array
    """float32 [U, K]."""
    quality: Array
    """float32 [V]."""
    trends: Array
    """float32 [lags + 1, C]: the trend today, yesterday, ..."""


@dataclass(frozen=True)
class Impressions:
    """N impressions of one domain on one day."""

    user: Array
    """int64 [N]: index of the user."""
    item: Array
    """int64 [N]: index of the item."""
    context: Array
    """int64 [N]."""
    place: Array
    """int64 [N]: slot of the source or theme of the target; 0 in the third domain."""
    time: Array
    """float32 [N]: days since the first day's midnight."""
    probability: Array
    """float32 [N]: true probability of a click."""
    click: Array
    """bool [N]."""


def build_world(config: WorldConfig) -> World:
    """Draw everything that stays the same over the days."""
    rng = np.random.default_rng([config.seed, _USERS])
    segment = rng.integers(config.segments, size=config.users, dtype=np.int32)
    segment_taste = _normal(rng, config.segments, config.dim)
    source = _source(config)
    target = _target(config, source)
    third = (_third(config, target),) if config.third else ()
    return World(config, _build_items(config), segment, segment_taste, (source, target, *third))


def evolve(world: World) -> Iterator[DayState]:
    """Yield the state of each sample day, in order."""
    config = world.config
    rng = np.random.default_rng([config.seed, _WALK])
    taste = _normal(rng, config.users, config.dim)
    quality = _normal(rng, config.items)
    trends = _normal(rng, 1, config.categories)
    for _ in range(config.target_trend_lag_days):
        trends = np.concatenate([_drift(rng, trends[:1], config.trend_rho), trends])
    common = config.segment_share * world.segment_taste[world.segment]
    own_share = np.float32(np.sqrt(1 - config.segment_share**2))
    for day in range(config.days):
        yield DayState(day, common + own_share * taste, quality, trends)
        taste = _drift(rng, taste, config.taste_rho)
        quality = _drift(rng, quality, config.quality_rho)
        trends = np.concatenate([_drift(rng, trends[:1], config.trend_rho), trends[:-1]])


def draw_day(world: World, domain: Domain, state: DayState) -> Iterator[Impressions]:
    """Yield the impressions of one domain on one day, `chunk_rows` at a time."""
    config = world.config
    item_cdf = _item_cdf(world, domain, state.day)
    for chunk, start in enumerate(range(0, domain.rows, config.chunk_rows)):
        rng = np.random.default_rng([config.seed, _DRAW, state.day, domain.stream, chunk])
        yield _draw(world, domain, state, item_cdf, rng, min(config.chunk_rows, domain.rows - start))


def _draw(
    world: World, domain: Domain, state: DayState, item_cdf: Array, rng: np.random.Generator, rows: int
) -> Impressions:
    config, items, tilt = world.config, world.items, domain.tilt
    user = np.searchsorted(domain.user_cdf, rng.random(rows), side="right")
    candidates = np.searchsorted(item_cdf, rng.random((rows, config.candidates)), side="right")
    affinity = np.einsum("nk,nck->nc", state.taste[user], items.vector[candidates]) / np.sqrt(config.dim)
    shown = (config.ranking * affinity + rng.gumbel(size=affinity.shape)).argmax(1)
    pick = np.arange(rows), shown
    item = candidates[pick]
    context = rng.integers(config.contexts, size=rows)
    place = rng.integers(len(tilt.place), size=rows)
    category = items.category[item]
    logit = (
        domain.bias
        + config.taste_weight * affinity[pick]
        + config.quality_weight * state.quality[item]
        + config.trend_weight * state.trends[domain.trend_lag, category]
        + tilt.shop[items.shop[item]]
        + tilt.price[items.band[item]]
        + tilt.context[context]
        + tilt.category[category]
        + tilt.user[user]
        + tilt.place[place]
    )
    probability = (1 / (1 + np.exp(-logit))).astype(np.float32)
    time = state.day + rng.random(rows, dtype=np.float32)
    return Impressions(user, item, context, place, time, probability, rng.random(rows) < probability)


def _item_cdf(world: World, domain: Domain, day: int) -> Array:
    """Distribution function [V] of the items that the domain draws as candidates on a day."""
    config, items = world.config, world.items
    age = day - items.born
    weight = items.popularity * domain.exposure[items.category]
    weight *= np.where(items.fresh, np.exp(-age / config.fresh_decay_days), 1)
    weight[age < domain.delay] = 0
    fresh, evergreen = weight[items.fresh].sum(), weight[~items.fresh].sum()
    weight *= np.where(items.fresh, (1 - config.evergreen_share) / fresh, config.evergreen_share / evergreen)
    return _cdf(weight)


def _build_items(config: WorldConfig) -> Items:
    rng = np.random.default_rng([config.seed, _ITEMS])
    count, evergreen = config.items, config.evergreen_items
    centres = _normal(rng, config.categories, config.dim)
    category = rng.integers(config.categories, size=count, dtype=np.int32)
    own_share = np.float32(np.sqrt(1 - config.category_share**2))
    price = np.exp(3 + 0.8 * rng.standard_normal(count)).round(2).astype(np.float32)
    arrivals = np.arange(-config.warm_up_days, config.days, dtype=np.int32)
    return Items(
        category=category,
        shop=rng.integers(config.shops, size=count, dtype=np.int32),
        price=price,
        band=np.searchsorted(np.array(PRICE_BOUNDARIES, np.float32), price, side="right").astype(np.int32),
        vector=config.category_share * centres[category] + own_share * _normal(rng, count, config.dim),
        popularity=np.exp(config.popularity * rng.standard_normal(count)),
        born=np.concatenate(
            [
                rng.integers(-365, -config.warm_up_days, size=evergreen, dtype=np.int32),
                np.repeat(arrivals, config.new_items),
            ]
        ),
        fresh=np.arange(count) >= evergreen,
    )


def _source(config: WorldConfig) -> Domain:
    rng = np.random.default_rng([config.seed, _SOURCE])
    slot = config.slot_bias * np.linspace(0.5, -0.5, config.slots, dtype=np.float32)
    return Domain(
        config.source,
        config.source_rows,
        stream=_SOURCE,
        bias=config.source_bias,
        trend_lag=0,
        delay=0,
        tilt=Tilt(*_shared_tilts(config, rng), place=slot),
        user_cdf=_user_cdf(config, rng),
        exposure=_exposure(config, rng),
        place_column="feed_slot",
    )


def _target(config: WorldConfig, source: Domain) -> Domain:
    rng = np.random.default_rng([config.seed, _TARGET])
    tilts = _correlated_tilts(config, rng, source.tilt, config.tilt_correlation, config.user_tilt_correlation)
    return Domain(
        config.target,
        config.target_rows,
        stream=_TARGET,
        bias=config.target_bias,
        trend_lag=config.target_trend_lag_days,
        delay=config.target_delay_days,
        tilt=Tilt(*tilts, place=config.theme_tilt * _normal(rng, config.themes)),
        user_cdf=_user_cdf(config, rng),
        exposure=_exposure(config, rng),
        place_column="channel_theme",
    )


def _third(config: WorldConfig, target: Domain) -> Domain:
    rng = np.random.default_rng([config.seed, _THIRD])
    correlation = config.third_tilt_correlation
    tilts = _correlated_tilts(config, rng, target.tilt, correlation, correlation)
    return Domain(
        config.third,
        config.third_rows,
        stream=_THIRD,
        bias=config.third_bias,
        trend_lag=0,
        delay=0,
        tilt=Tilt(*tilts, place=np.zeros(1, np.float32)),
        user_cdf=_user_cdf(config, rng),
        exposure=_exposure(config, rng),
        place_column="",
    )


def _correlated_tilts(
    config: WorldConfig, rng: np.random.Generator, other: Tilt, correlation: float, of_users: float
) -> list[Array]:
    """Draw the effects of shops, ..., users so that they correlate with those of another domain."""
    theirs = (other.shop, other.price, other.context, other.category, other.user)
    correlations = (*[correlation] * 4, of_users)
    return [
        rho * a + np.float32(np.sqrt(1 - rho**2)) * b
        for rho, a, b in zip(correlations, theirs, _shared_tilts(config, rng), strict=True)
    ]


def _shared_tilts(config: WorldConfig, rng: np.random.Generator) -> list[Array]:
    """Draw the effects of shops, price bands, contexts, categories and users."""
    return [
        config.shop_tilt * _normal(rng, config.shops),
        config.price_tilt * _normal(rng, len(PRICE_BOUNDARIES) + 1),
        config.context_tilt * _normal(rng, config.contexts),
        config.category_tilt * _normal(rng, config.categories),
        config.user_tilt * _normal(rng, config.users),
    ]


def _user_cdf(config: WorldConfig, rng: np.random.Generator) -> Array:
    """Draw how active users are in a domain: a^(1 - s) b^s, with its own activity a and the shared one b."""
    activity, share = _activity(config, rng), config.shared_activity
    if share:
        shared = _activity(config, np.random.default_rng([config.seed, _ACTIVITY]))
        activity = activity ** (1 - share) * shared**share
    return _cdf(activity)


def _activity(config: WorldConfig, rng: np.random.Generator) -> Array:
    return rng.pareto(config.activity_tail, config.users) + config.activity_floor


def _exposure(config: WorldConfig, rng: np.random.Generator) -> Array:
    return np.exp(config.exposure * rng.standard_normal(config.categories))


def _cdf(weight: Array) -> Array:
    total = np.cumsum(weight)
    return total / total[-1]


def _drift(rng: np.random.Generator, x: Array, rho: float) -> Array:
    return np.float32(rho) * x + np.float32(np.sqrt(1 - rho**2)) * _normal(rng, *x.shape)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)
