"""A network as a traced program: what it computes of embeddings, masks and numbers, as torch operators.

The program is a `torch.export` archive that holds a graph and no tensor: parameters are inputs like all
others, so that they lie in safetensors, and a newer version of a model needs no other program. `torch.export`
unpickles parts of archives that ours has not; one that has them is refused before it is opened.

Shapes: B rows, L longest sequence, D width of an embedding, F numbers of all dense features.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch.export.graph_signature import InputKind

from ctnet_ray.errors import CtnetError
from ctnet_ray.schema import Role

_WHOLE = ConfigDict(extra="forbid")
Name = Annotated[str, Field(pattern=r"^[\w.]+$")]

#: What a graph may call. Whatever else a target names could be any function of Python's.
_TARGETS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|ge|le|eq|ne|gt|lt)"
)
_CONFIG = re.compile(r"[^/]+/data/(weights|constants)/[^/]*_config\.json")
_PLAIN = re.compile(
    r"[^/]+/(models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|data/constants/tensor_\d+)"  # the network's own, such as the state that a recurrent layer begins with
)


@checked_dataclass(frozen=True, config=_WHOLE)
class Input:
    """One input of a program, beside its parameters."""

    kind: Literal["rows", "mask", "dense"]
    """Embeddings of a feature, float32 [B, D] or [B, L, D]; where its sequences have items, bool [B, L]; a
    tower's dense features, float32 [B, F]."""
    role: Role
    """Tower whose features it is of."""
    feature: str = ""
    """The feature; of dense none."""
    table: str = ""
    """Of rows: the table that they are of."""


@checked_dataclass(frozen=True, config=_WHOLE)
class Signature:
    """What a program takes, in its order: parameters, then inputs. It gives probabilities, float32 [B]."""

    parameters: tuple[Name, ...]
    inputs: tuple[Input, ...]
    lengths: dict[str, int]
    """Length L of sequences that must have one, by feature; of others it is any."""


@dataclass(frozen=True)
class Program:
    """A network's graph and what it takes."""

    signature: Signature
    graph: torch.fx.Graph
    """Placeholders: constants, then all of the signature in its order."""
    constants: Mapping[str, torch.Tensor]
    """By their placeholders' names."""


def write(exported: torch.export.ExportedProgram) -> bytes:
    """Return a program as an archive; of its tensors, which are inputs, nothing is in it."""
    # Example inputs would be pickled.
    exported._example_inputs = None
    stream = io.BytesIO()
    torch.export.save(exported, stream)
    content = stream.getvalue()
    _check(content, "the program")
    return content


def read(content: bytes, signature: Signature, where: str) -> Program:
    """Read an archive.

    Args:
        content: The archive.
        signature: What stands beside it.
        where: File, for messages.

    Raises:
        CtnetError: It is none of ours, or calls what no program of ours calls.
    """
    _check(content, where)
    exported = torch.export.load(io.BytesIO(content))
    graph = exported.graph_module.graph
    takes = {node.name for node in graph.nodes if node.op == "placeholder"}
    constants = {
        entry.arg.name: constant
        for entry in exported.graph_signature.input_specs
        if entry.kind is InputKind.CONSTANT_TENSOR
        and isinstance(constant := exported.constants.get(entry.target or ""), torch.Tensor)
    }
    if len(takes - constants.keys()) != len(signature.parameters) + len(signature.inputs):
        raise CtnetError(
            f"{where} takes {len(takes)} tensors, and its signature says otherwise: export again"
        )
    return Program(signature, graph, constants)


def _check(content: bytes, where: str) -> None:
    """Refuse an archive that holds more than a graph, before anything of it is believed."""
    way_out = "export it again, with this release"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                if not _is_plain(name, archive.read(name)):
                    raise CtnetError(f"{where} holds {name}, which could be a pickle: {way_out}")
            (model,) = (name for name in archive.namelist() if name.endswith("/models/model.json"))
            targets = set(_targets(json.loads(archive.read(model))))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise CtnetError(f"{where} is no program ({error}): {way_out}") from error
    unknown = sorted(target for target in targets if not _TARGETS.fullmatch(target))
    if unknown:
        raise CtnetError(f"{where} calls {unknown[0]}, which no program of ours does: {way_out}")


def _is_plain(name: str, content: bytes) -> bool:
    """Whether nothing in a file of an archive is unpickled."""
    if _CONFIG.fullmatch(name):
        return not any(entry["use_pickle"] for entry in json.loads(content)["config"].values())
    return not content or bool(_PLAIN.fullmatch(name))


def _targets(value: Any) -> list[str]:
    """Return what the nodes of a graph call, wherever they stand."""
    if isinstance(value, list):
        return [target for element in value for target in _targets(element)]
    if not isinstance(value, dict):
        return []
    called = [value["target"]] if isinstance(value.get("target"), str) else []
    return called + [target for element in value.values() for target in _targets(element)]
