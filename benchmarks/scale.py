"""A plan on paper: what a number of ids and of samples a day ask of memory, network, disk and time.

Nothing is measured here. Constants with "measured" are from docs/benchmarks.md, those with "assumed" from
data sheets, price lists or guesses; docs/scale.md says which and derives each formula. Every constant is an
option, so that a reader puts in the own ones.

    python -m benchmarks.scale --ids 10e9 --samples_per_day 1e9 --gpus 64
"""

import math
from dataclasses import dataclass
from typing import Any

from ctnet_ray.errors import CtnetError
from jobs.command import run

GB = 1e9
_FLOAT = 4  #: bytes
_ID = 8  #: bytes
Rows = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Scale:
    """The task, the machines, and constants."""

    ids: float = 10e9
    """Ids that have an embedding row of their own, over all tables."""
    samples_per_day: float = 1e9
    """Samples trained on each day, and scored the day after."""
    gpus: int = 64
    """GPUs, one worker each."""
    batch_size: int = 65_536
    """Rows of a step over all workers."""
    dim: int = 16
    """Width of an embedding."""
    lookups: float = 20.0
    """Embedding rows that a sample reads: its features, and the elements of its histories."""
    dense_parameters: float = 123_393.0
    """Parameters of the MLP: 320-256-128-64-1."""
    frozen_ids: float = 0.0
    """Rows of a frozen source tower's tables beside them (CTNet): no gradient, no optimiser state."""
    gpus_per_host: int = 8
    """GPUs of one machine."""
    gpu_memory: float = 80.0
    """GB of a GPU; assumed: H100's data sheet."""
    gpu_memory_share: float = 0.7
    """Share of it that tables may take; assumed: the rest is for activations, buffers, CUDA."""
    step_fixed: float = 3.67e-3
    """Seconds of a step besides its rows; measured on one GPU."""
    step_row: float = 24e-9
    """Seconds of a step for each row of a worker; measured on one GPU."""
    feed_row: float = 482e-9
    """Seconds by which a job is slower than its step, for each row of a worker; measured on one GPU."""
    host_link: float = 380.0
    """GB/s that a GPU sends to others of its machine; measured by others (NVLink 4)."""
    network_link: float = 50.0
    """GB/s that a GPU sends to other machines; assumed: an eighth of 3,200 Gbit/s."""
    network_share: float = 0.5
    """Share of the links' speed that all-to-all reaches; assumed."""
    parquet_row: float = 176.0
    """Bytes of a row on disk; measured with made-up ids, which don't compress."""
    scan_rows: float = 2.46e6
    """Rows/s that one core reads; measured."""
    save_write: float = 2.2
    """Seconds a GB for a worker to write its part, checksum included; measured."""
    load_rate: float = 2.5
    """GB/s that a machine loads from the models' root; assumed: 20 Gbit/s."""
    score_bytes: float = 17.0
    """Bytes that evaluation keeps of a scored row, in temporary files."""
    start: float = 16.0
    """Seconds for Ray Train to start; measured."""
    gpu_hour: float = 4.916
    """Dollars for a GPU and hour; assumed: price list of 2024."""
    storage_month: float = 0.023
    """Dollars for a GB and month of an object store; assumed: price list."""
    versions_kept: int = 30
    """Versions that are kept, one a day."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 or (name == "frozen_ids" and value == 0)):
                raise CtnetError(f"{name} must be above 0, not {value}")

    @property
    def table_bytes(self) -> float:
        """Bytes of all trained tables: weights, and one float a row for row-wise Adagrad."""
        return self.ids * _FLOAT * (self.dim + 1)

    @property
    def frozen_bytes(self) -> float:
        """Bytes of the frozen tower's tables."""
        return self.frozen_ids * _FLOAT * self.dim

    @property
    def fewest_gpus(self) -> int:
        """GPUs whose memory holds the tables."""
        return math.ceil(
            (self.table_bytes + self.frozen_bytes) / (self.gpu_memory * GB * self.gpu_memory_share)
        )

    @property
    def version_bytes(self) -> float:
        """Bytes of a version: tables with their state, dense parameters with AdamW's two moments."""
        return self.table_bytes + 3 * _FLOAT * self.dense_parameters

    @property
    def hosts(self) -> int:
        """Machines."""
        return math.ceil(self.gpus / self.gpus_per_host)

    @property
    def worker_rows(self) -> float:
        """Rows of a step on each worker."""
        return self.batch_size / self.gpus

    @property
    def exchange_bytes(self) -> float:
        """Bytes that each GPU sends in a step: ids there, embeddings back, gradients there again.

        The frozen tower looks up as much, without gradients.
        """
        lookup = _ID + 2 * _FLOAT * self.dim + (_ID + _FLOAT * self.dim if self.frozen_ids else 0)
        return self.worker_rows * self.lookups * lookup * (self.gpus - 1) / self.gpus

    @property
    def reduce_bytes(self) -> float:
        """Bytes that each GPU sends in a step for the dense gradients' ring all-reduce."""
        return 2 * (self.gpus - 1) / self.gpus * _FLOAT * self.dense_parameters

    @property
    def network_seconds(self) -> float:
        """Seconds of a step on the links, were nothing hidden behind computation."""
        others = self.gpus - 1
        near = min(self.gpus_per_host, self.gpus) - 1
        far_share = (others - near) / others if others else 0.0
        sent = self.exchange_bytes + self.reduce_bytes
        inside = sent * (1 - far_share) / self.host_link
        outside = sent * far_share / self.network_link
        # Both kinds of link are busy at the same time: the slower one counts.
        return max(inside, outside) / (GB * self.network_share)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of the whole job."""
        return self.step_fixed + self.worker_rows * (self.step_row + self.feed_row) + self.network_seconds

    @property
    def steps(self) -> int:
        """Steps of a day."""
        return math.ceil(self.samples_per_day / self.batch_size)

    @property
    def train_seconds(self) -> float:
        """Seconds to train on a day."""
        return self.steps * self.step_seconds

    @property
    def evaluate_seconds(self) -> float:
        """Seconds to score a day: at most what its training takes, in batches of 8,192 rows a worker."""
        steps = math.ceil(self.samples_per_day / (8192 * self.gpus))
        return steps * (self.step_fixed + 8192 * (self.step_row + self.feed_row))

    @property
    def save_seconds(self) -> float:
        """Seconds to save a version, each worker its part."""
        return self.version_bytes / GB / self.gpus * self.save_write

    @property
    def load_seconds(self) -> float:
        """Seconds to load a version, and the frozen tower's, each worker its part."""
        return (self.version_bytes + self.frozen_bytes) / GB / self.hosts / self.load_rate

    @property
    def day_seconds(self) -> float:
        """Seconds from the start of a day's job to its end."""
        parts = (self.start, self.load_seconds, self.train_seconds)
        return sum(parts) + self.save_seconds + self.evaluate_seconds

    @property
    def day_dollars(self) -> float:
        """Dollars for the GPUs of a day's job."""
        return self.gpus * self.day_seconds / 3600 * self.gpu_hour

    @property
    def storage_dollars(self) -> float:
        """Dollars a month for the versions that are kept."""
        return self.versions_kept * self.version_bytes / GB * self.storage_month


def tables(scale: Scale) -> dict[str, Rows]:
    """Return what is printed: (what, formula, figure) by title."""
    s = scale
    rate = s.samples_per_day / s.train_seconds
    return {
        "Memory": [
            ("tables with Adagrad's state", "4 I (d + 1)", _bytes(s.table_bytes)),
            ("frozen tower's tables", "4 I_f d", _bytes(s.frozen_bytes)),
            ("per GPU", "(4 I (d + 1) + 4 I_f d) / G", _bytes((s.table_bytes + s.frozen_bytes) / s.gpus)),
            ("GPUs that hold them", "(4 I (d + 1) + 4 I_f d) / (M m)", f"{s.fewest_gpus}"),
            (
                "scored rows, on a worker's disk",
                "17 D / G",
                _bytes(s.score_bytes * s.samples_per_day / s.gpus),
            ),
        ],
        "A step": [
            ("rows of a worker", "b = B / G", f"{s.worker_rows:,.0f}"),
            ("all-to-all, sent by a GPU", "b L (8 + 8 d [+ 8 + 4 d]) (G - 1) / G", _bytes(s.exchange_bytes)),
            ("all-reduce, sent by a GPU", "8 P (G - 1) / G", _bytes(s.reduce_bytes)),
            ("computing and feeding", "t0 + b (t + e)", _seconds(s.step_seconds - s.network_seconds)),
            ("network", "bytes / link", _seconds(s.network_seconds)),
            ("speed", "D / T_train", f"{rate / 1e6:,.1f} million rows/s"),
        ],
        "Reading": [
            ("a day on disk", "r D", _bytes(s.parquet_row * s.samples_per_day)),
            ("from the store while training", "r D / T_train", f"{_bytes(s.parquet_row * rate)}/s"),
            ("cores that read", "D / (T_train q)", f"{math.ceil(rate / s.scan_rows)}"),
        ],
        "A day": [
            ("start", "", _seconds(s.start)),
            ("load", "(V + 4 I_f d) / (H l)", _seconds(s.load_seconds)),
            ("train", "D / B steps", _seconds(s.train_seconds)),
            ("save", "V w / G", _seconds(s.save_seconds)),
            ("evaluate", "D / (8192 G) steps", _seconds(s.evaluate_seconds)),
            ("whole day", "sum", _seconds(s.day_seconds)),
            ("GPUs", "G x hours x price", f"${s.day_dollars:,.0f}"),
            ("a version", "V = 4 I (d + 1) + 12 P", _bytes(s.version_bytes)),
            (f"{s.versions_kept} versions, a month", "versions x V x price", f"${s.storage_dollars:,.0f}"),
        ],
    }


def markdown(scale: Scale) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, rows in tables(scale).items():
        lines = [f"| {title} | formula | |", "| --- | --- | --- |"]
        lines += [
            f"| {what} | {f'`{formula}`' if formula else ''} | {figure} |" for what, formula, figure in rows
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", GB), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.3g} {unit}"
    return f"{count / 1e3:,.3g} kB"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:,.3g} ms"
    return f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"


def main(**constants: Any) -> None:
    """Print the tables of docs/scale.md."""
    print(markdown(Scale(**constants)))


if __name__ == "__main__":
    run(main, __doc__ or "")
