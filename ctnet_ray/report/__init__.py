"""The report of a comparison: one HTML page, the same as Markdown and CSV, and tables in the terminal."""

from ctnet_ray.report.rows import Failure, Row, Run, read_rows, read_runs
from ctnet_ray.report.writing import Report, write

__all__ = ["Failure", "Report", "Row", "Run", "read_rows", "read_runs", "write"]
