"""Memory and time of a day's metrics, in a process of its own, without a model and without Ray.

It takes rows as the loop hands them over, batch by batch, and prints one line of JSON.

    python -m benchmarks.growth.evaluation ROWS
"""

import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil
import torch

from ctnet_ray.training.batch_loader import EVALUATION_BATCH_SIZE
from ctnet_ray.training.memory import peak_mib, reset_peak
from ctnet_ray.training.metrics import Collector, Scores

_ROWS_PER_GROUP = 20


def main(rows: int) -> None:
    """Collect and evaluate `rows` made-up rows."""
    cpu, resident = torch.device("cpu"), psutil.Process().memory_info().rss / (1 << 20)
    reset_peak(cpu)
    making = 0.0
    started = mark = time.perf_counter()
    with Collector() as collector:
        for scores in _batches(rows):
            making += time.perf_counter() - mark
            collector.add(scores)
            mark = time.perf_counter()
        metrics = collector.metrics()
    seconds = time.perf_counter() - started - making
    print(json.dumps({"seconds": seconds, "added_mib": peak_mib(cpu) - resident, "metrics": metrics}))


def _batches(rows: int) -> Iterator[Scores]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, EVALUATION_BATCH_SIZE):
        size = min(EVALUATION_BATCH_SIZE, rows - start)
        label = (rng.random(size) < 1 / 3).astype(np.float32)
        score = rng.normal(-1.0, 1.0, size).astype(np.float32)
        yield Scores(label, score, rng.integers(0, max(rows // _ROWS_PER_GROUP, 1), size))


if __name__ == "__main__":
    main(int(sys.argv[1]))
