"""What is made of a log's rows before the rest of a mapping reads them: a view of the log, as in SQL.

In this order: rows that hold many impressions become a row for each, columns are computed, side tables are
joined, and columns that read what a side table brings are computed.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from ctnet_ray.writers import sql
from ctnet_ray.writers.accounts import FileAccount
from ctnet_ray.writers.files.remote import LogPath
from ctnet_ray.writers.log_columns import LINE
from ctnet_ray.writers.sql import Expression
from ctnet_ray.writers.view.explode import Explode, explode
from ctnet_ray.writers.view.joins import Join, SideTable, add_columns, read_side_table

FILENAME = "filename"  #: column that expressions may read: the path of the file that a row is in
_IN_FILE = " in the file"  #: ends the name of a column of the file that an expression takes the place of


@dataclass(frozen=True)
class View:
    """How rows of a log become rows with the columns that a mapping names."""

    explode: Explode | None = None
    """Columns that hold many impressions."""
    columns: Mapping[str, Expression] = field(default_factory=dict)
    """Columns computed of the row's others, by name."""
    joins: tuple[Join, ...] = ()
    """Side tables."""

    @property
    def changes(self) -> bool:
        """Whether it is anything but the log itself."""
        return bool(self.explode or self.columns or self.joins)

    @property
    def makes(self) -> set[str]:
        """Columns that are computed, or brought by side tables."""
        return {*self.columns, *(name for join in self.joins for name in join.columns)}

    @property
    def reads(self) -> set[str]:
        """Columns that the view itself reads, in the log or in what it has made."""
        exploded = self.explode.columns if self.explode else ()
        read = [path[0] for entry in self.columns.values() for path in entry.reads]
        return {*read, *exploded, *(join.left for join in self.joins)}

    def stages(self) -> tuple[dict[str, Expression], dict[str, Expression]]:
        """Return the expressions that are computed before side tables are joined, and after it."""
        late = {name.lower() for join in self.joins for name in join.columns}
        before, after = {}, {}
        for name, entry in self.columns.items():
            if late.isdisjoint(path[0].lower() for path in entry.reads):
                before[name] = entry
            else:
                after[name] = entry
                late.add(name.lower())
        return before, after


@dataclass(frozen=True)
class OpenView:
    """A view with its side tables in memory."""

    view: View
    tables: Sequence[SideTable]

    def notices(self, accounts: Sequence[FileAccount]) -> Iterator[str]:
        """Yield what a person should know of the rows once all are read, a line each.

        Args:
            accounts: What became of the log's files.
        """
        filled, joined, unmatched = (
            sum((getattr(account, name) for account in accounts), Counter[str]())
            for name in ("filled", "joined", "unmatched")
        )
        for name, entry in self.view.columns.items():
            if not filled[name]:
                yield f"{entry.where}: no row has a value: is it what the log holds?"
        for side in self.tables:
            if rows := unmatched[side.join.where]:
                names = ", ".join(side.join.columns)
                yield (
                    f"{rows:,} of {joined[side.join.where]:,} rows have no match in {side.name}, so they "
                    f"are without {names}"
                )


def open_view(view: View, folder: LogPath, known: Sequence[SideTable] = ()) -> OpenView:
    """Read the side tables of a view.

    Args:
        view: The view.
        folder: Folder that their paths are relative to.
        known: Tables of other views that are in memory, and are not read again.

    Raises:
        CtnetError: As `read_side_table`.
    """
    tables = []
    for join in view.joins:
        same = next((one for one in known if replace(one.join, where=join.where) == join), None)
        tables.append(replace(same, join=join) if same else read_side_table(join, folder))
    return OpenView(view, tables)


def view_rows(
    opened: OpenView, block: pa.Table, account: FileAccount, *, used: Container[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a block as the view has them.

    Args:
        opened: The view.
        block: Rows of a file, with their `LINE`.
        account: The file's; takes rows that are dropped or become many, and what side tables lack.
        used: Columns that are read of the view; None: all are to stay.

    Raises:
        CtnetError: A column is not there, or an expression can't take its type.
    """
    view, source = opened.view, account.path
    if not view.changes:
        yield block
        return
    if used is not None:
        read = {name.lower() for name in view.reads}
        block = block.select(
            [name for name in block.column_names if name in used or name == LINE or name.lower() in read]
        )
    before, after = view.stages()
    for rows in explode(block, view.explode, account) if view.explode else [block]:
        rows = _computed(rows, before, source)
        for side in opened.tables:
            rows = add_columns(rows, side, account)
        rows = _computed(rows, after, source)
        account.count_values(rows, view.columns)
        yield rows


def columns_after(
    opened: OpenView, columns: Mapping[str, pa.DataType], path: LogPath
) -> dict[str, pa.DataType]:
    """Return the columns of a file's rows as the view has them.

    Raises:
        CtnetError: As `view_rows`, or a column to explode is not there, or holds neither lists nor texts.
    """
    if not opened.view.changes:
        return dict(columns)
    spec = opened.view.explode
    kinds = {**columns, LINE: pa.int64()}
    if spec:
        kinds |= spec.element_types(columns, str(path))
    empty = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    exploded = OpenView(View(None, opened.view.columns, opened.view.joins), opened.tables)
    (rows,) = view_rows(exploded, empty, FileAccount(str(path)))
    return {field.name: field.type for field in rows.schema if field.name != LINE}


def _computed(rows: pa.Table, expressions: Mapping[str, Expression], source: str) -> pa.Table:
    """Return rows with some columns computed; those that they take the place of get another name."""
    if not expressions:
        return rows
    read = rows
    names_file = any(path[0].lower() == FILENAME for entry in expressions.values() for path in entry.reads)
    if names_file and FILENAME not in rows.column_names:
        read = rows.append_column(FILENAME, pa.repeat(pa.scalar(source), rows.num_rows))
    for name, column in sql.compute(read, expressions, source).items():
        if name in rows.column_names:
            # It stays, for rows that differ in it are no duplicates.
            rows = rows.rename_columns([there + _IN_FILE * (there == name) for there in rows.column_names])
        rows = rows.append_column(name, column)
    return rows
