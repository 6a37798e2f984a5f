"""Compute once what a frozen source tower gives for a sample day, for all who train beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ctnet_ray import storage
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.batches.frozen_layers import columns, layers_folder, to_columns
from ctnet_ray.errors import CtnetError
from ctnet_ray.runs.plan import RunPlan
from ctnet_ray.runs.specs import CTNetSpec, TowerSpec
from ctnet_ray.samples.checksums import SUMS, changed_files
from ctnet_ray.samples.reading import Unit, read_unit
from ctnet_ray.samples.store import Manifest, SampleFile
from ctnet_ray.training.versions import OpenVersion, open_version

_BATCH = 8192  #: rows that the tower sees at once


@dataclass(frozen=True)
class DayLayers:
    """Layers that somebody is going to read."""

    version: str
    """URI of the source version."""
    samples: Manifest
    """Sample day."""
    folder: str
    """Where they go (`ctnet_ray.batches.frozen_layers.layers_folder`)."""


def with_frozen_layers(plan: RunPlan, root: str) -> RunPlan:
    """Return a plan that reads its frozen tower's layers instead of running the tower, where it can.

    It can't where the target moves the source's embeddings (a residual) or serves both towers' attention.

    Args:
        plan: Any plan.
        root: Root of the layers, local or URI.
    """
    model = plan.model
    if not isinstance(model, CTNetSpec) or model.residual or model.shared.features:
        return plan
    return replace(plan, frozen_layers=root, model=replace(model, layers_given=True))


def frozen_layers_of(plan: RunPlan) -> list[DayLayers]:
    """Return the layers that a plan reads, in its order; none where it runs the tower itself."""
    if not plan.frozen_layers:
        return []
    return [
        DayLayers(step.source.uri, day, layers_folder(plan.frozen_layers, step.source.uri, day))
        for step in plan.steps
        if step.source
        for day in (*step.train, *([step.evaluate] if step.evaluate else []))
    ]


def are_there(folder: str) -> bool:
    """Whether a folder holds layers; those of an earlier release have no checksums, and are made again."""
    published = storage.read_folder(folder)
    return published is not None and SUMS in published[0]


class FrozenTower:
    """A source tower that writes its layers.

    Args:
        spec: The tower.
        device: Where it computes.
    """

    def __init__(self, spec: TowerSpec, device: torch.device) -> None:
        self._columns = columns(spec.layers)
        self._device = device
        self._opened: OpenVersion | None = None

    def write(self, layers: DayLayers) -> None:
        """Write a day's layers, unless they are there.

        Raises:
            CtnetError: The version, the samples or the disk are not what they should be.
        """
        if are_there(layers.folder):
            return
        if self._opened is None or self._opened.record.version.uri != layers.version:
            self._opened = open_version(layers.version, self._device)
        for problem in changed_files([layers.samples]):
            raise CtnetError(problem)
        encoder = self._opened.encoder(layers.samples.domain)
        # A folder that is replaced has its files a folder deeper, where no unit looks for them.
        storage.remove(layers.folder)
        with storage.new_folder(layers.folder) as (folder, publish):
            places = {file.name: storage.join(folder, file.name) for file in layers.samples.files}
            for file in layers.samples.files:
                self._write_file(layers.samples, file, encoder, places[file.name])
            sums = {name: storage.sha256(place) for name, place in places.items()}
            publish({"version": layers.version, "day": layers.samples.digest, SUMS: sums})

    def _write_file(self, samples: Manifest, file: SampleFile, encoder: Encoder, uri: str) -> None:
        filesystem, path = storage.resolve(uri)
        try:
            with (
                filesystem.open_output_stream(path) as stream,
                pq.ParquetWriter(stream, self._columns, compression="none") as writer,
            ):
                for index, rows in enumerate(file.row_groups):
                    unit = Unit(storage.join(samples.uri, file.name), index, 0, rows, ())
                    table = pa.concat_tables(self._tables(unit, encoder))
                    writer.write_table(table, row_group_size=rows)
        except OSError as error:
            raise CtnetError(f"can't write {uri} ({error.strerror}): make room") from error

    def _tables(self, unit: Unit, encoder: Encoder) -> Iterator[pa.Table]:
        assert self._opened  # noqa: S101
        block = encoder.block(read_unit(unit, encoder.folding.columns, encoder.folding.fold))
        for start in range(0, block.rows, _BATCH):
            stop = min(start + _BATCH, block.rows)
            batch = encoder.batch([(block, start, stop)], stop - start, float(stop - start))
            yield to_columns(self._opened.layers(batch))
