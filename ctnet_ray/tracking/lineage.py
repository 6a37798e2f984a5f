"""Where a version came from: parents, source versions, sample days, code and configuration.

The ancestry is a graph in which every version stands once: thousands of steps of a target and of its
source series are thousands of entries, not paths.
"""

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from rich.text import Text
from rich.tree import Tree

from ctnet_ray.runs.guard import ACCEPTED, HELD_BACK, SET_ASIDE
from ctnet_ray.runs.records import Version, parse_day
from ctnet_ray.tracking.tracker import Tracker

_SHORT = 8  # digits of a digest that people are shown
_CODE = {"code_revision": "code", "config_digest": "config"}
_STANDING = {HELD_BACK: "held back", ACCEPTED: "accepted by", SET_ASIDE: "set aside"}
_KEPT = ("run", "method", "domain", "seed", "uri", "config_digest", "code_revision", "workers")


def ancestry(tracker: Tracker, name: str) -> dict[str, Any]:
    """Return everything that went into a version.

    Args:
        tracker: Where it is registered.
        name: NAME/VERSION, or NAME for the newest day.

    Returns:
        `{"version": ID, "versions": {ID: ENTRY}}`, plain data. IDs are NAME/VERSION, or RUN@DAY for what is
        not registered here. An entry names its `parent` and `source` by ID (None where there is none), its
        `day`, `samples` (domain, day, rows, digest, uri), `run`, `method`, `domain`, `seed`, `uri`,
        `config_digest`, `code_revision` and `workers` (how many trained it; None where nothing says so),
        `held_back` (why), `accepted` (by whom) and `set_aside` (when), None where it is not; one that is not
        registered has `registered` false and its `uri`.

    Raises:
        CtnetError: There is no such model or version, or MLflow fails.
    """
    first = tracker.resolve(name)
    known: dict[str, Version] = {}
    models: set[str] = set()
    entries: dict[str, dict[str, Any]] = {}
    open_ids = deque([first.id])
    while open_ids:
        this = open_ids.popleft()
        model = this.partition("/")[0]
        if model not in models and "@" not in this:
            # One request brings a whole series, in which most of the ancestors are.
            models.add(model)
            known |= {version.id: version for version in tracker.versions(model)}
        if this in entries:
            continue
        if this not in known:
            entries[this] = {"registered": False}
            continue
        tags = known[this].tags
        links = {role: _link(tracker, tags, role) for role in ("parent", "source")}
        entries[this] = _entry(known[this], links)
        for role, link in links.items():
            if link and "@" in link:
                entries[link] = {"registered": False, "uri": tags.get(f"{role}_uri")}
            elif link:
                open_ids.append(link)
    return {"version": first.id, "versions": entries}


def tree(ancestors: dict[str, Any]) -> Tree:
    """Return an ancestry as a tree to print.

    A chain of steps of one model is one branch, newest first, one line a step; a parent or a source series
    of another model is a branch of its own, once.

    Args:
        ancestors: What `ancestry` returns.
    """
    entries = ancestors["versions"]
    root = Tree("")
    branches: dict[str, Tree] = {}
    for chain, why, below in _chains(ancestors["version"], entries):
        title, common = _title(chain, entries, why)
        branch = branches[below].add(title) if below else root
        branch.label = title
        for this in chain:
            branches[this] = branch
            branch.add(_line(this, entries, common))
    return root


def _chains(first: str, entries: dict[str, Any]) -> Iterator[tuple[list[str], str, str]]:
    """Cut the graph into chains of parents within one model; with each, what it is to which version."""
    pending = deque([(first, "", "")])
    placed: set[str] = set()
    while pending:
        this, why, below = pending.popleft()
        model = _model(this)
        chain = []
        while this and this not in placed and _model(this) == model:
            placed.add(this)
            chain.append(this)
            this = entries[this].get("parent")
        if not chain:
            continue  # It stands in a chain that is there already.
        yield chain, why, below
        if this:
            pending.append((this, "parent", chain[-1]))
        pending.extend((entries[one]["source"], "source", one) for one in chain if entries[one].get("source"))


def _model(this: str) -> str:
    return this.partition("/")[0]


def _title(chain: list[str], entries: dict[str, Any], why: str) -> tuple[Text, set[str]]:
    """Say once what the steps of a chain have in common, and return the keys that they have in common."""
    known = [entries[this] for this in chain if entries[this]["registered"]]
    common = {key for key in _KEPT if len({entry[key] for entry in known}) == 1}
    said = [f"{name} {known[0][key][:_SHORT]}" for key, name in _CODE.items() if key in common]
    if known:
        said.insert(0, f"{known[0]['method']} on {known[0]['domain']}, seed {known[0]['seed']}")
    title = Text(f"{why} {_model(chain[0])}".strip(), style="bold")
    return title.append("".join(f" · {part}" for part in said), style="not bold"), common


def _line(this: str, entries: dict[str, Any], common: set[str]) -> Text:
    entry = entries[this]
    if not entry["registered"]:
        return Text(f"{this} is not registered here: {entry.get('uri', 'it was deleted')}")
    samples = [
        f"{sample['domain']}/{sample['day']} {sample['digest'][:_SHORT]}" for sample in entry["samples"]
    ]
    parts = [
        f"{this}  {entry['day']}",
        f"samples {', '.join(samples)}" if samples else "no training",
        *([f"source {entry['source']}"] if entry["source"] else []),
        *(f"{name} {entry[key][:_SHORT]}" for key, name in _CODE.items() if key not in common),
        *([f"workers {entry['workers']}"] if entry["workers"] and "workers" not in common else []),
        *(f"{said} {entry[key]}" for key, said in _STANDING.items() if entry[key]),
    ]
    return Text(" · ".join(parts))


def _link(tracker: Tracker, tags: Any, role: str) -> str | None:
    """Return the ID of a version's parent or source."""
    if role in tags:
        return tags[role]
    reference = tags.get(f"{role}_ref")
    if not reference:
        return None
    run, _, day = reference.rpartition("@")
    # It may have been published after this version was.
    version = tracker.find(run, parse_day(day, f"tag {role}_ref of {tags.get('run')}"))
    return version.id if version else reference


def _entry(version: Version, links: dict[str, str | None]) -> dict[str, Any]:
    tags = {key: version.tags.get(key) for key in (*_KEPT, *_STANDING)}
    samples = json.loads(version.tags.get("samples", "[]"))
    return {"registered": True, "day": version.day.isoformat(), **links, "samples": samples, **tags}
