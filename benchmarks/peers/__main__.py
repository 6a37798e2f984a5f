"""Train the same model with this project and with others, in turns, on one pinned core.

The model: 20 categorical features, a table of 200,000 rows x 16 for each, an MLP of 256-128-64, batches of
4096, one epoch over Parquet. With --histories N each of the first N features has a click history: up to
--length rows of its table, pooled by DIN's attention. Each peer has an environment of its own from the
package index, made at the first run.

    python -m benchmarks.peers --repeats 5
    python -m benchmarks.peers --repeats 5 --histories 1

A peer does this with what its users have: its own layers, reader and loop. Where it leaves a choice, the
same work is chosen. What differs still:

- Ids: this project reads 64-bit ids and folds them into row numbers while it trains. The others are given
  row numbers, the same ones.
- Optimiser: this project and TorchRec by hand update embeddings by row-wise Adagrad and the rest by Adam,
  torch's sparse way by Adagrad and Adam, all others everything by Adam. FuxiCTR clips the gradient's norm
  too.
- MLP: torch-rechub's has batch normalisation, which can't be left out.
- Rows: torch-rechub and DeepCTR-Torch hold all of them in memory, and shuffle them.
- Attention: one hidden layer of the same width, PReLU and softmax for all. FuxiCTR's PReLU has a slope for
  each unit. torch-rechub's network has batch normalisation, over padded items too, and no mask: what is
  padded is a vector of zero with a share of the softmax. DeepCTR-Torch's DIN attends to all histories side
  by side, by the length of the first; it looks features and histories up a second time, and leaves that
  unused. Only this project's does without the concatenation of query, item, difference and product.
- Padding: this project, TorchRec by hand and plain torch pad to the longest history of a batch, the first
  two after looking up. The libraries pad to --length before they train: that is in the time of the whole
  command, and not in the training rate.
- TorchRec by hand keeps the tables that histories look into in an EmbeddingCollection, whose update on CPUs
  is slow; this project puts another kernel in its place (`ctnet_ray/training/cpu_backward.py`).

Training is timed from the first batch's end to the last's. It is less than that for the step alone, which
reads nothing and trains on 32 batches over and over, and for the MLP alone, whose input is always the same.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks import samples
from benchmarks.job import machine_facts
from benchmarks.memory import Sampler
from benchmarks.peers.harness import Spec
from benchmarks.peers.report import Measured, doubtful_losses, make_table
from benchmarks.peers.rows import write_rows
from ctnet_ray.config import ModelConfig
from ctnet_ray.errors import CtnetError
from jobs.command import run

_FOLDER = Path(__file__).parent
_LOOK_SECONDS = 3.0  #: between two looks at the memory of all processes, which takes time from them


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
    limit: bool = False
    """It trains a part of the model, or nothing: what no peer can be faster than."""


PEERS = {
    "job": Peer("ctnet-ray, whole job through Ray", "peer_ours", "job"),
    "step": Peer("ctnet-ray, training step alone", "peer_ours", "step"),
    "job_bf16": Peer("ctnet-ray, whole job, bfloat16", "peer_ours", "job_bf16"),
    "step_bf16": Peer("ctnet-ray, training step alone, bfloat16", "peer_ours", "step_bf16"),
    "torchrec": Peer("TorchRec by hand", "peer_torchrec"),
    "sparse": Peer("torch, sparse Adagrad", "peer_torch", "sparse"),
    "fused": Peer("torch, dense Adam, fused", "peer_torch", "fused"),
    "dense": Peer("torch, dense Adam, as it comes", "peer_torch", "dense"),
    "fuxictr": Peer("FuxiCTR 2.3.10", "peer_fuxictr", package="fuxictr==2.3.10"),
    "rechub": Peer("torch-rechub 0.9.0", "peer_rechub", package="torch-rechub==0.9.0"),
    "deepctr": Peer(
        "DeepCTR-Torch 0.3.0", "peer_deepctr", package="deepctr-torch==0.3.0", needs=("requests",)
    ),
    "mlp": Peer("limit: the MLP alone", "peer_torch", "mlp", limit=True),
    "mlp_input_gradient": Peer(
        "limit: the MLP alone, with the gradient of its input", "peer_torch", "mlp_input_gradient", limit=True
    ),
    "scan": Peer("limit: the Parquet scan alone", "peer_torch", "scan", limit=True),
}


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
    histories: int = 0,
    length: int = 20,
) -> None:
    """Measure peers in turns, `repeats` times.

    Args:
        peers: Which, of job, step, job_bf16, step_bf16, torchrec, sparse, fused, dense, fuxictr, rechub,
            deepctr, mlp, mlp_input_gradient, scan.
        rows: Rows of the epoch.
        repeats: Rounds; each peer runs once in each, and medians are printed.
        core: CPU that everything is pinned to.
        environments: Folder of the peers' virtual environments; made where they are not there.
        features: Number of categorical features.
        table_rows: Rows of each feature's table.
        dim: Width of an embedding.
        hidden: Widths of the MLP's hidden layers.
        batch_size: Rows of a step.
        histories: Number of click histories, each attending to the feature whose table it looks into.
        length: Longest history; lengths are uniform from 0.
    """
    sizes = (rows, features, table_rows, dim, list(hidden), batch_size, histories, length)
    spec = Spec("", *sizes, attention_hidden=ModelConfig.attention_hidden)
    _check(spec, peers, repeats)
    console = Console()
    console.print(machine_facts(1) + f", core {core}")
    pythons = {PEERS[name].package: _python(PEERS[name], Path(environments)) for name in peers}
    found: dict[str, list[Measured]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory(prefix="ctnet-peers-") as root:
        spec = replace(spec, data=f"{root}/rows.parquet")
        write_rows(spec, root)
        with Progress(console=Console(stderr=True)) as progress:
            for name in progress.track(list(peers) * repeats):
                found[name].append(_measure(PEERS[name], pythons[PEERS[name].package], spec, core))
    labels = {name: PEERS[name].label for name in found}
    what = f"{rows:,} rows, {histories} histories" if histories else f"{rows:,} rows"
    console.print(make_table(found, labels, what))
    trained = {name: runs for name, runs in found.items() if not PEERS[name].limit}
    for line in doubtful_losses(trained, labels):
        console.print(line)


def _check(spec: Spec, peers: tuple[str, ...], repeats: int) -> None:
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        raise CtnetError(f"no peer {unknown[0]!r}: there are {', '.join(PEERS)}")
    if not repeats > 0:
        raise CtnetError(f"{repeats} repeats: give at least 1")
    if spec.rows < 2 * spec.batch_size:
        raise CtnetError(f"{spec.rows} rows are not two batches of {spec.batch_size}: give more rows")
    if not 0 <= spec.histories < spec.features:
        raise CtnetError(f"{spec.histories} histories: give 0 to {spec.features - 1}, fewer than features")
    if not spec.length > 0:
        raise CtnetError(f"histories of length {spec.length}: give at least 1")


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
    with Sampler(_LOOK_SECONDS, process.pid) as sampler:
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
        loss=result["loss"],
    )


if __name__ == "__main__":
    run(main, __doc__ or "")
