"""Sizes and constants of the synthetic world (`ctnet_ray.writers.synthetic_world`)."""

from dataclasses import dataclass
from datetime import date

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.history import column_in

PRICE_BOUNDARIES = (7, 10, 13, 16, 20, 25, 31, 39, 56)  #: rounded deciles of exp(3 + 0.8 N(0, 1))
AGE_BOUNDARIES = (1, 2, 3, 4, 5, 6, 7)  #: days


@dataclass(frozen=True)
class WorldConfig:
    """Sizes and constants of a world."""

    seed: int = 0
    """Seed of everything random; the same seed and sizes give the same bytes."""
    first_day: date = date(2022, 4, 25)
    """First sample day."""
    days: int = 14
    """Number of sample days."""
    source: str = "feed"
    """Name of the source domain."""
    target: str = "channel"
    """Name of the target domain."""
    third: str = ""
    """Name of a third domain, a second source; empty: there is none. The samples of the other two are the
    same with and without it, but for its clicks in their histories."""
    source_rows: int = 80_000
    """Impressions of the source a day."""
    target_rows: int = 8_000
    """Impressions of the target a day."""
    third_rows: int = 40_000
    """Impressions of the third domain a day."""
    users: int = 3_000
    """Users, shared by all domains."""
    evergreen_items: int = 6_000
    """Items that were there long before the first day and never age."""
    new_items: int = 200
    """Fresh items that arrive each day, also on the warm-up days before the first."""
    chunk_rows: int = 65_536
    """Impressions that are drawn at once: memory grows with it, not with the rows of a day."""
    history: int = 20
    """Clicks of a user that are remembered."""
    statistics: bool = False
    """Whether samples hold click rates and counts of earlier days, of each domain apart."""
    categories: int = 60
    """Item categories."""
    shops: int = 700
    """Shops."""
    segments: int = 30
    """User segments."""
    contexts: int = 8
    """Contexts of an impression (think of device and hour)."""
    slots: int = 10
    """Positions in the source's page."""
    themes: int = 6
    """Themes of the target."""
    dim: int = 8
    """Dimension K of tastes and item vectors."""
    category_share: float = 0.6
    """Weight of the category's centre in an item's vector; the rest of the unit variance is its own."""
    segment_share: float = 0.7
    """Weight of the segment's taste in a user's; the rest of the unit variance is the user's own."""
    popularity: float = 0.7
    """Standard deviation of the log of an item's popularity."""
    exposure: float = 0.8
    """Standard deviation of the log of a domain's exposure of a category."""
    evergreen_share: float = 0.6
    """Share of evergreen items in what is shown."""
    fresh_decay_days: float = 3.0
    """Days after which a fresh item is shown 1/e as often."""
    warm_up_days: int = 7
    """Days before the first on which fresh items already arrived."""
    target_delay_days: int = 1
    """Age in days at which the target starts to show an item; the others start at 0."""
    activity_tail: float = 2.0
    """Exponent of the Pareto distribution of a user's activity, drawn for each domain."""
    activity_floor: float = 0.3
    """Added to that activity."""
    shared_activity: float = 0.0
    """Share, in the log of a user's activity in a domain, of one that all domains have in common."""
    candidates: int = 3
    """Items that are drawn for an impression; one of them is shown."""
    ranking: float = 0.7
    """Weight of <taste, item> / sqrt(K) in the (Gumbel-max) choice among the candidates."""
    taste_rho: float = 0.96
    """Day-to-day correlation of the user's own part of a taste."""
    quality_rho: float = 0.985
    """Day-to-day correlation of an item's quality."""
    trend_rho: float = 0.6
    """Day-to-day correlation of a category's trend."""
    target_trend_lag_days: int = 1
    """Days by which trends reach the target later than the others."""
    taste_weight: float = 0.9
    """Weight of <taste, item> / sqrt(K) in the logit."""
    quality_weight: float = 1.3
    """Weight of the item's quality in the logit."""
    trend_weight: float = 0.6
    """Weight of the category's trend in the logit."""
    source_bias: float = -2.8
    """Bias of the source's logit."""
    target_bias: float = -3.0
    """Bias of the target's logit."""
    third_bias: float = -2.8
    """Bias of the third domain's logit."""
    tilt_correlation: float = -0.4
    """Correlation of the target's tilts with the source's."""
    third_tilt_correlation: float = 0.4
    """Correlation of the third domain's tilts with the target's."""
    shop_tilt: float = 0.9
    """Standard deviation of a shop's effect in a domain."""
    price_tilt: float = 0.4
    """Standard deviation of a price band's effect in a domain."""
    context_tilt: float = 0.4
    """Standard deviation of a context's effect in a domain."""
    category_tilt: float = 0.4
    """Standard deviation of a category's effect in a domain."""
    user_tilt: float = 0.5
    """Standard deviation of a user's effect in a domain."""
    user_tilt_correlation: float = -0.4
    """Correlation of users' effects in the target with those in the source."""
    slot_bias: float = 0.9
    """Logit of the source's first slot above its last; linear in between."""
    theme_tilt: float = 0.4
    """Standard deviation of a theme's effect in the target."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def domains(self) -> tuple[str, ...]:
        """Source, target and, where there is one, the third domain."""
        return tuple(filter(None, (self.source, self.target, self.third)))

    @property
    def rows(self) -> int:
        """Impressions of all days and domains."""
        return self.days * (self.source_rows + self.target_rows + bool(self.third) * self.third_rows)

    @property
    def items(self) -> int:
        """Items that are there on the last day."""
        return self.evergreen_items + self.new_items * (self.warm_up_days + self.days)


def _check(config: WorldConfig) -> None:
    counts = (
        "days source_rows target_rows third_rows users evergreen_items new_items chunk_rows history "
        "categories shops segments contexts slots themes dim warm_up_days candidates"
    )
    for name in counts.split():
        if getattr(config, name) < 1:
            raise CtnetError(f"synthetic world: {name} must be at least 1, not {getattr(config, name)}")
    for name in ("seed", "target_delay_days", "target_trend_lag_days"):
        if getattr(config, name) < 0:
            raise CtnetError(f"synthetic world: {name} must be at least 0, not {getattr(config, name)}")
    if not 0 <= config.shared_activity <= 1:
        raise CtnetError(
            f"synthetic world: shared_activity must be from 0 to 1, not {config.shared_activity}"
        )
    for name in ("tilt_correlation", "third_tilt_correlation", "user_tilt_correlation"):
        if not -1 <= getattr(config, name) <= 1:
            raise CtnetError(f"synthetic world: {name} must be from -1 to 1, not {getattr(config, name)}")
    if config.warm_up_days < config.target_delay_days:
        raise CtnetError("synthetic world: warm_up_days must be at least target_delay_days")
    for domain in config.domains:
        if config.domains.count(domain) > 1:
            raise CtnetError(f"synthetic world: two domains are both called {domain!r}")
        column_in("clicked_items", domain)
