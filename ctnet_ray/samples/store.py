"""The sample store: `<root>/<domain>/day=YYYY-MM-DD/*.parquet`, a manifest a day.

A day is whole or absent (`ctnet_ray.storage`), its rows are shuffled when it is written, and its manifest
says enough to plan reading it (rows of every row group) and to notice damage (bytes and SHA-256 of every
file).
"""

import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ctnet_ray import storage
from ctnet_ray.config import Existing
from ctnet_ray.errors import CtnetError, first_problem
from ctnet_ray.samples.day_writer import NO_LINKS, DayLinks, DayWriter
from ctnet_ray.samples.existing import DayDiffersError, StoredRows
from ctnet_ray.samples.manifest import Manifest, SampleFile
from ctnet_ray.samples.sharing import shared
from ctnet_ray.samples.state_tables import read_table, same_table

ROWS_PER_FILE = 1_048_576
ROWS_PER_GROUP = 65_536
_DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")  #: a folder's name
_SHOWN = 60  #: characters of a name that can't be
_FOLDER = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


class SampleStore:
    """The sample days below one root.

    Args:
        root: Local path or URI.
    """

    def __init__(self, root: str) -> None:
        self.root = storage.absolute(root)
        self._swept_domains: set[str] = set()

    def uri(self, domain: str, day: date) -> str:
        """Return where the day's folder is, or would be."""
        if not _DOMAIN.fullmatch(domain):
            shown = domain if len(domain) <= _SHOWN else f"{domain[:_SHOWN]}..."
            raise CtnetError(f"domain {shown!r}: letters, digits, '_', '-' and '.' only, 200 of them at most")
        return storage.join(self.root, domain, f"day={day.isoformat()}")

    def sweep(self, domain: str) -> None:
        """Remove what killed writers left of a domain, if nobody writes there; copies of this don't try."""
        if domain in self._swept_domains:
            return
        if domain in storage.list_folders(self.root):
            with shared(storage.join(self.root, domain)):
                pass
        self._swept_domains.add(domain)

    def domains(self) -> list[str]:
        """Return the domains that have samples, sorted."""
        return [name for name in storage.list_folders(self.root) if _DOMAIN.fullmatch(name)]

    def days(self, domain: str, first: date = date.min) -> list[date]:
        """Return the whole days of a domain from `first` on, ascending."""
        return [day for day in self.listed_days(domain) if day >= first and self.has_day(domain, day)]

    def listed_days(self, domain: str) -> list[date]:
        """Return the days of a domain that have a folder, whole or not, ascending."""
        days = map(_day, storage.list_folders(storage.join(self.root, domain)))
        return sorted(day for day in days if day)

    def newest_day(self, domain: str) -> date | None:
        """Return the newest whole day of a domain."""
        return next((day for day in reversed(self.listed_days(domain)) if self.has_day(domain, day)), None)

    def newest_manifest(self, domain: str) -> Manifest | None:
        """Return the manifest of the newest whole day of a domain that has one which can be read."""
        for day in reversed(self.listed_days(domain)):
            try:
                return self.manifest(domain, day)
            except CtnetError:
                continue  # absent or damaged, which is said where the day is asked for
        return None

    def has_day(self, domain: str, day: date) -> bool:
        """Return whether the day is there."""
        return storage.exists(storage.join(self.uri(domain, day), storage.MANIFEST))

    def manifest(self, domain: str, day: date) -> Manifest:
        """Return the manifest of one day.

        Raises:
            CtnetError: The day is absent, or its manifest can't be read or contradicts itself.
        """
        uri = self.uri(domain, day)
        content = storage.read_folder(uri)
        if content is None:
            raise CtnetError(f"no samples of {domain} on {day} in {self.root}: write them with jobs.prepare")
        values, folder = content
        schema_digest = values.pop("schema_digest", None)
        try:
            manifest = Manifest(**{**values, "uri": folder})
        except ValidationError as error:
            raise CtnetError(f"{uri}: the manifest {first_problem(error)}: write the day again") from error
        if (manifest.domain, manifest.day) != (domain, day):
            raise CtnetError(
                f"{uri}: the manifest is that of {manifest.domain} on {manifest.day}: write the day again"
            )
        counted = sum(sum(file.row_groups) for file in manifest.files)
        adds_up = manifest.positives <= manifest.rows == counted
        if not adds_up or schema_digest != manifest.schema_digest:
            raise CtnetError(f"{uri}: the manifest's rows or columns were changed: write the day again")
        return manifest

    def check_files(self, manifest: Manifest, *, checksums: bool = False) -> None:
        """Compare the files of a day with its manifest.

        Args:
            manifest: The day's manifest.
            checksums: Also read every file and compare its SHA-256.

        Raises:
            CtnetError: A file is absent, or differs in size or checksum.
        """
        filesystem, path = storage.resolve(manifest.uri)

        def check(entry: SampleFile) -> str | None:
            info = filesystem.get_file_info(f"{path}/{entry.name}")
            if not info.is_file:
                return f"{entry.name} is absent"
            if info.size != entry.bytes:
                return f"{entry.name} has {info.size} bytes, not {entry.bytes}"
            if checksums and storage.sha256(storage.join(manifest.uri, entry.name)) != entry.sha256:
                return f"{entry.name} has another checksum"
            return None

        with ThreadPoolExecutor(8) as pool:
            for problem in pool.map(check, manifest.files):
                if problem:
                    raise CtnetError(f"{manifest.domain} {manifest.day}: {problem}: write the day again")

    @contextmanager
    def write_day(
        self,
        domain: str,
        day: date,
        *,
        seed: int = 0,
        existing: Existing = "replace",
        links: DayLinks = NO_LINKS,
        rows_per_file: int = ROWS_PER_FILE,
        rows_per_group: int = ROWS_PER_GROUP,
    ) -> Iterator[DayWriter]:
        """Write one day; it is published when the block ends without an error.

        A day that is there, undamaged, and holds the same is left untouched. What killed writers left of any
        day of the domain is removed, once a store and domain, when nobody else writes there, on a local disk.

        Args:
            domain: Domain of the samples.
            day: Day of the samples.
            seed: Seed of the shuffle: the same rows and seed give the same files.
            existing: What becomes of a day that is there.
            links: What ties the day to the days before and after it.
            rows_per_file: Rows of a file; also the rows held in memory.
            rows_per_group: Rows of a Parquet row group, the unit in which workers read.

        Yields:
            Takes the rows; its `outcome` says what became of the day.

        Raises:
            CtnetError: No row was written, or a row can't be a sample (see `DayWriter.write`).
            DayDiffersError: The day is there with other content, and `existing` is "refuse".
        """
        stored = self._stored(domain, day, existing)
        with (
            shared(storage.join(self.root, domain), sweeps=domain not in self._swept_domains) as was_swept,
            storage.new_folder(self.uri(domain, day)) as (folder, publish),
            tempfile.TemporaryDirectory(prefix="ctnet-day-") as spill,
        ):
            if was_swept:
                self._swept_domains.add(domain)
            merged = StoredRows(stored, links.look_back) if stored and existing == "merge" else None
            rng = np.random.default_rng([seed, day.toordinal()])
            writer = DayWriter(folder, Path(spill), rng, rows_per_file, merged)
            yield writer
            if merged and not writer.rows:
                writer.leave(merged.manifest)
                return
            manifest = writer.finish(domain, day, rows_per_group, links)
            if stored and self._is_same(stored, manifest):
                writer.leave(stored)
                if _has_same_links(stored, replace(manifest, uri=folder)):
                    return
            elif stored:
                if existing == "refuse" and stored.digest != manifest.digest:
                    raise DayDiffersError(domain, day, stored.rows, manifest.rows)
                writer.outcome = "merged" if merged else "replaced"
            links.before_publish()
            publish(manifest.to_dict())
            writer.manifest = self.manifest(domain, day)

    def _stored(self, domain: str, day: date, existing: Existing) -> Manifest | None:
        """Return the manifest of a day, if it is there; what is replaced may be damaged."""
        if not self.has_day(domain, day):
            return None
        try:
            return self.manifest(domain, day)
        except CtnetError:
            if existing == "replace":
                return None
            raise

    def _is_same(self, stored: Manifest, manifest: Manifest) -> bool:
        """Return whether a stored day, undamaged, holds what was written now."""
        if stored.digest != manifest.digest:
            return False
        try:
            self.check_files(stored, checksums=True)
            for name, entry in stored.state.items():
                read_table(stored.uri, name, entry)
        except CtnetError:
            return False
        return True


def _has_same_links(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests say the same of the days before and after."""
    if (one.origin, one.statistics, one.state.keys()) != (other.origin, other.statistics, other.state.keys()):
        return False
    return all(
        same_table(name, (one.uri, entry), (other.uri, other.state[name]))
        for name, entry in one.state.items()
    )


def _day(folder: str) -> date | None:
    match = _FOLDER.fullmatch(folder)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None
