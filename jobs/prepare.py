"""Write samples: `python -m jobs.prepare synthetic | kuairand | table | register | statistics`."""

import json as json_module
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ctnet_ray import storage
from ctnet_ray.config import MAX_DROPPED, Existing
from ctnet_ray.step import parse
from ctnet_ray.writers.synthetic_config import WorldConfig
from jobs.command import run

if TYPE_CHECKING:
    from ctnet_ray.writers.accounts import Report
    from ctnet_ray.writers.synthetic import DomainSummary


def synthetic(out: str, existing: Existing = "refuse", **world: Any) -> None:
    """Write a seeded world of two or three domains, with its true click probabilities, and its schema.

    configs/sparse_world.yaml makes one that is near to real logs of a small target (--config).

    Args:
        out: Root of the sample store (local path or URI); the schema goes to OUT/schema.yaml.
        existing: What becomes of days that are there and would hold something else: refuse says which and
            leaves them, merge takes the rows of both, each once, replace takes the new rows alone.
        **world: Sizes and constants of the world (`ctnet_ray.writers.synthetic_config`).
    """
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.schema import from_dict as schema_from_dict
    from ctnet_ray.writers.schema_file import merge_schema, with_figures, write_schema
    from ctnet_ray.writers.synthetic import schema_dict, schema_text, write_world
    from ctnet_ray.writers.synthetic_statistics import STATISTICS

    config = WorldConfig(**world)
    store = SampleStore(out)
    made = schema_from_dict(schema_dict(config))
    merged = merge_schema(store, made, config.domains, "this command")
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("synthetic", total=config.rows)
        summaries = write_world(
            store,
            config,
            lambda domain, day, rows: bar.update(task, advance=rows, description=f"{domain} {day}"),
            existing=existing,
        )
    schema = storage.join(out, "schema.yaml")
    if config.statistics:
        write_schema(store, with_figures(store, merged, STATISTICS, config.domains))
    else:
        write_schema(store, merged, schema_text(config))
    console.print(_synthetic_table(summaries))
    console.print(f"schema: {schema}", soft_wrap=True)


def kuairand(
    raw: str,
    out: str,
    source_tab: int = 1,
    target_tabs: tuple[int, ...] = (0, 4),
    seed: int = 0,
    max_dropped: float = MAX_DROPPED,
    existing: Existing = "refuse",
    histories_from_scratch: bool = False,
    json: bool = False,
) -> None:
    """Write KuaiRand's public download, Pure or 1K, plain or gzipped, a domain a tab (tab1, tab0, ...).

    Args:
        raw: Folder with log_standard_*.csv, user_features_*.csv and video_features_basic_*.csv.
        out: Root of the sample store (local path or URI); the schema goes to OUT/schema.yaml.
        source_tab: Tab that is the source domain.
        target_tabs: Tabs that are target domains, such as [0,4]; histories hold clicks in all these tabs, and
            further ones the clicks in each.
        seed: Seed of the shuffle of each day.
        max_dropped: Largest share of the lines that may be dropped, beside those of other tabs.
        existing: What becomes of days that are there and would hold something else: refuse says which and
            leaves them, merge takes the rows of both, each once, replace takes the new rows alone.
        histories_from_scratch: Whether histories of the first day begin empty, where they would look back on
            the days before it.
        json: Print the report as JSON.
    """
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.writers.kuairand import write_kuairand

    with _progress() as progress:
        report = write_kuairand(
            raw,
            SampleStore(out),
            source_tab,
            target_tabs,
            progress,
            seed=seed,
            existing=existing,
            from_scratch=histories_from_scratch,
            max_dropped=max_dropped,
        )
    _print_report(report, out, json)


def table(
    raw: list[str] | str,
    mapping: str,
    out: str,
    seed: int = 0,
    existing: Existing = "refuse",
    histories_from_scratch: bool = False,
    known_until: date | None = None,
    steps: int | None = None,
    workers: int = 0,
    json: bool = False,
) -> None:
    """Write anybody's logs, CSV, JSON Lines or Parquet, as a mapping file says.

    Args:
        raw: A file, a quoted glob pattern ("logs/*.csv.gz"), the URI of one, or a list of them; Parquet, or
            CSV or JSON Lines, plain or compressed (.gz, .bz2, .zst). For a mapping that names several logs:
            their folder.
        mapping: YAML file that names the columns of time, domain, user, item, label, group and features
            (configs/table_mapping_example.yaml shows every key, configs/mappings has some for public data).
        out: Root of the sample store (local path or URI); the schema goes to OUT/schema.yaml.
        seed: Seed of the shuffle of each day.
        existing: What becomes of days that are there and would hold something else: refuse says which and
            leaves them, merge takes the rows of both, each once, replace takes the new rows alone.
        histories_from_scratch: Whether histories of the first day begin empty, where they would look back on
            the days before it.
        known_until: Day (YYYY-MM-DD) up to which the logs know of labels that come late (a label's delay in
            the mapping); not set: the day before their newest, which may be there in part.
        steps: Steps of equal size into which a log without times is cut, by the order of its rows; all that
            is made of them says so; not set: as the mapping says.
        workers: Tasks at a time on Ray, of one CPU each and with one day in memory: on the cluster that
            RAY_ADDRESS or ray job submit names, or on one started here; 0: in this process, without Ray.
        json: Print the report as JSON.
    """
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.writers.mapping.mapping import load as load_mapping
    from ctnet_ray.writers.table import write_table

    with _progress() as progress:
        write = partial(
            write_table,
            [raw] if isinstance(raw, str) else raw,
            load_mapping(mapping, steps),
            SampleStore(out),
            progress,
            seed=seed,
            existing=existing,
            from_scratch=histories_from_scratch,
            known_until=known_until,
        )
        report = _on_ray(workers, write) if workers else write()
    _print_report(report, out, json)


def _on_ray(workers: int, write: "Callable[..., Report]") -> "Report":
    from ctnet_ray.cluster.preparation import on_ray

    return on_ray(workers, lambda work: write(work=work))


def statistics(
    store: str,
    domain: str,
    out: str,
    first_day: date = date.min,
    last_day: date = date.max,
    replace: bool = False,
) -> None:
    """Publish what a domain's days count of users, items and the like, without a sample.

    Args:
        store: Root of the sample store, prepared with statistics by domain (local path or URI).
        domain: Domain whose statistics are published.
        out: Where, a local path or URI; mappings of targets name it in statistics.published.
        first_day: First day (YYYY-MM-DD).
        last_day: Last day (YYYY-MM-DD).
        replace: Whether a published day with other counts is replaced; else it is an error.
    """
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.writers.publication import publish

    days = publish(SampleStore(store), domain, out, first=first_day, last=last_day, replace=replace)
    table = Table("day", "", "ids", title=f"statistics of {domain}", title_justify="left")
    for day in days:
        table.add_row(f"{day.day}", day.outcome, f"{day.ids:,}")
    Console().print(table)


def register(
    store: str,
    domains: list[str] | None = None,
    replace: bool = False,
    step: str | None = None,
    json: bool = False,
) -> None:
    """Use sample days that another tool wrote, where they lie: STORE/DOMAIN/day=YYYY-MM-DD/*.parquet.

    Args:
        store: Root of the sample store (local path or URI).
        domains: Domains to register, such as [feed,channel]; not set: all.
        replace: Whether a registered day whose files were changed since gets a new manifest; else it is an
            error.
        step: Days that each of them covers, from the one in its name on, such as 7d; not set: as those that
            are registered already, else 1d.
        json: Print the days as JSON.
    """
    from ctnet_ray.samples.store import SampleStore
    from ctnet_ray.writers.registering import register as register_days

    with _progress() as progress:
        length = parse(step, "--step") if step else None
        days = register_days(SampleStore(store), domains or (), progress, replace=replace, step=length)
    if json:
        json_module.dump(to_jsonable_python(days), sys.stdout, indent=2)
        print()
        return
    table = Table("domain", "day", "", "rows", "CTR", title="days", title_justify="left")
    for day in days:
        table.add_row(day.domain, f"{day.day}", day.outcome, f"{day.rows:,}", f"{day.ctr:.4f}")
    Console().print(table)


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def _print_report(report: "Report", out: str, json: bool) -> None:
    schema = storage.join(out, "schema.yaml")
    if json:
        json_module.dump({**report.to_dict(), "schema": schema}, sys.stdout, indent=2)
        print()
        return
    console = Console()
    for file in report.files:
        # By itself, for a table folds a long title, and a bracket in a path is no markup.
        console.print(file.path, soft_wrap=True, markup=False, highlight=False)
        console.print(_lines_table(file.read, file.rows, file.dropped, file.written, file.examples))
    if len(report.files) > 1:
        console.print("all files")
        written = sum(file.written for file in report.files)
        console.print(_lines_table(report.read, report.rows, report.dropped, written, {}))
    console.print(_days_table(report), _domains_table(report))
    for notice in report.notices:
        console.print(f"note: {notice}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"schema: {schema}", soft_wrap=True)


def _lines_table(
    read: int, rows: int, dropped: Counter[str], written: int, examples: Mapping[str, Sequence[int]]
) -> Table:
    table = Table("lines", "count", "first dropped")
    table.add_row("read", f"{read:,}")
    if rows != read:
        table.add_row("impressions in them", f"{rows:,}")
    for reason, count in dropped.most_common():
        table.add_row(f"dropped: {reason}", f"{count:,}", ", ".join(map(str, examples.get(reason, ()))))
    table.add_row("written", f"{written:,}")
    return table


def _days_table(report: "Report") -> Table:
    table = Table(
        "domain", "day", "", "rows", "CTR", "new users", "new items", title="days", title_justify="left"
    )
    for day in sorted(report.days, key=lambda day: (day.domain, day.day)):
        counts = f"{day.rows:,}", f"{day.ctr:.4f}", f"{day.new_users:,}", f"{day.new_items:,}"
        table.add_row(day.domain, f"{day.day}", day.outcome, *counts)
    return table


def _domains_table(report: "Report") -> Table:
    """Return the sums of each domain, with the rows dropped of it once its domain was known."""
    reasons = sorted({reason for counts in report.dropped_by_domain.values() for reason in counts})
    dropped = [f"dropped: {reason}" for reason in reasons]
    names = "domain", "rows", "clicks", "CTR", "days", "first", "last", *dropped
    table = Table(*names, title="samples", title_justify="left")
    for name, entry in report.written.items():
        days = sorted(day.day for day in entry.days)
        counts = f"{entry.rows:,}", f"{entry.positives:,}", f"{entry.ctr:.4f}", f"{len(days)}"
        of_domain = report.dropped_by_domain.get(name, {})
        table.add_row(
            name,
            *counts,
            f"{days[0]}",
            f"{days[-1]}",
            *(f"{of_domain.get(reason, 0):,}" for reason in reasons),
        )
    return table


def _synthetic_table(summaries: "tuple[DomainSummary, ...]") -> Table:
    table = Table("domain", "rows", "clicks", "CTR", "reachable AUC", title="synthetic world")
    for entry in summaries:
        cells = f"{entry.rows:,}", f"{entry.positives:,}", f"{entry.ctr:.4f}", f"{entry.reachable_auc:.4f}"
        table.add_row(entry.domain, *cells)
    return table


if __name__ == "__main__":
    run(
        {
            "synthetic": synthetic,
            "kuairand": kuairand,
            "table": table,
            "register": register,
            "statistics": statistics,
        },
        "Write sample days into a sample store.",
        flags=("json",),
    )
