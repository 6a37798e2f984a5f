"""Which sample days a run needs: those still to be trained on or scored, and no others."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import cached_property

from ctnet_ray import storage
from ctnet_ray.batches.encoder import Encoder
from ctnet_ray.config import JobConfig
from ctnet_ray.errors import CtnetError, nearest
from ctnet_ray.runs.plan import StepPlan
from ctnet_ray.runs.records import RunRecord, StepRecord, version_folder
from ctnet_ray.runs.specs import ModelSpec
from ctnet_ray.samples.common_step import common_step
from ctnet_ray.samples.store import Manifest, SampleStore
from ctnet_ray.step import ONE_DAY, Step


class SampleDays:
    """A domain's sample days: listed once, and the manifest of each day read once, when it is asked for.

    Args:
        store: The sample store.
        domain: The domain.
    """

    def __init__(self, store: SampleStore, domain: str) -> None:
        self.store, self.domain = store, domain
        self.whole: Sequence[date] = store.days(domain)
        """The days that are there, ascending."""
        self._there = frozenset(self.whole)
        self._manifests: dict[date, Manifest] = {}

    def __contains__(self, day: date) -> bool:
        return day in self._there

    @cached_property
    def newest(self) -> Manifest | None:
        """The newest day that can be read; it says the step of all."""
        for day in reversed(self.whole):
            try:
                return self._manifests.setdefault(day, self.store.manifest(self.domain, day))
            except CtnetError:
                continue  # a damaged day is said where it is asked for
        return None

    def of(self, day: date) -> Manifest | None:
        """Return a day's manifest; None where the day is not there.

        Raises:
            CtnetError: It can't be read, or is of another step than the newest day.
        """
        if day in self._there and day not in self._manifests:
            manifest = self.store.manifest(self.domain, day)
            common_step([manifest, self.newest or manifest])
            self._manifests[day] = manifest
        return self._manifests.get(day)

    def window(self, first: date, last: date) -> tuple[Manifest, ...]:
        """Return what there is from `first` to `last`, ascending."""
        days = (self.of(day) for day in self.whole if first <= day <= last)
        return tuple(manifest for manifest in days if manifest)

    def lacks(self, day: date) -> str:
        """Say that a day is not there, and which are."""
        if self.whole:
            there = f"there are {self.whole[0]} to {self.whole[-1]}{self._steps()}"
        elif domains := self.store.domains():
            there = f"the store has {', '.join(domains)}{nearest(self.domain, domains)}"
        else:
            there = f"nothing is in {self.store.root}: see data.store"
        return f"no samples of {self.domain} on {day} ({there})"

    def _steps(self) -> str:
        step = self.newest.step if self.newest else ONE_DAY
        return "" if step == ONE_DAY else f", in steps of {step}"


def step_of(samples: Iterable[SampleDays], done: Iterable[StepRecord] = ()) -> Step:
    """Return the step of a run.

    Args:
        samples: Days of each domain that it reads.
        done: Its steps that are done, which say it where no day is left.

    Raises:
        CtnetError: The domains are of different ones.
    """
    newest = [days.newest for days in samples if days.newest]
    return common_step(newest) if newest else next((step.length for step in done), ONE_DAY)


def last_day(config: JobConfig, samples: Iterable[SampleDays]) -> date:
    """Return the last day to train on; `newest` is the newest that all domains have.

    Raises:
        CtnetError: It is to be the newest, and there is none from the first day on.
    """
    data = config.data
    if isinstance(data.last_day, date):
        return data.last_day
    newest = [(days.whole[-1] if days.whole else date.min, days) for days in samples]
    day, days = min(newest, key=lambda entry: entry[0])
    if day < data.first_day:
        raise CtnetError(
            f"{days.lacks(data.first_day)}: write them with jobs.prepare, or change data.first_day"
        )
    return day


def first_digests(
    config: JobConfig, model: str, samples: Sequence[SampleDays], run_of: Callable[[Sequence[str]], str]
) -> tuple[str, ...]:
    """Return the digests of each domain's first sample day, which are part of a run's name.

    Where such a day is no longer there, the run that was begun with it says them.

    Args:
        config: The run.
        model: Its registered model.
        samples: Days of each domain that it reads.
        run_of: Returns the name that the run has with given digests.

    Raises:
        CtnetError: A first day is not there, and no run was begun with it.
    """
    first = config.data.first_day
    firsts = [days.of(first) for days in samples]
    digests = tuple(day.digest for day in firsts if day)
    if len(digests) == len(samples):
        return digests
    for name in storage.list_folders(config.tracking.models):
        if name.startswith(f"{model}-"):
            begun = _begun_with(storage.join(config.tracking.models, name), first)
            agrees = all(day is None or day.digest in begun for day in firsts)
            if agrees and run_of(begun) == name:
                return begun
    lacking = next(days for days, day in zip(samples, firsts, strict=True) if day is None)
    raise CtnetError(
        f"{lacking.lacks(first)}, and no run of {model} was begun with that day: write it with jobs.prepare, "
        "or change data.first_day"
    )


def _begun_with(folder: str, first: date) -> tuple[str, ...]:
    """Return the digests that a run's folder names; of an older release's run its first step says them."""
    record = RunRecord.read(folder)
    if record is None or record.first_samples:
        return record.first_samples if record else ()
    version = storage.read_folder(version_folder(folder, first))
    step = StepRecord.of(version[0], folder) if version else None
    return tuple(sample.digest for sample in step.samples if sample.day == first) if step else ()


def check_days(config: JobConfig, samples: Sequence[SampleDays], days: Sequence[date]) -> None:
    """See that the days to be trained on are there, or may be passed over.

    Raises:
        CtnetError: One is not there.
    """
    for domain in samples:
        missing = [day for day in days if day not in domain]
        lacking = [day for day in missing if not may_be_passed_over(config, domain, day)]
        if lacking:
            skips = config.data.missing_days == "skip"
            gaps = not skips and domain.whole and config.data.first_day < lacking[0] < domain.whole[-1]
            skipping = ", or pass over days between others with data.missing_days: skip" if gaps else ""
            raise CtnetError(
                f"{domain.lacks(lacking[0])}; {len(lacking)} of {len(days)} days are missing: write them "
                f"with jobs.prepare, or change data.first_day and data.last_day{skipping}"
            )


def may_be_passed_over(config: JobConfig, samples: SampleDays, day: date) -> bool:
    """Return whether a missing day may be passed over: a later one is there, else it may still come.

    The first day never may, for it names the run.
    """
    between = bool(samples.whole) and config.data.first_day < day < samples.whole[-1]
    return config.data.missing_days == "skip" and between


def check_samples(
    samples: Iterable[SampleDays], steps: Iterable[StepPlan], model: ModelSpec, label: str
) -> None:
    """Compare the days that steps read with their files and with the model's features.

    Raises:
        CtnetError: A day has no rows, or does not fit.
    """
    read = [day for step in steps for day in (*step.train, *step.beside, step.evaluate) if day is not None]
    for domain in samples:
        encoder = Encoder(model.inputs, domain.domain, label=label)
        for day in {day.day: day for day in read if day.domain == domain.domain}.values():
            if not day.rows:
                raise CtnetError(f"{day.domain} {day.day} has no rows: write the day again, or leave it out")
            domain.store.check_files(day)
            encoder.check(day)
