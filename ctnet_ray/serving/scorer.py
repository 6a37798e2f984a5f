"""Scoring with a version: raw values in, probabilities out.

Shapes: N rows, C candidates, L longest sequence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from ctnet_ray.samples.folding import FoldedFeature, Folding
from ctnet_ray.schema import Role, Schema
from ctnet_ray.serving import graph
from ctnet_ray.serving.fields import Field, InputError, fields_of, samples_of
from ctnet_ray.serving.program import Input, Program
from ctnet_ray.serving.statistics import StatisticsLookup
from ctnet_ray.serving.tables import Table

_BATCH = 8192  #: rows that are scored at once
_MOST_RUNS = 16  #: graphs that are kept; requests that divide fields in ever new ways make one each
Rows = Any  #: an Arrow table, a mapping of columns, or a pandas frame
Scores = NDArray[np.float32]
#: Row numbers or ids, int64 [N]; of a sequence [N, L], with where it has an item, bool [N, L].
_Ids = tuple[torch.Tensor, torch.Tensor | None]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """Which version it is that scores."""

    model: str
    """Registered model."""
    version: str
    """Its number there; empty: it is not registered."""
    run: str
    day: str
    """Day of the step that made it, YYYY-MM-DD."""
    domain: str
    """Domain whose rows it scores."""
    method: str
    uri: str
    """Folder of the version."""
    digest: str
    """Digest of what the version holds."""
    config_digest: str
    code_revision: str
    source: str = ""
    """Source version that is in it, as RUN@DAY; empty: none."""
    step: int = 0
    """Which step of its run made it, from 1 on; 0: not known."""

    @property
    def id(self) -> str:
        """NAME/VERSION, or RUN@DAY."""
        return f"{self.model}/{self.version}" if self.version else self.label

    @property
    def label(self) -> str:
        """What an answer names: its number, or RUN@DAY."""
        return self.version or f"{self.run}@{self.day}"


@dataclass(frozen=True)
class Scorer:
    """A version in memory, which scores."""

    card: Card
    schemas: Mapping[Role, Schema]
    """Features of each tower."""
    program: Program
    parameters: Mapping[str, torch.Tensor]
    tables: Mapping[str, Table]
    statistics: StatisticsLookup | None = None
    """Statistics that rows need not say; None: they are fields like others."""

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """What a row may say, by name; statistics that are looked up are not required."""
        fields = fields_of(self.schemas.values(), self.card.domain)
        if not self.statistics:
            return fields
        looked_up, ids = self.statistics.columns, self.statistics.fields
        by_name = {field.name: field for field in ids} | {field.name: field for field in fields}
        optional = {name: replace(by_name[name], required=False, looked_up=True) for name in looked_up}
        return tuple((by_name | optional)[name] for name in sorted(by_name))

    def score(self, rows: Rows) -> Scores:
        """Return the probability of a click for each row, float32 [N].

        Args:
            rows: Raw values of the `fields`, by column: an Arrow table, a mapping of lists, or a pandas
                frame. Columns that no field names are passed over.

        Raises:
            InputError: A field is missing, or a value is none; the message names the field.
        """
        return self.score_samples(self.samples_of(rows))

    def samples_of(self, rows: Rows) -> pa.Table:
        """Return rows of raw values as sample days have them.

        Raises:
            InputError: As `score`.
        """
        columns, count = _columns(rows)
        (samples,) = self._complete(samples_of(columns, self.fields, count))
        return samples

    def score_samples(self, samples: pa.Table) -> Scores:
        """Return the probability of a click for each row of a sample day, float32 [N].

        Args:
            samples: Rows as sample days have them: ids are hashed.
        """
        parts = [
            self._score([samples.slice(start, _BATCH)], ()) for start in range(0, samples.num_rows, _BATCH)
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def score_request(self, user: Mapping[str, Any], candidates: Rows) -> Scores:
        """Return the probability of a click for each of a user's candidates, float32 [C].

        What depends on the user alone is computed once.

        Args:
            user: Raw values of fields, the same for all candidates.
            candidates: Raw values of all other fields, by column.

        Raises:
            InputError: As `score`; also for a field that is unknown, or given twice.
        """
        columns, count = _columns(candidates)
        self._check_names(user, columns)
        if not count:
            raise InputError("no candidates: give one at least")
        others = [field for field in self.fields if field.name in columns]
        lacking = [field for field in self.fields if field.required and field.name not in columns]
        of_user = [field for field in self.fields if field.name in user or field in lacking]
        rows = samples_of(columns, others, count)
        if not of_user:
            return self.score_samples(*self._complete(rows))
        user_row = samples_of({name: [value] for name, value in user.items()}, of_user, 1)
        user_row, rows = self._complete(user_row, rows)
        if not user_row.num_columns:
            return self.score_samples(rows)
        return self._score([user_row, rows], rows.column_names)

    def _complete(self, *parts: pa.Table) -> list[pa.Table]:
        """Return rows with the statistics that they lack."""
        return self.statistics.complete(parts) if self.statistics else list(parts)

    def _check_names(self, user: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        known = {field.name for field in self.fields}
        for name in (*user, *columns):
            if name not in known:
                raise InputError(f"there is no such field: there are {', '.join(sorted(known))}", str(name))
        for name in user:
            if name in columns:
                raise InputError("it stands under user and under candidates: give it once", name)

    @torch.inference_mode()
    def _score(self, parts: Sequence[pa.Table], of_candidates: Iterable[str]) -> Scores:
        """Score rows whose columns are in one table, or a user's and candidates' in two.

        Args:
            parts: The tables, one after the other: the last has N rows.
            of_candidates: Columns of candidates; none: all rows are of a user of their own.
        """
        differ = frozenset(of_candidates)
        encoded = self._encoded(parts)
        dense: dict[Role, torch.Tensor] = {
            role: self._dense(schema, parts) for role, schema in self.schemas.items() if schema.dense
        }
        tensors, of_user = [], set()
        for place, entry in enumerate(self.program.signature.inputs):
            tensors.append(self._tensor(entry, encoded, dense))
            if differ and not differ & self._features(entry):
                of_user.add(place)
        if len(of_user) == len(tensors):
            of_user = set()  # nothing that the model reads differs: it is one row
        scores = self._run(frozenset(of_user))(*tensors).numpy()
        return np.repeat(scores, len(parts[-1])) if len(scores) < len(parts[-1]) else scores

    def _run(self, of_user: frozenset[int]) -> graph.Run:
        """Return what computes the program where some inputs are a user's; made once for each such set."""
        run = self._runs.get(of_user)
        if run is None:
            run = graph.compiled(self.program, self.parameters, of_user)
            if len(self._runs) >= _MOST_RUNS:
                self._runs.clear()
            self._runs[of_user] = run
        return run

    def _features(self, entry: Input) -> frozenset[str]:
        """Return the features that an input is of."""
        if entry.kind == "dense":
            return frozenset(feature.name for feature in self.schemas[entry.role].dense)
        return frozenset([entry.feature])

    def _encoded(self, parts: Sequence[pa.Table]) -> dict[str, _Ids]:
        """Return the ids of each feature by `FoldedFeature.column`: of one row, or of N."""
        columns: dict[FoldedFeature, pa.Array] = {}
        for samples in parts:
            names = set(samples.column_names)
            there = tuple(key for key in self._distinct_keys if key.feature.name in names)
            row_numbers = Folding(there, self.card.domain).row_numbers(samples)
            columns |= {key: row_numbers[key.column] for key in there}
        # Programs are traced with one length of all sequences that may have any.
        lists = [column for key, column in columns.items() if key.feature.kind == "sequence"]
        longest = max([1, *(int(np.diff(column.offsets.to_numpy()).max(initial=0)) for column in lists)])
        encoded = {key.column: self._padded(key, column, longest) for key, column in columns.items()}
        missing = (key for key in self._distinct_keys if key not in columns)
        return encoded | {key.column: self._missing(key, len(parts[0]), longest) for key in missing}

    def _padded(self, key: FoldedFeature, column: pa.Array, longest: int) -> _Ids:
        if key.feature.kind != "sequence":
            return torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64)), None
        lengths_N = np.diff(column.offsets.to_numpy())
        longest = self.program.signature.lengths.get(key.feature.name, longest)
        is_there_NL = np.arange(longest) < lengths_N[:, None]
        ids_NL = np.zeros(is_there_NL.shape, np.int64)
        ids_NL[is_there_NL] = column.values.to_numpy()
        return torch.from_numpy(ids_NL), torch.from_numpy(is_there_NL)

    def _missing(self, key: FoldedFeature, count: int, longest: int) -> _Ids:
        """Return what rows of a domain that lacks a feature have."""
        if key.feature.kind == "sequence":
            shape = (count, self.program.signature.lengths.get(key.feature.name, longest))
            return torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        return torch.full((count,), key.missing(self.card.domain)), None

    def _dense(self, schema: Schema, parts: Sequence[pa.Table]) -> torch.Tensor:
        """Return a tower's dense features side by side, float32 [N, F]; [1, F] where all are the user's."""
        names = [set(part.column_names) for part in parts]
        by_part = [tuple(feature for feature in schema.dense if feature.name in some) for some in names]
        lacking = tuple(feature for feature in schema.dense if not any(feature in some for some in by_part))
        columns: dict[str, torch.Tensor] = {}
        for part, features in zip(parts, (by_part[0] + lacking, *by_part[1:]), strict=True):
            (matrix_NF,) = Folding((), self.card.domain, dense=(features,)).matrices(part)
            widths = [feature.width for feature in features]
            split = torch.from_numpy(matrix_NF).split(widths, dim=1)
            columns |= dict(zip((feature.name for feature in features), split, strict=True))
        rows = max(len(column) for column in columns.values())
        return torch.cat([columns[feature.name].expand(rows, -1) for feature in schema.dense], dim=1)

    def _tensor(
        self, entry: Input, encoded: Mapping[str, _Ids], dense: Mapping[Role, torch.Tensor]
    ) -> torch.Tensor:
        """Return one input of the program."""
        if entry.kind == "dense":
            return dense[entry.role]
        ids, mask_NL = encoded[self._keys[entry.role, entry.feature].column]
        if entry.kind == "rows":
            return self.tables[entry.table].look_up(ids)
        assert mask_NL is not None  # noqa: S101  (only sequences have one)
        return mask_NL

    @cached_property
    def _keys(self) -> dict[tuple[Role, str], FoldedFeature]:
        """What each tower reads of each feature; features that towers fold alike are one."""
        return {
            (role, feature.name): FoldedFeature.of(schema, feature)
            for role, schema in self.schemas.items()
            for feature in schema.features
        }

    @cached_property
    def _distinct_keys(self) -> tuple[FoldedFeature, ...]:
        return tuple(dict.fromkeys(self._keys.values()))

    @cached_property
    def _runs(self) -> dict[frozenset[int], graph.Run]:
        return {}


def _columns(rows: Rows) -> tuple[Mapping[str, Any], int]:
    """Return rows by column, and how many they are."""
    if isinstance(rows, pa.Table):
        return dict(zip(rows.column_names, rows.columns, strict=True)), rows.num_rows
    columns = dict(rows.items()) if hasattr(rows, "items") else None
    if columns is None:
        raise InputError(f"{type(rows).__name__} where a table, a mapping of columns or a frame is due")
    return columns, max((len(values) for values in columns.values() if hasattr(values, "__len__")), default=0)
