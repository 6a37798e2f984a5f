"""A challenger takes the champion's place where it is no worse on the same days."""

from collections.abc import Mapping
from datetime import date, timedelta

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.orchestration.promotion import compare, recorded_scores
from ctnet_ray.runs.records import Version
from ctnet_ray.tracking.aliases import check_alias

DAY = date(2022, 5, 1)
Metrics = Mapping[str, float]


def version(model: str, number: int, **metrics: float) -> Version:
    """Return version `number` of a model, of day number `number`; with metrics, scored."""
    day = DAY + timedelta(days=number)
    tags = {"evaluated_day": f"{day + timedelta(days=1)}"} if metrics else {}
    tags |= {name: repr(value) for name, value in metrics.items()}
    return Version(f"{model}-1", day, f"/{model}/day={day}", model, number, tags)


def never(scored: Version, day: date) -> Metrics:
    raise AssertionError(f"{scored.id} on {day}")


BASE = [version("base", number, auc=0.60 + number / 100, logloss=0.5) for number in range(1, 4)]
CTNET = [
    version("ctnet", number, auc=auc, logloss=0.4)
    for number, auc in zip(range(2, 5), (0.64, 0.68, 0.9), strict=True)
]
SERIES = {"base": BASE, "ctnet": CTNET}


def test_two_models_are_compared_on_the_days_that_both_were_scored_on() -> None:
    found = compare(CTNET[1], BASE[0], lambda model: recorded_scores(SERIES[model]), never, None, 28, 0.0)
    assert found.days == ("2022-05-04", "2022-05-05")
    auc, logloss = found.differences
    # 0.64 - 0.62 and 0.68 - 0.63: mean 0.035, standard error sqrt(2 * 0.015^2 / 1 / 2) = 0.015.
    assert (auc.metric, auc.champion, auc.challenger) == ("auc", pytest.approx(0.625), pytest.approx(0.66))
    assert (auc.difference, auc.error) == (pytest.approx(0.035), pytest.approx(0.015))
    assert (logloss.difference, logloss.error) == (pytest.approx(-0.1), pytest.approx(0.0))
    assert found.worse == ""


def test_only_the_newest_days_count() -> None:
    found = compare(CTNET[1], BASE[0], lambda model: recorded_scores(SERIES[model]), never, None, 1, 0.0)
    assert found.days == ("2022-05-05",)
    assert found.differences[0].error is None


@pytest.mark.parametrize(("allowed", "worse"), [(0.03, True), (0.04, False)])
def test_a_challenger_that_is_worse_is_told_apart_by_what_is_allowed(allowed: float, worse: bool) -> None:
    found = compare(BASE[0], CTNET[1], lambda model: recorded_scores(SERIES[model]), never, None, 28, allowed)
    assert bool(found.worse) is worse
    if worse:
        assert found.worse == "base/1 has auc 0.6250, ctnet/3 0.6600: 0.0350 less, where 0.03 is allowed"


def test_versions_of_one_model_are_scored_on_one_day() -> None:
    scored: list[tuple[str, date]] = []

    def score(one: Version, day: date) -> Metrics:
        scored.append((one.id, day))
        return {"auc": 0.7}

    found = compare(BASE[2], BASE[0], lambda _: {}, score, None, 28, 0.0)
    # What the challenger scored on that day is on record.
    assert scored == [("base/1", date(2022, 5, 5))]
    assert found.differences[0].difference == pytest.approx(0.63 - 0.7)
    later = date(2022, 5, 9)
    compare(BASE[2], BASE[0], lambda _: {}, score, later, 28, 0.0)
    assert scored[1:] == [("base/3", later), ("base/1", later)]


def test_the_first_champion_is_compared_with_nothing() -> None:
    found = compare(BASE[0], None, lambda _: {}, never, None, 28, 0.0)
    assert (found.champion, found.days, found.worse) == ("", (), "")


@pytest.mark.parametrize(
    ("challenger", "champion", "day", "said"),
    [
        (version("base", 4), BASE[0], None, "base/4 was not scored yet: name a day with --day"),
        (BASE[2], BASE[0], DAY, "--day 2022-05-01: base/3 is of 2022-05-04 and base/1 of 2022-05-02"),
        (version("other", 1, auc=0.5), CTNET[0], None, "other and ctnet were scored on no day in common"),
    ],
)
def test_what_can_not_be_compared(
    challenger: Version, champion: Version, day: date | None, said: str
) -> None:
    series = SERIES | {"other": [version("other", 1, auc=0.5)]}
    with pytest.raises(CtnetError, match=said):
        compare(challenger, champion, lambda model: recorded_scores(series[model]), never, day, 28, 0.0)


@pytest.mark.parametrize("alias", ["newest", "latest", "Champion", "", "3", "a b", "../x", "x" * 42])
def test_aliases_that_can_not_be_set(alias: str) -> None:
    with pytest.raises(CtnetError, match=r"^alias "):
        check_alias(alias)
