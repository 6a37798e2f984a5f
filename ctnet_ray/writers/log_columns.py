"""Columns that are added to those of a log while it becomes samples; none of a log is called so."""

DAY = "__day__"  #: date32
TIME = "__time__"  #: timestamp[us, UTC]
DOMAIN = "__domain__"  #: string
CLICKED = "__label__"  #: int8
LABELS = "__label_of__"  #: before the name of each further label, int8
FILE = "__file__"  #: int32, place of the file among the log's
LINE = "__line__"  #: int64, the line of a CSV file, the row of a Parquet file
_ADDED = (DAY, TIME, DOMAIN, CLICKED, FILE, LINE)


def is_added(column: str) -> bool:
    """Whether a column is none of the log."""
    return column in _ADDED or column.startswith(LABELS)
