"""Up to when the labels of logs are complete, told by the logs themselves."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from ctnet_ray.errors import CtnetError
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.mapping.mapping import TableMapping
from ctnet_ray.writers.sources import Source
from ctnet_ray.writers.steps import AT_ONCE, Sealing


def seal(sources: Sequence[Source], accounts: Sequence[FileAccount], known_until: date | None) -> Sealing:
    """Return up to when all labels of some logs are complete: of each by its own days and its own delays.

    Args:
        sources: The files.
        accounts: Theirs, once they are read.
        known_until: Day up to which all logs know; None: the day before each one's newest.

    Raises:
        CtnetError: More rows lack a label whose delay is over than `max_dropped` allows.
    """
    days: dict[str, Counter[date]] = {}
    delays: dict[str, int] = {}
    for source, account in zip(sources, accounts, strict=True):
        days.setdefault(source.log, Counter()).update(account.days)
        delays[source.log] = max(source.mapping.late_labels.values(), default=0)
    ends = [
        (known_until or _newest_whole_day(days[log])) - timedelta(days=delay)
        for log, delay in delays.items()
        if delay and days[log]
    ]
    if not ends:
        return AT_ONCE
    _check_missing(sources[0].mapping, accounts, min(ends))
    return Sealing(max(delays.values()), min(ends))


def _newest_whole_day(rows: Counter[date]) -> date:
    """Return the day before the newest that has rows to speak of.

    The newest may be there in part. A day of less than a hundredth of the fullest day's rows is a clock's
    mistake, or the end of one in another time zone.
    """
    most = max(rows.values())
    return max(day for day, count in rows.items() if 100 * count >= most) - timedelta(days=1)


def _check_missing(mapping: TableMapping, accounts: Sequence[FileAccount], complete_until: date) -> None:
    def counted(rows: Iterable[Counter[date]]) -> Counter[date]:
        whole = sum(rows, Counter[date]())
        return Counter({day: count for day, count in whole.items() if day <= complete_until})

    rows = counted(account.days for account in accounts)
    missing = counted(account.unlabelled for account in accounts)
    if missing.total() > mapping.max_dropped * rows.total():
        raise CtnetError(
            f"{mapping.name}: {missing.total():,} of {rows.total():,} rows up to {complete_until} lack a "
            f"label whose delay is over (most on {missing.most_common(1)[0][0]}), more than max_dropped "
            f"{mapping.max_dropped:g} allows; nothing was written: lengthen the delay, or mend the log"
        )
