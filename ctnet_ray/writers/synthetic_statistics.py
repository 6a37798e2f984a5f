"""Click rates of earlier days in the synthetic world's samples, as a log's samples have them."""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa

from ctnet_ray.samples.day_writer import DayLinks
from ctnet_ray.samples.running_state import RunningState
from ctnet_ray.samples.state_tables import EncodedTable, encode
from ctnet_ray.samples.statistics import COUNTS, summed_counts
from ctnet_ray.samples.store import SampleStore
from ctnet_ray.writers.statistics import Statistics
from ctnet_ray.writers.synthetic_config import WorldConfig

#: Ids of the world that are counted, in each domain apart.
STATISTICS = Statistics(
    (("user",), ("item",), ("shop",), ("category",), ("user", "category")), by_domain=True
)
_LOG = "synthetic"  # what its days are called in the running state


class CountedDays:
    """Adds statistics to days that are written in their order, from the world's first day on.

    Args:
        store: Where the days are written.
        config: The world.
    """

    def __init__(self, store: SampleStore, config: WorldConfig) -> None:
        self.columns = list(STATISTICS.columns(config.domains))
        self._config = config
        self._state = RunningState(store, _LOG, [STATISTICS.kind()], config.domains)

    def links(self, day: date, look_back: Sequence[str]) -> DayLinks:
        """Return what ties a day to the days before and after it.

        Args:
            day: The day.
            look_back: Further columns that say what was known of the past.
        """
        return DayLinks(
            [*look_back, *self.columns],
            self._state.origin(day, from_scratch=self._is_first(day)),
            self._state.kinds,
            STATISTICS.record(self._config.domains),
            before_publish=lambda: self._state.forget(day),
        )

    def with_statistics(self, samples: pa.Table, day: date) -> pa.Table:
        """Return rows of a day with the columns of what earlier days say of their ids."""
        touched = {COUNTS: STATISTICS.touched(samples)}
        past = self._state.before(day, touched, from_scratch=self._is_first(day))
        for name, values_N in STATISTICS.compute(samples, day, [past], self._config.domains).items():
            samples = samples.append_column(name, pa.array(values_N))
        return samples

    def counts(self, samples: pa.Table, domain: str) -> pa.Table:
        """Return what some rows of a domain add to the counts that later days look up."""
        return STATISTICS.counts(samples, domain)

    def state(self, counts: Sequence[pa.Table]) -> dict[str, EncodedTable]:
        """Return what later days need of a day whose rows were counted in parts."""
        return {COUNTS: encode(STATISTICS.kind(), summed_counts(pa.concat_tables(counts)))}

    def _is_first(self, day: date) -> bool:
        return day == self._config.first_day
