"""All parsers that are fuzzed, by name."""

from collections.abc import Callable
from pathlib import Path

from ctnet_ray.serving.folder import open_export
from ctnet_ray.training.context import start_alone
from tests.faults import folder_parsers, text_parsers
from tests.faults.target import Target
from tests.unit.loop_world import World, make_world

_OF_TEXTS: dict[str, Callable[[Path], Target]] = {
    "csv": text_parsers.csv,
    "log": text_parsers.log,
    "schema": text_parsers.schemas,
    "mapping": text_parsers.mappings,
    "configuration": text_parsers.configurations,
}
_OF_FOLDERS: dict[str, Callable[[World], Target]] = {
    "version": folder_parsers.versions,
    "records": folder_parsers.records,
    "samples": folder_parsers.sample_days,
    "export": folder_parsers.exports,
    "delta": folder_parsers.deltas,
    "request": lambda world: text_parsers.requests(world.root, open_export(folder_parsers.exported(world))),
}
TARGETS = (*_OF_TEXTS, *_OF_FOLDERS)


def make_target(name: str, folder: Path, world: World | None = None) -> Target:
    """Make a target.

    Args:
        name: One of `TARGETS`.
        folder: Where it may write.
        world: A store with runs in the folder, which is changed; None: it is made, where it is needed.
    """
    if name in _OF_TEXTS:
        return _OF_TEXTS[name](folder)
    if world is None:
        start_alone()
        world = make_world(folder / "world")
    return _OF_FOLDERS[name](world)
