"""Make a small world, train a source series, base and CTNet on it, and show what CTNet brings.

make demo
"""

from pathlib import Path

from jobs import compare, prepare
from jobs.command import run

FOLDER = "demo"  #: everything the demo writes; configs/demo.yaml names the same


def main() -> None:
    """Write demo/samples unless they are there, then run the comparison of configs/demo.yaml."""
    store = Path(FOLDER) / "samples"
    if not (store / "schema.yaml").exists():
        prepare.synthetic(out=str(store), days=10, source_rows=40_000, target_rows=6_000)
    run(compare.main, __doc__ or "", args=["--config", "configs/demo.yaml"])


if __name__ == "__main__":
    run(main, __doc__ or "")
