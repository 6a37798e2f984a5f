"""DeepCTR-Torch: its WDL without the wide part, its fit with Adam, penalties on parameters switched off."""

import time

import pyarrow.parquet as pq
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import WDL
from harness import read_spec, tell


def main() -> None:
    """Train one epoch."""
    spec = read_spec()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = pq.read_table(spec.data)
    rows = {name: table[name].to_numpy() for name in spec.names}
    columns = [
        SparseFeat(name, vocabulary_size=spec.table_rows, embedding_dim=spec.dim) for name in spec.names
    ]
    model = WDL([], columns, dnn_hidden_units=tuple(spec.hidden), l2_reg_linear=0, l2_reg_embedding=0)
    model.compile("adam", "binary_crossentropy")
    started = time.perf_counter()
    history = model.fit(rows, table["label"].to_numpy(), batch_size=spec.batch_size, epochs=1, verbose=0)
    tell(time.perf_counter() - started, spec.rows, float(history.history["loss"][-1]))


if __name__ == "__main__":
    main()
