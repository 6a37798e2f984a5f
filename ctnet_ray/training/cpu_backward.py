"""A fast backward pass of unpooled embeddings on CPUs.

FBGEMM 1.8's CPU kernel for unpooled embeddings collects the gradient of every row in nested hash maps: with
20 tables of 200,000 rows x 16 and batch 4096 that is three quarters of a training step. Its kernel for pooled
embeddings sorts row numbers instead, and is five times as fast. N row numbers are N bags of one row each, so
the pooled kernel can make the same update.

Both of them pass a weight decay over. An L2 penalty d |w|^2 / 2 of the rows that a step looks up is one more
gradient of each, d w, and is made so here.
"""

import functools
import warnings
from itertools import groupby
from typing import Any

import torch

_POOLED = "split_embedding_backward_codegen_rowwise_adagrad_cpu"
_UNPOOLED = "split_embedding_nobag_backward_codegen_rowwise_adagrad_cpu"
_SUM = 0  #: pooling mode


@functools.cache
def install() -> torch.library.Library:
    """Let FBGEMM's unpooled row-wise Adagrad on CPUs be `update`, in this process, from now on."""
    # The import defines the operators.
    import fbgemm_gpu.split_table_batched_embeddings_ops_training  # noqa: F401

    library = torch.library.Library("fbgemm", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
        library.impl(_UNPOOLED, update, "CPU", allow_override=True)
    return library


def update(
    grad_output_ND: torch.Tensor,
    host_weights: torch.Tensor,
    weights_placements_F: torch.Tensor,
    weights_offsets_F: torch.Tensor,
    dim: int,
    hash_size_cumsum: torch.Tensor,
    total_hash_size_bits: int,
    indices_N: torch.Tensor,
    offsets: torch.Tensor,
    stochastic_rounding: bool,
    momentum_host: torch.Tensor,
    momentum_placements_F: torch.Tensor,
    momentum_offsets_F: torch.Tensor,
    learning_rate: torch.Tensor,
    eps: float = 0.0,
    weight_decay: float = 0.0,
    *_: Any,
) -> None:
    """Update the rows of F features' tables by row-wise Adagrad, in place.

    Arguments are those of the FBGEMM operator that this stands in for. `host_weights` holds all tables, each
    feature's from its offset on. Of B examples' N row numbers, feature f has those from offsets[f B] to
    offsets[(f + 1) B]. Features that share a table stand side by side; their gradients are added up before
    the update.
    """
    pooled = getattr(torch.ops.fbgemm, _POOLED)
    tables = weights_offsets_F.tolist()
    bounds = offsets[:: max((len(offsets) - 1) // len(tables), 1)].tolist()
    dims = torch.tensor([0, dim], dtype=torch.int32)
    bag_bounds = torch.arange(2 * len(indices_N) + 1, dtype=indices_N.dtype)
    for _, features in groupby(range(len(tables)), key=tables.__getitem__):
        first, *others = features
        last = others[-1] if others else first
        start, stop = bounds[first], bounds[last + 1]
        if start == stop:
            continue
        grad_MD, rows_M = grad_output_ND[start:stop], indices_N[start:stop]
        if weight_decay:
            numbers = host_weights[tables[first] :]
            grad_MD, rows_M = _with_decay(grad_MD, rows_M, numbers, weight_decay)
        pooled(
            grad_MD,
            host_weights,
            weights_placements_F[first : first + 1],
            weights_offsets_F[first : first + 1],
            dims,
            dim,
            hash_size_cumsum[[first, last + 1]],
            total_hash_size_bits,
            rows_M,
            bag_bounds[: len(rows_M) + 1],
            _SUM,
            torch.empty(0),  # no weights of single rows
            stochastic_rounding,
            momentum_host,
            momentum_placements_F[first : first + 1],
            momentum_offsets_F[first : first + 1],
            learning_rate,
            eps,
        )


def _with_decay(
    grad_MD: torch.Tensor, rows_M: torch.Tensor, numbers: torch.Tensor, weight_decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gradients and row numbers with the penalty's of each row that is among them.

    Args:
        grad_MD: Gradients.
        rows_M: Row numbers; one may stand there often, and is penalised once.
        numbers: The table's, row after row.
        weight_decay: The penalty.
    """
    dim = grad_MD.shape[1]
    rows_U = rows_M.unique()
    row_UD = numbers[rows_U.unsqueeze(1) * dim + torch.arange(dim)]
    return torch.cat((grad_MD, weight_decay * row_UD)), torch.cat((rows_M, rows_U))
