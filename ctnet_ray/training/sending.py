"""Sends row numbers to the workers that hold the rows a step before they are looked up.

Looking up begins with two exchanges: how many row numbers go to whom, and the row numbers. A step that waits
for them computes nothing meanwhile. So they run beside the step before, as in TorchRec's train pipeline:

    step n      how many of n + 1 | forward n | row numbers of n + 1 | backward n | optimiser n
    step n + 1  how many of n + 2 | forward n + 1 (looks up what has come) | ...

TorchRec's own pipeline traces a model for what each of its tables looks up; here the model says it
(`Model.lookups`). Row numbers alone are sent early: rows are read after the step before has
updated them, so results are the same to the last bit. Tables whose ids have a mapping are left out, for a
step may give a row to another id.
"""

from typing import Any

import torch.distributed as dist
from torchrec import JaggedTensor, KeyedJaggedTensor

from ctnet_ray.batches.batch import Batch
from ctnet_ray.models.base import Model
from ctnet_ray.models.embedding import Tables


class _Sent:
    """One module's row numbers; the three stages of a lookup that is spread over workers, one by one.

    Args:
        tables: Tables that TorchRec has sharded.
        features: What they will look up.
    """

    def __init__(self, tables: Tables, features: KeyedJaggedTensor) -> None:
        self.features = features
        self._lookups: list[tuple[Any, Any]] = []
        self._waiting: list[Any] = []
        for collection, part in tables.by_collection(features):
            sharded: Any = collection
            context = sharded.create_context()
            self._lookups.append((sharded, context))
            self._waiting.append(sharded.input_dist(context, part))

    def exchange(self) -> None:
        """Send the row numbers, now that each worker knows how many come."""
        self._waiting = [sizes.wait() for sizes in self._waiting]

    def looked(self) -> dict[str, JaggedTensor]:
        """Look up what has come, and return what was asked for."""
        looked: dict[str, JaggedTensor] = {}
        for (sharded, context), rows in zip(self._lookups, self._waiting, strict=True):
            looked |= sharded.compute_and_output_dist(context, rows.wait())
        return looked


class Sending:
    """Keeps a model's lookups one step ahead.

    Args:
        model: The model, its tables sharded.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._started: list[_Sent] = []

    def start(self, batch: Batch) -> None:
        """Tell the other workers how many of a batch's row numbers come. Collective.

        Call it before the step of the batch before.
        """
        if dist.get_world_size() == 1:
            return
        for tables, role in self._model.lookups(batch.domain):
            if not tables.mappings:
                sent = _Sent(tables, batch.inputs[role])
                tables.sent.append(sent)
                self._started.append(sent)

    def exchange(self) -> None:
        """Send the row numbers that were started. Collective; right after a forward pass."""
        for sent in self._started:
            sent.exchange()
        self._started.clear()
