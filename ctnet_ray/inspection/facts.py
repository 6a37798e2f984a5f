"""What an inspection finds, as plain data; its JSON file is this."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class DayFacts:
    """One day of one domain."""

    domain: str
    day: date
    rows: int
    clicks: int
    new_users: float | None
    """Estimated share of rows whose user has none on earlier days of the domain; None: no feature is the
    user, or there are no days before."""
    new_items: float | None
    usable_groups: float
    """Share of groups with a click and a row without one, of the rows that were read: GAUC averages over
    them."""
    unlike: tuple[str, ...]
    """What of it a run's guard (`guard`) would not let pass."""

    @property
    def ctr(self) -> float:
        """Clicks a row."""
        return self.clicks / self.rows


@dataclass(frozen=True)
class FeatureFacts:
    """One feature in one domain, over all its days."""

    domain: str
    feature: str
    counts_days: bool
    """Whether it counts what was on earlier days (a history, a statistic), and so grows at first."""
    missing: float
    """Share of rows without a value."""
    infinite: int
    """Rows with an infinite number."""
    auc: float | None
    """AUC of its values' click rates of earlier days alone, mean over the scored days; None: it has none, or
    was not read."""
    drift: float | None
    """Largest population stability index of a day against the day before, less what chance makes of it
    (`samples.measures.stability`); over the scored days alone where `counts_days`. None: there is one day."""
    drift_day: date | None
    """The day of it."""


@dataclass(frozen=True)
class Overlap:
    """How much of a target's rows a source has met on earlier days."""

    target: str
    source: str
    feature: str
    """User or item."""
    known: float
    """Share of the target's rows whose value has rows in the source before that day."""
    known_of_new: float | None
    """The same, of rows whose value is new to the target; None: there are none."""
    new: float
    """Share of the target's rows whose value is new to the target."""


@dataclass(frozen=True)
class ScoredDay:
    """What two logistic regressions made of a day of the target."""

    day: date
    rows: int
    auc_target: float
    auc_source: float
    logloss_target: float
    logloss_source: float


@dataclass(frozen=True)
class Probe:
    """What a source's click rates add to a target's own, to a logistic regression.

    Both are trained on the target's rows before each scored day. *target* reads the click rate and the count
    of each value on earlier days of the target; *source* reads those of the source besides.
    """

    target: str
    source: str
    days: tuple[ScoredDay, ...]
    gain: float
    """Mean difference in AUC, source - target."""
    error: float | None
    """Its standard error over days; None: one day."""
    low: float | None
    """Bounds of its 95 % confidence interval (t test over days)."""
    high: float | None
    detectable: float | None
    """Smallest true difference in AUC that as many days would show in four of five cases, at 5 %."""


@dataclass(frozen=True)
class Advice:
    """What to do about one target: whether transfer is worth trying, in a word, and why."""

    target: str
    source: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """All that was found."""

    store: str
    source: str
    targets: tuple[str, ...]
    user: str | None
    """Feature that is the user."""
    item: str | None
    days: tuple[DayFacts, ...]
    features: tuple[FeatureFacts, ...]
    overlaps: tuple[Overlap, ...]
    probes: tuple[Probe, ...]
    advice: tuple[Advice, ...]
    mend: tuple[str, ...]
    """What to mend, the worst first."""
