"""The pooled kernel in the unpooled one's place, against row-wise Adagrad written out."""

import numpy as np
import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    EmbeddingLocation,
    SplitTableBatchedEmbeddingBagsCodegen,
)

from ctnet_ray.training import cpu_backward

ROWS, DIM, BATCH, RATE, EPS = 30, 8, 16, 0.1, 1e-8


def _embeddings(table_of_feature: list[int]) -> SplitTableBatchedEmbeddingBagsCodegen:
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)] * (max(table_of_feature) + 1),
        feature_table_map=table_of_feature,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RATE,
        eps=EPS,
        pooling_mode=PoolingMode.NONE,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("table_of_feature", [[0], [0, 1, 2], [0, 0, 1], [0, 1, 1, 1]])
def test_updates_are_those_of_rowwise_adagrad(
    table_of_feature: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu_backward.install()
    used = []
    pooled = torch.ops.fbgemm.split_embedding_backward_codegen_rowwise_adagrad_cpu
    monkeypatch.setattr(
        torch.ops.fbgemm,
        "split_embedding_backward_codegen_rowwise_adagrad_cpu",
        lambda *args: used.append(1) or pooled(*args),
    )
    rng = np.random.default_rng(0)
    embeddings = _embeddings(table_of_feature)
    embeddings.init_embedding_weights_uniform(-1, 1)
    weights = [table.detach().numpy().copy() for table in embeddings.split_embedding_weights()]
    squares = [np.zeros(ROWS) for _ in weights]
    for _ in range(3):
        # Feature 0 has one row number an example, others none to three; rows repeat.
        lengths = rng.integers(0, 4, (len(table_of_feature), BATCH))
        lengths[0] = 1
        indices = rng.integers(0, ROWS // 2, lengths.sum())
        offsets = np.concatenate([[0], lengths.cumsum()])
        output = embeddings(torch.from_numpy(indices), torch.from_numpy(offsets))
        gradient = rng.normal(size=(len(indices), DIM)).astype(np.float32)
        output.backward(torch.from_numpy(gradient))
        tables = np.repeat(table_of_feature, lengths.sum(1))
        for table, (weight, square) in enumerate(zip(weights, squares, strict=True)):
            mean = np.zeros((ROWS, DIM))
            np.add.at(mean, indices[tables == table], gradient[tables == table])
            square += (mean**2).mean(1)
            weight -= (RATE * mean / (np.sqrt(square)[:, None] + EPS)).astype(np.float32)
    for found, expected in zip(embeddings.split_embedding_weights(), weights, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    assert used, "the operator is not reached: this FBGEMM calls another one"


def test_features_without_rows_change_nothing() -> None:
    cpu_backward.install()
    embeddings = _embeddings([0, 1])
    embeddings.init_embedding_weights_uniform(-1, 1)
    before = [table.detach().clone() for table in embeddings.split_embedding_weights()]
    offsets = torch.tensor([0, 0, 0, 1, 2])
    embeddings(torch.tensor([3, 4]), offsets).sum().backward()
    after = embeddings.split_embedding_weights()
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])
