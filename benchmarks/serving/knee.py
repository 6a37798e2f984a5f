"""Offer rising load to a server on this machine until it does not keep up: p50, p95, p99 by rate, the knee.

python -m jobs.serve --model NAME@ALIAS &
python -m benchmarks.serving.knee --body request.json
"""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.serving.load import find_knee, knee
from ctnet_ray.errors import CtnetError
from jobs.command import run


def main(
    body: str, port: int = 8000, seconds: float = 5.0, most_p99: float = 50.0, first_rate: float = 20.0
) -> None:
    """Print a row for each rate, the last of which the server did not keep up with.

    Args:
        body: File with the JSON body of a request, as `POST /score` takes it.
        port: Port of the server, on 127.0.0.1.
        seconds: Seconds at each rate.
        most_p99: Milliseconds; a p99 beyond it counts as not keeping up.
        first_rate: Requests a second to begin with; each rate is 1.25 times the one before.
    """
    try:
        content = Path(body).read_bytes()
    except OSError as error:
        raise CtnetError(f"no request in {body} ({error.strerror}): write its JSON body into it") from error
    loads = find_knee("127.0.0.1", port, [content], seconds, most_p99, first_rate)
    table = Table("due/s", "answered/s", "failed", "p50 ms", "p95 ms", "p99 ms")
    for load in loads:
        figures = (load.rate, load.answered, load.failed, load.p50, load.p95, load.p99)
        table.add_row(*(f"{figure:.1f}" if isinstance(figure, float) else str(figure) for figure in figures))
    console = Console()
    console.print(table)
    best = knee(loads, most_p99)
    console.print(f"knee: {best.answered:.0f} requests/s, p99 {best.p99:.1f} ms" if best else "knee: none")


if __name__ == "__main__":
    run(main, __doc__ or "")
