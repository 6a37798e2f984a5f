"""DeepCTR-Torch: its WDL without the wide part, its fit with Adam, penalties on parameters switched off.

With histories its DIN, which attends to all of them side by side by one unit, by the length of the first.
"""

import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN, WDL
from deepctr_torch.models.basemodel import BaseModel
from harness import Clock, Spec, read_spec
from padded import read_padded


def make_model(spec: Spec) -> BaseModel:
    """Return the model; it asks for a history's items as hist_f00, and for their number."""
    features = [
        SparseFeat(name, vocabulary_size=spec.table_rows, embedding_dim=spec.dim) for name in spec.names
    ]
    if not spec.histories:
        return WDL([], features, tuple(spec.hidden), l2_reg_linear=0, l2_reg_embedding=0)
    histories = [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", spec.table_rows, spec.dim, embedding_name=name),
            maxlen=spec.length,
            length_name=f"length_{name}",
        )
        for name in spec.clicked.values()
    ]
    return DIN(
        [*features, *histories],
        list(spec.clicked.values()),
        dnn_hidden_units=tuple(spec.hidden),
        att_hidden_size=(spec.attention_hidden,),
        att_activation="prelu",
        att_weight_normalization=True,
        l2_reg_embedding=0,
    )


def main() -> None:
    """Train one epoch."""
    spec, clock = read_spec(), Clock()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, label_N = read_padded(spec)
    for clicked, name in spec.clicked.items():
        rows[f"hist_{name}"] = rows.pop(clicked)
        rows[f"length_{name}"] = (rows[f"hist_{name}"] > 0).sum(axis=1)
    model = make_model(spec)
    model.compile("adam", "binary_crossentropy")
    # `fit` has no callback for a batch; its optimiser's step is the last that it does for one.
    model.optim.register_step_post_hook(lambda *_: clock.batch(min(spec.batch_size, spec.rows - clock.rows)))
    history = model.fit(rows, label_N, batch_size=spec.batch_size, epochs=1, verbose=0)
    clock.tell(float(history.history["loss"][-1]))


if __name__ == "__main__":
    main()
