"""The curves of two years: seconds of an invocation, memory, disk."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

_WINDOW_DAYS = 7


def draw(days: Path, image: Path) -> None:
    """Draw what `days.csv` holds.

    Args:
        days: The file.
        image: Where the picture goes.
    """
    table = pd.read_csv(days, parse_dates=["day"]).set_index("day")
    inside = table[~table["from_the_shell"]]
    figure = Figure(figsize=(9, 7), layout="constrained")
    seconds, memory, disk = figure.subplots(3, 1, sharex=True)
    weekly = pd.DataFrame(
        {
            "target": inside["target_cpu_seconds"],
            "source": inside["source_cpu_seconds"],
            "target, but for its step": inside["target_cpu_seconds"] - inside["target_walking_cpu_seconds"],
        }
    ).rolling(_WINDOW_DAYS)
    for label, values in weekly.median().items():
        seconds.plot(values, label=str(label))
    seconds.set(ylabel="CPU seconds of an invocation\n(median of a week)", ylim=(0, None))
    seconds.legend()
    memory.plot(table["memory_mib"])
    memory.set(ylabel="memory, MiB", ylim=(0, None))
    disk.plot(table["disk_mib"][table["disk_mib"] > 0])
    disk.set(ylabel="disk, MiB", ylim=(0, None))
    figure.savefig(image, dpi=100)
