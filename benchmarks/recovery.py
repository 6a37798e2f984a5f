"""Kill a continual run at random moments, start it again, and compare it with one that was never killed.

Compared are the checksums of every version's files, every evaluation, and what MLflow shows: versions, number
of runs, points of the curves, status. One worker, base on one domain of a sample store.

    python -m benchmarks.recovery --store DIR --domain tab4 --first_day 2022-04-25 --last_day 2022-05-08
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from rich.console import Console

from ctnet_ray import storage
from ctnet_ray.metrics import COMPARED
from jobs.command import run

_CURVES = (*COMPARED, "train_loss")


def main(store: str, domain: str, first_day: date, last_day: date, kills: int = 3, seed: int = 0) -> None:
    """Run the domain's base model once undisturbed and once with kills, and say whether they are equal.

    Args:
        store: Sample store; its schema is STORE/schema.yaml.
        domain: Domain to train on.
        first_day: First day (YYYY-MM-DD).
        last_day: Last day (YYYY-MM-DD).
        kills: Number of SIGKILLs to the launching process and all that it started.
        seed: Seed of the moments.
    """
    console, moments = Console(), random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as root:
        whole, broken = Path(root) / "whole", Path(root) / "broken"
        days = ["--data.first_day", str(first_day), "--data.last_day", str(last_day)]
        data = [
            "--data.store",
            store,
            "--data.schema",
            f"{store}/schema.yaml",
            "--data.domain",
            domain,
            *days,
        ]
        started = time.monotonic()
        _start(whole, data).wait()
        seconds = time.monotonic() - started
        console.print(f"never killed: {seconds:.0f} s, {_days_done(whole)} days")
        days = (last_day - first_day).days + 1
        for version in sorted(moments.sample(range(days), kills)):
            process = _start(broken, data)
            # Starting takes most of the time: the moment is counted from the version before it.
            while _days_done(broken) < version and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.5))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            console.print(f"killed with {_days_done(broken)} of {days} days done")
        _start(broken, data).wait()
        same = {
            "versions and evaluations": (_versions(whole), _versions(broken)),
            "MLflow": (_picture(whole), _picture(broken)),
        }
        for what, (expected, found) in same.items():
            console.print(f"{what}: {'equal' if expected == found else 'DIFFERENT'}")
    sys.exit(any(expected != found for expected, found in same.values()))


def _start(root: Path, data: list[str]) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    tracking = ["--tracking.models", str(root / "models"), "--tracking.mlflow_uri", _uri(root)]
    command = [sys.executable, "-m", "jobs.train_target", *data, *tracking]
    with (root / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def _days_done(root: Path) -> int:
    return len(list((root / "models").glob(f"ctnet.*/day=*/{storage.MANIFEST}")))


def _versions(root: Path) -> dict[str, Any]:
    """Return the checksums of each version's files, computed anew, and the metrics of each evaluation."""
    run_folders = (root / "models").glob("ctnet.*")
    found: dict[str, Any] = {}
    for folder in run_folders:
        for path in sorted(folder.glob("day=*/*.safetensors")):
            found[f"{path.parent.name}/{path.name}"] = storage.sha256(str(path))
        for path in sorted(folder.glob("evaluations/*.json")):
            found[path.name] = storage.read_json(str(path))["metrics"]
    return found


def _picture(root: Path) -> dict[str, Any]:
    """Return what MLflow shows, without what differs between any two runs (ids, times)."""
    client = MlflowClient(_uri(root), _uri(root))
    runs = client.search_runs([entry.experiment_id for entry in client.search_experiments()])
    parents = [entry for entry in runs if "mlflow.parentRunId" not in entry.data.tags]
    return {
        "versions": sorted(str(version.tags.get("day")) for version in client.search_model_versions()),
        "runs": len(runs),
        "status": sorted(entry.info.status for entry in runs),
        "curves": [
            {
                key: [
                    (point.step, point.value) for point in client.get_metric_history(parent.info.run_id, key)
                ]
                for key in _CURVES
            }
            for parent in parents
        ],
    }


if __name__ == "__main__":
    run(main, __doc__ or "")
