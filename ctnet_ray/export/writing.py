"""Writing an exported version (`ctnet_ray.serving.folder`)."""

import hashlib
from collections.abc import Mapping

import safetensors.torch
import torch

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError
from ctnet_ray.export.mlflow_files import mlflow_files
from ctnet_ray.export.opening import Traced
from ctnet_ray.serving.folder import KNOWN, PARAMETERS, PROGRAM, README, ROWS, WEIGHT, File, Manifest
from ctnet_ray.serving.scorer import Scorer
from ctnet_ray.serving.tables import Table


def export(traced: Traced, uri: str) -> Manifest:
    """Write a version for scoring, whole or not at all.

    Args:
        traced: The version.
        uri: Folder to write, local or URI; an export that is there is replaced.

    Raises:
        CtnetError: The folder holds something else, or can't be written.
    """
    uri = storage.absolute(uri)
    if storage.read_folder(uri) is None and (storage.list_files(uri) or storage.list_folders(uri)):
        raise CtnetError(f"{uri} holds something that is no exported version: name another folder")
    scorer = traced.scorer
    tables = {name: f"table_{index:04}.safetensors" for index, name in enumerate(sorted(scorer.tables))}
    files: dict[str, File] = {}
    with storage.new_folder(uri) as (folder, publish):

        def write(name: str, content: bytes) -> None:
            filesystem, path = storage.resolve(storage.join(folder, name))
            with filesystem.open_output_stream(path) as stream:
                stream.write(content)
            files[name] = File(len(content), hashlib.sha256(content).hexdigest())

        write(PROGRAM, traced.archive)
        write(PARAMETERS, _bytes(scorer.parameters))
        for name, file in tables.items():
            write(file, _bytes(_tensors(scorer.tables[name])))
        write(README, _readme(scorer).encode())
        for_mlflow = mlflow_files(scorer)
        for name, content in for_mlflow.items():
            write(name, content)
        manifest = Manifest(scorer.card, dict(scorer.schemas), scorer.program.signature, tables, files)
        publish(manifest.to_dict())
    found = storage.read_folder(uri)
    if found and found[1] != uri:  # MLflow looks for its own at the top
        for name, content in for_mlflow.items():
            storage.write_bytes(storage.join(uri, name), content)
    return manifest


def _tensors(table: Table) -> dict[str, torch.Tensor]:
    tensors = {WEIGHT: table.weight_RD, KNOWN: table.known_Z, ROWS: table.rows_Z}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})


def _readme(scorer: Scorer) -> str:
    """Return the model card: what the version is, and what a row may say."""
    card = scorer.card
    fields = "\n".join(f"| {field.name} | {field.due} |" for field in scorer.fields)
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

    from ctnet_ray.serving.folder import open_export
    scorer = open_export("this folder")
    scorer.score(rows)
"""
