"""A source and a target domain whose sample days come and go: written one by one, kept for a month."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from ctnet_ray import storage
from ctnet_ray.samples.store import SampleStore

FIRST = date(2024, 1, 1)
ROWS = {"feed": 600, "channel": 400}
_USERS, _ITEMS, _NEW_ITEMS = 60, 120, 1  #: and new items a day


def day_of(number: int) -> date:
    """Return the day of a number, from 0."""
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class World:
    """Where everything is.

    Args:
        root: A local folder.
        kept_days: Days for which samples are kept.
    """

    root: Path
    kept_days: int

    @property
    def store(self) -> SampleStore:
        """The sample store."""
        return SampleStore(str(self.root / "samples"))

    def schema(self, name: str, item_rows: int) -> str:
        """Write a schema and return its path."""
        path = self.root / f"{name}.yaml"
        tables = {"item": {"rows": item_rows}, "user": {"rows": 64}}
        features = {table: {"kind": "categorical"} for table in tables}
        path.write_text(yaml.safe_dump({"embedding_dim": 4, "tables": tables, "features": features}))
        return str(path)

    def config(self, name: str, domain: str, schema: str, first: date, **transfer: Any) -> str:
        """Write the configuration of a daily job and return its path."""
        path = self.root / f"{name}.yaml"
        content = {
            "data": {
                "store": self.store.root,
                "schema": schema,
                "domain": domain,
                "first_day": str(first),
                "last_day": "newest",
                "missing_days": "skip",
            },
            "model": {"hidden": [16, 8], "embedding_init": 0.1},
            "training": {"batch_size": 64, "dense_learning_rate": 0.01, "embedding_learning_rate": 0.3},
            **({"transfer": transfer} if transfer else {}),
            "tracking": {
                "models": str(self.root / "models"),
                "mlflow_uri": f"sqlite:///{self.root}/mlflow.db",
                "experiment": "two-years",
                "name": name,
            },
            "daily": {"source_lag_days": 1, "retention": {"newest": 14, "every": 60}},
        }
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def write_day(self, domain: str, number: int, inverted: bool = False) -> None:
        """Write a domain's samples of a day: users like some items, and new items come every day.

        Args:
            domain: The domain.
            number: The day.
            inverted: Whether users like what they did not.
        """
        rng = np.random.default_rng([number, sum(domain.encode())])
        rows = ROWS[domain]
        user = rng.integers(1, _USERS, rows)
        item = rng.integers(1, _ITEMS, rows) + number * _NEW_ITEMS
        liking = 2 - item % 7 / 2 - user % 3
        click = rng.random(rows) < 1 / (1 + np.exp(-3 * liking if inverted else liking))
        columns = {"item": item, "user": user, "label": click.astype(np.int8), "group": user}
        with self.store.write_day(domain, day_of(number)) as writer:
            writer.write(pa.table(columns))

    def drop_old_days(self, number: int) -> None:
        """Remove the samples that are older than what is kept."""
        for domain in ROWS:
            storage.remove(self.store.uri(domain, day_of(number - self.kept_days)))

    def disk_bytes(self) -> int:
        """Return what samples, versions and MLflow's files take."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
