"""Joint networks on two workers: each step leaves the other domain's parameters unused, on both."""

import json
from pathlib import Path

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.joint.dasl import Dasl
from ctnet_ray.models.joint.ddtcdr import Ddtcdr
from ctnet_ray.models.joint.minet import MiNet
from ctnet_ray.models.joint.mlp_pp import MlpPP
from ctnet_ray.models.joint.ple import Ple
from tests.unit.joint_world import DOMAINS, INTERESTS, PLAIN, Trainer, batch_of, loss, rows
from tests.unit.workers import run_workers

NETWORKS = {MlpPP: PLAIN, Ple: PLAIN, Ddtcdr: PLAIN, MiNet: INTERESTS, Dasl: INTERESTS}


def test_two_workers_stay_together_and_learn(tmp_path: Path) -> None:
    run_workers(_work, 2, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert set(first) == {make.__name__ for make in NETWORKS}
    for name, dense in first.items():
        assert dense == second[name], name


def _halves(schema: object, rank: int) -> list[Batch]:
    made = rows(64)[rank::2]
    odd = [float(row["item"][0] % 2) for row in made]
    return [batch_of(made, schema, domain, odd) for domain in DOMAINS]  # type: ignore[arg-type]


def _work(rank: int, world_size: int, folder: Path) -> None:
    kept = {}
    for make, schema in NETWORKS.items():
        trainer, batches = Trainer(make, schema), _halves(schema, rank)
        before = [loss(trainer.model, batch).item() for batch in batches]
        for _ in range(12):
            for batch in batches:
                trainer.step(batch)
        after = [loss(trainer.model, batch).item() for batch in batches]
        assert all(end < start for start, end in zip(before, after, strict=True)), (make, before, after)
        dense = dict(trainer.model.named_parameters())
        kept[make.__name__] = {
            name: value.tolist() for name, value in dense.items() if "embeddings" not in name
        }
    (folder / f"{rank}.json").write_text(json.dumps(kept))
