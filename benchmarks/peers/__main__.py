"""Train the same model with this project and with others, in turns, on one pinned core.

The model: 20 categorical features, a table of 200,000 rows x 16 for each, an MLP of 256-128-64, batches of
4096, one epoch over Parquet. Each peer has an environment of its own from the package index, made at the
first run. This project reads 64-bit ids and folds them into row numbers while it trains; the others are given
row numbers, the same ones. It updates embeddings by row-wise Adagrad and the rest by Adam, like TorchRec by
hand; each other peer has its own default, which is what its users get.

    python -m benchmarks.peers --repeats 5
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.memory import Sampler
from benchmarks.peers.harness import Spec
from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.encoder import Encoder
from ctnet_ray.samples.reading import plan_reading, read_local
from jobs.command import run

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """Something that trains the model."""

    label: str
    script: str
    kind: str = ""
    package: str = ""
    """Its package, pinned; empty: it runs in this project's environment."""
    needs: tuple[str, ...] = ()
    """Packages that it imports and does not ask for."""


PEERS = {
    "job": Peer("ctnet-ray, whole job through Ray", "peer_ours", "job"),
    "step": Peer("ctnet-ray, training step alone", "peer_ours", "step"),
    "torchrec": Peer("TorchRec by hand", "peer_torchrec"),
    "sparse": Peer("torch, sparse Adagrad", "peer_torch", "sparse"),
    "fused": Peer("torch, dense Adam, fused", "peer_torch", "fused"),
    "dense": Peer("torch, dense Adam, as it comes", "peer_torch", "dense"),
    "fuxictr": Peer("FuxiCTR 2.3.10", "peer_fuxictr", package="fuxictr==2.3.10"),
    "rechub": Peer("torch-rechub 0.9.0", "peer_rechub", package="torch-rechub==0.9.0"),
    "deepctr": Peer(
        "DeepCTR-Torch 0.3.0", "peer_deepctr", package="deepctr-torch==0.3.0", needs=("requests",)
    ),
    "mlp": Peer("limit: the MLP alone", "peer_torch", "mlp"),
    "scan": Peer("limit: the Parquet scan alone", "peer_torch", "scan"),
}


@dataclass(frozen=True)
class Measured:
    """One run of a peer."""

    train: float
    """Rows per second from the first batch's end to the last one's."""
    whole: float
    """Rows per second of the whole command, from its start to its exit."""
    trainer_mib: float
    """Peak resident memory of the process that trains."""
    all_mib: float
    """Peak of all its processes, shared pages counted once."""


def main(
    peers: tuple[str, ...] = tuple(PEERS),
    rows: int = 1_000_000,
    repeats: int = 5,
    core: int = 0,
    environments: str = "runs/peers",
    features: int = 20,
    table_rows: int = 200_000,
    dim: int = 16,
    hidden: tuple[int, ...] = samples.HIDDEN,
    batch_size: int = 4096,
) -> None:
    """Measure peers in turns, `repeats` times.

    Args:
        peers: Which, of job, step, torchrec, sparse, fused, dense, fuxictr, rechub, deepctr, mlp, scan.
        rows: Rows of the epoch.
        repeats: Rounds; each peer runs once in each, and medians are printed.
        core: CPU that everything is pinned to.
        environments: Folder of the peers' virtual environments; made where they are not there.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        hidden: Widths of the MLP's hidden layers.
        batch_size: Rows of a step.
    """
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise CtnetError(f"no peer {unknown[0]!r}: there are {', '.join(PEERS)}")
    console = Console()
    console.print(machine_facts(1) + f", core {core}")
    pythons = {PEERS[name].package: _python(PEERS[name], Path(environments)) for name in peers}
    found: dict[str, list[Measured]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory(prefix="ctnet-peers-") as root:
        spec = Spec(f"{root}/rows.parquet", rows, features, table_rows, dim, list(hidden), batch_size)
        _write(spec, root)
        with Progress(console=Console(stderr=True)) as progress:
            for name in progress.track(list(peers) * repeats):
                found[name].append(_measure(PEERS[name], pythons[PEERS[name].package], spec, core))
    console.print(_table(found, rows))


def _python(peer: Peer, environments: Path) -> str:
    """Return the interpreter of a peer's environment, made if it is not there."""
    if not peer.package:
        return sys.executable
    folder = environments.absolute() / peer.package.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        Console(stderr=True).log(f"making {folder} (minutes)")
        venv.create(folder, with_pip=True, clear=True)
        # torch is named, so that it is the build that is used everywhere here.
        wanted = ["torch==2.13.0", "pyarrow", peer.package, *peer.needs]
        subprocess.run([python, "-m", "pip", "install", "-qq", *wanted], check=True)
        (folder / ".ready").touch()
    return str(python)


def _write(spec: Spec, root: str) -> None:
    """Write a sample day, and its row numbers as plain Parquet."""
    schema = samples.make_schema(spec.features, spec.table_rows, spec.dim, 0, 0)
    (day,) = samples.write_days(f"{root}/samples", schema, 1, spec.rows)
    plan = samples.make_plan(root, "rows", schema, [day], spec.batch_size, evaluate=False)
    encoder = Encoder(plan.model.towers, plan.record.domain)
    reading = plan_reading(day, rank=0, world_size=1, batch_size=spec.batch_size)
    writer = None
    for table in read_local([reading], encoder.folding.columns):
        block = encoder.encode(table)
        columns = {key.feature.name: pa.array(rows.astype("int64")) for key, rows in block.dense.items()}
        part = pa.table({**columns, "label": pa.array(block.label_N)})
        writer = writer or pq.ParquetWriter(spec.data, part.schema)
        writer.write_table(part)
    assert writer  # noqa: S101
    writer.close()


def _measure(peer: Peer, python: str, spec: Spec, core: int) -> Measured:
    told = json.dumps({**asdict(spec), "kind": peer.kind})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = "" if peer.package else str(_FOLDER.parents[1])
    command = [python, "-W", "ignore", str(_FOLDER / f"{peer.script}.py"), told]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    psutil.Process(process.pid).cpu_affinity([core])  # children inherit it
    with Sampler(root=process.pid) as sampler:
        printed, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise CtnetError(f"{peer.label} failed: {' '.join(errors.split()[-60:])}")
    result = json.loads(printed.splitlines()[-1])
    return Measured(
        train=result["rows"] / result["train_seconds"],
        whole=spec.rows / seconds,
        trainer_mib=result["peak_mib"],
        all_mib=sampler.peaks.all_processes,
    )


def _table(found: dict[str, list[Measured]], rows: int) -> Table:
    def median(name: str, key: str) -> float:
        return statistics.median(getattr(own, key) for own in found[name])

    def ratio(name: str, key: str) -> str:
        if "job" not in found:
            return ""
        pairs = zip(found["job"], found[name], strict=True)
        return f"{statistics.median(getattr(a, key) / getattr(b, key) for a, b in pairs):.2f}"

    table = Table(
        "",
        "rows/s, training",
        "job against it",
        "rows/s, whole command",
        "job against it",
        "peak MiB, trainer",
        "peak MiB, all",
        title=f"{rows:,} rows; medians; ratios are medians of the rounds' ratios",
    )
    for name, runs in found.items():
        rates = " ".join(f"{own.train / 1000:.1f}" for own in runs)
        table.add_row(
            PEERS[name].label,
            f"{median(name, 'train'):,.0f} ({rates} k)",
            ratio(name, "train"),
            f"{median(name, 'whole'):,.0f}",
            ratio(name, "whole"),
            f"{median(name, 'trainer_mib'):,.0f}",
            f"{median(name, 'all_mib'):,.0f}",
        )
    return table


if __name__ == "__main__":
    run(main, __doc__ or "")
