"""What a sample holds: features, embedding tables, and which tower uses what.

A schema is a YAML file, one for all domains that are to share samples:

    embedding_dim: 16
    tables:
      item: {rows: 20000}
      user: {rows: 10000, dim: 8}
      slot: {rows: 5000, eviction: lfu, eviction_interval: 32}
    features:
      item: {kind: categorical}                       # table: item, the feature's own name
      user: {kind: categorical}
      clicked_items: {kind: sequence, table: item, max_length: 20, attends_to: item}
      duration: {kind: numeric, boundaries: [7, 18, 60]}
      feed_slot: {kind: categorical, table: slot, towers: [source], domains: [feed]}
      domain: {kind: domain, domains: [feed, search], towers: [source]}     # models of several domains only
      items_in_feed: {kind: sequence, table: item, max_length: 20, attends_to: item, clicks_in: feed}
      price: {kind: dense, transform: log1p, mean: 3.2, std: 1.1, clip: 4}          # `ctnet_ray.dense`

On disk a categorical feature is an int64 column (a stable hash of the raw id, 0 where it is missing), a
numeric one a float32 column (NaN where it is missing), a sequence a list<int64> column, most recent last.
One of kind domain has no column: whoever reads a domain's samples knows the domain. Dense ones:
`ctnet_ray.dense`.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from ctnet_ray import dense, roles, storage
from ctnet_ray import plain_data as plain
from ctnet_ray.dense import DENSE, DenseFeature
from ctnet_ray.errors import CtnetError
from ctnet_ray.plain_data import section
from ctnet_ray.roles import ROLES, Role

Kind = Literal["categorical", "numeric", "sequence", "domain"]
KINDS = (*get_args(Kind), DENSE)
Eviction = Literal["lfu", "lru", "distance_lfu"]
EVICTION_INTERVAL = 32  #: batches, where the schema names none

LABEL = "label"  #: int8 column: 1 is a click, 0 none
GROUP = "group"  #: int64 column: what GAUC averages over, request or user
TRUE_PROBABILITY = "true_probability"  #: float32 column of synthetic samples that no model may read
RESERVED = (LABEL, GROUP, TRUE_PROBABILITY, "time", "day")


@dataclass(frozen=True)
class Table:
    """An embedding table."""

    name: str
    """Name that features refer to."""
    rows: int
    """Number of rows. Ids are folded into them by remainder, or given rows of their own where there is an
    eviction: then the first is for missing ids and the last for those without a row."""
    dim: int
    """Width of one embedding, a multiple of 4."""
    eviction: Eviction | None = None
    """What makes room for new ids (`ctnet_ray.models.managed`): lfu, lru or distance_lfu. None: ids are
    folded."""
    eviction_interval: int = EVICTION_INTERVAL
    """Batches trained on between two evictions; the end of a step, which is a day, is one too."""


@dataclass(frozen=True)
class Feature:
    """One input of the model."""

    name: str
    """Name of the sample column."""
    kind: Kind
    """Categorical (one id), numeric (one number, by bucket), sequence (a list of ids) or domain (the domain
    that a sample is of, as one id)."""
    table: str
    """Embedding table that the ids look into."""
    boundaries: tuple[float, ...] = ()
    """Numeric only: ascending bucket edges; value v goes to bucket #{edges <= v}, a missing one to the
    last."""
    max_length: int | None = None
    """Sequence only: the most recent ids that are read."""
    attends_to: str | None = None
    """Sequence only: categorical feature that queries it; None: the mean of the sequence is taken."""
    towers: tuple[Role, ...] = ROLES
    """Towers that use the feature."""
    domains: tuple[str, ...] = ()
    """Domains whose samples have the feature; elsewhere it reads as missing. Empty: all domains. Of kind
    domain: the domains that it tells apart."""
    clicks_in: str | None = None
    """Sequence only: domain whose clicks it holds; read by methods that model interests by domain, and by no
    other."""

    def present_in(self, domain: str) -> bool:
        """Whether samples of `domain` have this feature's column."""
        return self.kind != "domain" and (not self.domains or domain in self.domains)


@dataclass(frozen=True)
class Schema:
    """The features of a model and the tables they look into, all by name."""

    features: tuple[Feature, ...]
    """Those that look into tables."""
    tables: tuple[Table, ...]
    dense: tuple[DenseFeature, ...] = ()
    """Those that are read as numbers."""

    @property
    def dense_width(self) -> int:
        """Numbers in all dense features."""
        return sum(feature.width for feature in self.dense)

    def table(self, name: str) -> Table:
        """Return the table called `name`."""
        return next(table for table in self.tables if table.name == name)

    def rows(self, feature: Feature) -> int:
        """Return the number of rows of the feature's table."""
        return self.table(feature.table).rows

    def for_tower(
        self, tower: Role, several_domains: bool = False, counts_in: Container[str] | None = None
    ) -> "Schema":
        """Return the part that one tower uses: no sequences of one domain's clicks.

        Args:
            tower: The tower.
            several_domains: Whether it is trained on samples of several domains, and so reads features of
                kind domain.
            counts_in: Domains whose statistics it reads (`DenseFeature.counts_in`); None: all.

        Raises:
            CtnetError: The tower uses no feature with a table, or a sequence without the feature it attends
                to.
        """
        features = [feature for feature in self.features if tower in feature.towers and not feature.clicks_in]
        features = [feature for feature in features if several_domains or feature.kind != "domain"]
        if not features:
            alone = " with a table" if self.dense else ""
            raise CtnetError(f"schema: no feature{alone} names the {tower} tower in `towers`")
        names = {feature.name for feature in features}
        for feature in features:
            if feature.attends_to and feature.attends_to not in names:
                raise CtnetError(
                    f"schema: features.{feature.name}.attends_to: "
                    f"the {tower} tower has no {feature.attends_to!r}"
                )
        numbers = [feature for feature in self.dense if tower in feature.towers]
        return self._part(features, [feature for feature in numbers if _is_read(feature, counts_in)])

    def counted_domains(self, domain: str) -> frozenset[str]:
        """Return the domains whose statistics a domain's samples have."""
        return frozenset(
            feature.counts_in for feature in self.dense if feature.counts_in and feature.present_in(domain)
        )

    def joint(self, domains: tuple[str, ...], interests: bool = False) -> "Schema":
        """Return the schema of one model that is trained on samples of several domains.

        It has the features of both towers but those of kind domain: such a model knows a batch's domain. Of
        statistics it reads those of its domains.

        Args:
            domains: The domains.
            interests: Whether it reads the sequences of each domain's clicks (`Feature.clicks_in`).

        Raises:
            CtnetError: Interests are asked for, and no sequence holds the clicks in one of the domains.
        """
        there = {feature.clicks_in for feature in self.features}
        for domain in domains if interests else ():
            if domain not in there:
                raise CtnetError(
                    f"schema: no sequence says clicks_in: {domain}: "
                    "add one, or leave out methods minet and dasl"
                )
        clicks_in = {None, *domains} if interests else {None}
        features = [feature for feature in self.features if feature.kind != "domain"]
        return self._part(
            [feature for feature in features if feature.clicks_in in clicks_in],
            [feature for feature in self.dense if _is_read(feature, domains)],
        )

    def without(self, names: Iterable[str]) -> "Schema":
        """Return the schema without some features, and without the tables that only they use."""
        left_out = set(names)
        features = tuple(feature for feature in self.features if feature.name not in left_out)
        used = {feature.table for feature in features}
        return Schema(features, tuple(table for table in self.tables if table.name in used), self.dense)

    def _part(self, features: Sequence[Feature], numbers: Sequence[DenseFeature]) -> "Schema":
        """Return a schema of its own of some features: it no longer says which tower they came from."""
        used = {feature.table for feature in features}
        return Schema(
            tuple(replace(feature, towers=ROLES) for feature in features),
            tuple(table for table in self.tables if table.name in used),
            tuple(replace(feature, towers=ROLES) for feature in numbers),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data, in the layout of the YAML file."""
        features = {feature.name: _feature_to_dict(feature) for feature in self.features}
        return {
            "tables": {table.name: _table_to_dict(table) for table in self.tables},
            "features": features | {feature.name: feature.to_dict() for feature in self.dense},
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the schema, hexadecimal."""
        return storage.digest(self.to_dict())


def _is_read(feature: DenseFeature, counts_in: Container[str] | None) -> bool:
    """Whether a tower that reads the statistics of some domains (None: of all) reads this feature."""
    return feature.counts_in is None or counts_in is None or feature.counts_in in counts_in


def load(path: str) -> Schema:
    """Read and check a schema file.

    Args:
        path: Local path or URI of a YAML file.

    Raises:
        CtnetError: The file is absent, is no YAML, or says something that can't be; the message names the
            key.
    """
    return from_dict(storage.read_yaml(path, "schema"), where=Path(path).name)


def from_dict(content: Any, where: str = "schema") -> Schema:
    """Build a schema from plain data in the layout of the YAML file, and check it.

    Raises:
        CtnetError: As `load`.
    """
    top = section(content, where, {"embedding_dim", "tables", "features"})
    dim = _width(top.get("embedding_dim", 16), f"{where}: embedding_dim")
    declared = {
        str(name): _table(str(name), entry, dim, f"{where}: tables.{name}")
        for name, entry in section(top.get("tables") or {}, f"{where}: tables").items()
    }
    entries = section(top.get("features") or {}, f"{where}: features")
    if not entries:
        raise CtnetError(f"{where}: features: at least one feature is needed")
    # By name: the order decides how inputs and weights line up, and must not depend on how a file lists it.
    read = [
        _feature(str(name), entries[name], f"{where}: features.{name}") for name in sorted(entries, key=str)
    ]
    features = tuple(feature for feature in read if isinstance(feature, Feature))
    tables = _tables(features, declared, dim, where)
    _check_attention(features, tables, where)
    return Schema(features, tables, tuple(feature for feature in read if isinstance(feature, DenseFeature)))


def _table_to_dict(table: Table) -> dict[str, Any]:
    # Tables without an eviction say what they said before there was one: digests of runs hold it.
    managed = {"eviction": table.eviction, "eviction_interval": table.eviction_interval}
    return {"rows": table.rows, "dim": table.dim, **(managed if table.eviction else {})}


def _feature_to_dict(feature: Feature) -> dict[str, Any]:
    values = {field.name: getattr(feature, field.name) for field in fields(feature) if field.name != "name"}
    given = {key: value for key, value in values.items() if value is not None and value != ()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _width(value: Any, where: str) -> int:
    # What the fused kernels of fbgemm can hold.
    if plain.positive(value, where) % 4:
        raise CtnetError(f"{where}: a multiple of 4 is needed, not {value!r}")
    return value


def _table(name: str, entry: Any, dim: int, where: str) -> Table:
    values = section(entry, where, {"rows", "dim", "eviction", "eviction_interval"})
    if "rows" not in values:
        raise CtnetError(f"{where}.rows: missing")
    rows = plain.positive(values["rows"], f"{where}.rows")
    return Table(name, rows, _width(values.get("dim", dim), f"{where}.dim"), *_eviction(values, rows, where))


def _eviction(values: Mapping[Any, Any], rows: int, where: str) -> tuple[Eviction | None, int]:
    """Return a table's eviction and its interval."""
    eviction = values.get("eviction")
    if eviction is None:
        if "eviction_interval" in values:
            raise CtnetError(f"{where}.eviction_interval: only a table with an eviction has it")
        return None, EVICTION_INTERVAL
    if eviction not in get_args(Eviction):
        raise CtnetError(
            f"{where}.eviction: one of {', '.join(get_args(Eviction))} is needed, not {eviction!r}"
        )
    if rows < 3:
        raise CtnetError(f"{where}.rows: with an eviction at least 3 are needed, not {rows}")
    interval = values.get("eviction_interval", EVICTION_INTERVAL)
    return eviction, plain.positive(interval, f"{where}.eviction_interval")


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


# Kind of feature that has a key.
_OWNERS = {
    **dict.fromkeys((key for key in dense.KEYS if key not in ("towers", "domains")), DENSE),
    "boundaries": "numeric",
    **dict.fromkeys(("max_length", "attends_to", "clicks_in"), "sequence"),
}


def _feature(name: str, entry: Any, where: str) -> Feature | DenseFeature:
    if not name.isidentifier() or name in RESERVED:
        raise CtnetError(f"{where}: the name must be an identifier other than {', '.join(RESERVED)}")
    allowed = {*(field.name for field in fields(Feature)), *dense.KEYS} - {"name"}
    values = section(entry, where, allowed)
    kind = values.get("kind")
    if kind not in KINDS:
        raise CtnetError(f"{where}.kind: one of {', '.join(KINDS)} is needed, not {kind!r}")
    for key, owner in _OWNERS.items():
        if key in values and kind != owner:
            raise CtnetError(f"{where}.{key}: only a {owner} feature has it")
    if kind == DENSE:
        return dense.dense_feature(name, values, where)
    of_domains = "domains" in values or kind == "domain"
    return Feature(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        table=str(values.get("table", name)),
        boundaries=_boundaries(values.get("boundaries"), f"{where}.boundaries") if kind == "numeric" else (),
        max_length=(
            plain.positive(values.get("max_length"), f"{where}.max_length") if kind == "sequence" else None
        ),
        attends_to=_name(values.get("attends_to")),
        towers=roles.towers(values, where),
        domains=plain.names(values.get("domains"), f"{where}.domains") if of_domains else (),
        clicks_in=_name(values.get("clicks_in")),
    )


def _boundaries(value: Any, where: str) -> tuple[float, ...]:
    numeric = isinstance(value, list | tuple) and value and all(map(plain.is_finite, value))
    if not numeric or any(low >= high for low, high in pairwise(value)):
        raise CtnetError(f"{where}: an ascending list of numbers is needed, not {value!r}")
    return tuple(float(edge) for edge in value)


def _tables(
    features: tuple[Feature, ...], declared: dict[str, Table], dim: int, where: str
) -> tuple[Table, ...]:
    tables = dict(declared)
    for feature in features:
        needed = _rows_needed(feature)
        if needed and feature.table not in tables:
            tables[feature.table] = Table(feature.table, needed, dim)
        if feature.table not in tables:
            raise CtnetError(
                f"{where}: features.{feature.name}.table: tables.{feature.table} is not declared"
            )
        if tables[feature.table].rows < needed:
            raise CtnetError(
                f"{where}: tables.{feature.table}.rows: {feature.name} needs {needed}, "
                f"not {tables[feature.table].rows}"
            )
        if needed and tables[feature.table].eviction:
            raise CtnetError(
                f"{where}: tables.{feature.table}.eviction: {feature.name} is a {feature.kind} feature, "
                "which has no ids to evict: give it a table of its own"
            )
    used = {feature.table for feature in features}
    unused = sorted(set(tables) - used)
    if unused:
        raise CtnetError(f"{where}: tables.{unused[0]}: no feature uses it")
    return tuple(tables[name] for name in sorted(tables))


def _rows_needed(feature: Feature) -> int:
    """Return how many rows of its table a feature reads; 0 where its ids are folded into any number."""
    if feature.kind == "numeric":
        return len(feature.boundaries) + 2  # buckets 0..n and one for missing values
    return len(feature.domains) + 1 if feature.kind == "domain" else 0


def _check_attention(features: tuple[Feature, ...], tables: tuple[Table, ...], where: str) -> None:
    kinds = {feature.name: feature for feature in features}
    dims = {table.name: table.dim for table in tables}
    for feature in features:
        if not feature.attends_to:
            continue
        query = kinds.get(feature.attends_to)
        key = f"{where}: features.{feature.name}.attends_to"
        if query is None or query.kind != "categorical":
            raise CtnetError(f"{key}: {feature.attends_to!r} is not a categorical feature")
        if dims[query.table] != dims[feature.table]:
            raise CtnetError(f"{key}: tables {query.table} and {feature.table} differ in dim")
