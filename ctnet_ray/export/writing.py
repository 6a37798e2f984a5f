"""Writing an exported version (`ctnet_ray.serving.folder`)."""

from collections.abc import Iterator, Mapping

from ctnet_ray import storage
from ctnet_ray.export.mlflow_files import mlflow_files
from ctnet_ray.export.opening import Traced
from ctnet_ray.samples.statistics import Counts
from ctnet_ray.serving.deltas import check_place
from ctnet_ray.serving.folder import (
    PARAMETERS,
    PROGRAM,
    README,
    File,
    Manifest,
    file_of,
    is_export,
    table_bytes,
    tensor_bytes,
    write_at_top,
)
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.serving.statistics import counts_name, counts_tensors


def export(traced: Traced, uri: str) -> Manifest:
    """Write a version for scoring, whole or not at all.

    Args:
        traced: The version.
        uri: Folder to write, local or URI; an export that is there is replaced.

    Raises:
        CtnetError: The folder holds something else, or can't be written.
    """
    uri = storage.absolute(uri)
    check_place(uri, is_ours=is_export(uri), kind="exported version")
    files: dict[str, File] = {}
    with storage.new_folder(uri) as (folder, publish):
        for name, content in contents(traced):
            write_file(folder, name, content)
            files[name] = file_of(content)
        manifest = manifest_of(traced.scorer, files)
        publish(manifest.to_dict())
    write_at_top(uri, mlflow_files(traced.scorer))
    return manifest


def contents(traced: Traced) -> Iterator[tuple[str, bytes]]:
    """Give each file of an export with its content; one at a time is in memory."""
    scorer = traced.scorer
    yield PROGRAM, traced.archive
    yield PARAMETERS, tensor_bytes(scorer.parameters)
    for name, file in table_files(scorer).items():
        yield file, table_bytes(scorer.tables[name])
    for domain, file in counts_files(scorer).items():
        yield file, tensor_bytes(counts_tensors(_counts(scorer)[domain]))
    yield README, _readme(scorer, traced.notice).encode()
    yield from mlflow_files(scorer).items()


def table_files(scorer: Scorer) -> dict[str, str]:
    """Return the file of each table."""
    return {name: f"table_{index:04}.safetensors" for index, name in enumerate(sorted(scorer.tables))}


def counts_files(scorer: Scorer) -> dict[str | None, str]:
    """Return the file of each domain's counts, where statistics are looked up; None: of all domains."""
    return {domain: f"statistics_{index:04}.safetensors" for index, domain in enumerate(_counts(scorer))}


def _counts(scorer: Scorer) -> Mapping[str | None, Counts]:
    return scorer.statistics.counts if scorer.statistics else {}


def manifest_of(scorer: Scorer, files: Mapping[str, File]) -> Manifest:
    """Return what an export says of itself."""
    return Manifest(
        scorer.card,
        dict(scorer.schemas),
        scorer.program.signature,
        table_files(scorer),
        dict(files),
        statistics=scorer.statistics.card if scorer.statistics else None,
        tensors={counts_name(domain): file for domain, file in counts_files(scorer).items()},
    )


def write_file(folder: str, name: str, content: bytes) -> None:
    """Write a file of a folder that is not published yet."""
    filesystem, path = storage.resolve(storage.join(folder, name))
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _readme(scorer: Scorer, notice: str) -> str:
    """Return the model card: what the version is, and what a row may say."""
    card = scorer.card
    due = {field.name: f"{field.due}, looked up" if field.looked_up else field.due for field in scorer.fields}
    fields = "\n".join(f"| {name} | {value} |" for name, value in due.items())
    numbers = sum(tensor.numel() for tensor in scorer.parameters.values())
    embeddings = sum(table.weight_RD.numel() for table in scorer.tables.values())
    return f"""# {card.id}

The probability of a click in {card.domain}, by {card.method}, trained to {card.day}.

| | |
| --- | --- |
| run | {card.run} |
| source version | {card.source or "none"} |
| configuration | {card.config_digest} |
| code | {card.code_revision} |
| version's digest | {card.digest} |
| parameters | {numbers:,} and {embeddings:,} in {len(scorer.tables)} tables |

| field | what it holds |
| --- | --- |
{fields}
{_statistics(scorer, notice)}
    from ctnet_ray.serving.folder import open_export
    scorer = open_export("this folder")
    scorer.score(rows)
"""


def _statistics(scorer: Scorer, notice: str) -> str:
    """Return what is said of statistics, as lines of their own."""
    if notice:
        return (
            f"\nStatistics among these fields are given by whoever scores, as of the day before: {notice}.\n"
        )
    if not scorer.statistics:
        return ""
    card = scorer.statistics.card
    newest = ", ".join(f"{domain} {day}" for domain, day in card.newest.items())
    return f"""
Fields that are looked up count clicks and impressions up to {card.day} (newest days: {newest}), by
{", ".join(card.ids)}. A number that a row says itself is taken instead.
"""
