"""Everything that can be set, as frozen dataclasses.

Commands read them from a YAML file and dotted overrides (`--training.batch_size 512`) with jsonargparse;
unknown keys are errors. `to_dict` serves MLflow parameters and the records beside the weights.
"""

import re
from dataclasses import field
from datetime import date
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeAlias,
    get_args,
)

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import (
    AfterValidator,
    PlainSerializer,
)
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from ctnet_ray import storage
from ctnet_ray.credentials import bare_uri
from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.schema import LABEL
from ctnet_ray.section import Section

#: What becomes of a sample day that is there and would hold something else: leave it and say so; the rows of
#: both, each once; the new rows alone.
Existing = Literal["refuse", "merge", "replace"]
MAX_DROPPED = 0.05  #: largest share of a log's lines that may be dropped
Gate = Literal["glu", "glu_target", "linear", "none"]
GateWidth = Literal["unit", "scalar"]
Fusion = Literal["after_activation", "before_activation", "concatenation"]
Init = Literal["zero", "random"]
Interaction = Literal["none", "fm", "dcn_v2"]
if TYPE_CHECKING:
    MethodName: TypeAlias = str
else:
    MethodName = Literal[tuple(METHODS)]  # listed by --help, and checked wherever a configuration is read

_SQLITE_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:)(.+)")


def _absolute_database(uri: str) -> str:
    """Return an SQLite URI with the path of its file made absolute; another tracking URI as it is."""
    match = _SQLITE_FILE.fullmatch(uri)
    return f"{match[1]}{Path(match[2]).absolute()}" if match else uri


# A relative path means another file in a worker, whose folder is its own.
Location = Annotated[str, AfterValidator(storage.absolute)]
OptionalName = Annotated[str | None, MinLen(1)]


@dataclass(frozen=True)
class DataConfig(Section, section="data"):
    """Where samples are and what they hold."""

    store: Location
    """Root of the sample store: a local path or a URI (s3://, gs://, any fsspec scheme)."""
    schema: Location
    """Schema file: a local path or a URI of a YAML file."""
    domain: str
    """Domain whose samples are trained on and scored."""
    first_day: date
    """First day to train on (YYYY-MM-DD)."""
    last_day: date | Literal["newest"]
    """Last day to train on (YYYY-MM-DD), or newest: the newest one that has samples; each step is scored on
    the day after, where it has samples. Where samples are of longer steps, settings that count days count
    steps."""
    missing_days: Literal["refuse", "skip"] = "refuse"
    """What becomes of a day without samples between others: refuse it, or skip: its step trains nothing and
    takes the source version of the day."""
    label: str = LABEL
    """Column of the samples that is predicted, 0 or 1: label, or one of the mapping's labels."""
    beside: tuple[str, ...] = ()
    """Further domains whose days are trained on in between those of `domain`: the other domains of a source
    of several, or the source domain of a method that trains jointly."""
    stale_versions: Literal["refuse", "keep"] = "refuse"
    """What becomes of versions whose samples, parent or source version were written again since: refuse to go
    on from them, saying from which day they are stale; or keep them and go on."""

    def __post_init__(self) -> None:
        if self.domain in self.beside:
            raise CtnetError(f"data.beside names data.domain, {self.domain}")
        if isinstance(self.last_day, date) and self.last_day < self.first_day:
            raise CtnetError(f"data.last_day {self.last_day} is before data.first_day {self.first_day}")


@dataclass(frozen=True)
class ModelConfig(Section, section="model"):
    """One tower."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Widths of the MLP's hidden layers."""
    attention_hidden: Annotated[int, Gt(0)] = 32
    """Hidden width of the attention unit that scores a sequence's items against the query."""
    embedding_init: Annotated[float, Ge(0)] = 0.01
    """Standard deviation of the normal distribution that new embeddings are drawn from."""
    first_order: bool = False
    """Whether each id has a weight, and each dense feature too, that is added to the logit."""
    interaction: Interaction = "none"
    """What is added to the logit besides: fm, the inner products of all pairs of embeddings; dcn_v2, cross
    layers beside the MLP."""
    cross_layers: Annotated[int, Gt(0)] = 2
    """Cross layers of dcn_v2."""
    cross_rank: Annotated[int | None, Gt(0)] = None
    """Rank of their matrices, as wide as the input layer; null: full."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of each hidden layer's units that are left out of a training step, after their activation."""

    def __post_init__(self) -> None:
        if not self.hidden:
            raise CtnetError("model.hidden needs at least one layer")
        # Not on the field's type: of an item's constraint jsonargparse speaks in several lines of its own.
        for index, width in enumerate(self.hidden):
            if width <= 0:
                raise CtnetError(f"model.hidden[{index}] must be above 0, not {width}")


@dataclass(frozen=True)
class AdapterConfig(Section, section="transfer.adapters"):
    """CTNet's adapters, from the source tower's layers to the target tower's."""

    placement: tuple[str, ...] | None = None
    """Layers with an adapter: hidden (all hidden layers), first, last, deep (the deeper half), hidden_1,
    hidden_2, ..., features (each feature's embedding by itself), embedding (all of them at once), logit.
    null: the method's own, hidden for ctnet, hidden and logit for ctnet_residual."""
    gate: Gate = "glu"
    """glu: (W h + b) * sigmoid(V h + c); glu_target: its gate also sees the target's layer,
    sigmoid(V h + U h_t + c); linear: W h + b; none: no adapter at all (an ablation)."""
    gate_width: GateWidth = "unit"
    """Whether each unit of a layer has a gate of its own, or one gate (scalar) serves the layer."""
    bias: bool = True
    """Whether W and V have their biases b and c."""
    rank: Annotated[int | None, Gt(0)] = None
    """Width of a bottleneck in W and V: each is a product of two maps, where that has fewer parameters;
    null: full maps."""
    source_layers: dict[str, str] = field(default_factory=dict)
    """Source layer that serves a layer of the target's, where it is not its namesake, as hidden_3: hidden_4
    (towers of different depth)."""
    fusion: Fusion = "after_activation"
    """Whether a hidden layer's adapter is added after or before the target layer's activation, or stands
    beside the layer as further input of the next one (concatenation)."""
    init: Init = "zero"
    """zero: W = b = 0, so that a hot start is exactly the base model; random: torch's default."""
    learning_rate: Annotated[float, Ge(0)] = 1.0
    """Adapters' learning rate as a multiple of training.dense_learning_rate."""


@dataclass(frozen=True)
class ResidualConfig(Section, section="transfer.residual"):
    """What the target adds to the frozen source tower (methods residual and ctnet_residual)."""

    scale_and_shift: bool = True
    """Whether each hidden unit of the source tower gets a scale and a shift of the target's own."""
    embedding_learning_rate: Annotated[float, Ge(0)] = 1.0
    """Learning rate of the residual embeddings as a multiple of training.embedding_learning_rate."""
    dense_learning_rate: Annotated[float, Ge(0)] = 1.0
    """Learning rate of scales, shifts and bias as a multiple of training.dense_learning_rate."""


@dataclass(frozen=True)
class JointConfig(Section, section="transfer.joint"):
    """Networks of the methods that train on source and target samples together."""

    shared_experts: Annotated[int, Gt(0)] = 1
    """PLE: experts that both domains use, in each extraction layer."""
    domain_experts: Annotated[int, Gt(0)] = 1
    """PLE: experts of each domain alone, in each extraction layer."""
    transfer_share: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """DDTCDR: alpha, the share of the other domain's network in a prediction, 0 to 0.5."""


@dataclass(frozen=True)
class TrainingConfig(Section, section="training"):
    """How one day is trained."""

    batch_size: Annotated[int, Gt(0)] = 512
    """Rows of a step over all workers."""
    epochs: Annotated[int, Gt(0)] = 1
    """Passes over each day."""
    dense_learning_rate: Annotated[float, Gt(0)] = 0.001
    """Adam's learning rate of dense parameters."""
    embedding_learning_rate: Annotated[float, Gt(0)] = 0.05
    """Row-wise Adagrad's learning rate of embeddings."""
    embedding_initial_accumulator: Annotated[float, Ge(0)] = 0.01
    """Row-wise Adagrad's initial accumulator of squared gradients."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Decoupled weight decay of dense parameters (AdamW)."""
    embedding_weight_decay: Annotated[float, Ge(0)] = 0.0
    """L2 penalty of embeddings: the gradient of a row that a step looks up gets this times the row, before
    Adagrad divides it."""
    warmup_steps: Annotated[int, Ge(0)] = 0
    """Steps (batches) over which learning rates rise evenly to what they are, counted with the optimiser's
    state: from the run's first, or on from a hot start's, whose state is kept; anew where it is reset."""
    clip_norm: Annotated[float | None, Gt(0)] = 10.0
    """Largest norm of the dense gradient; null: it is left alone."""
    bf16: bool = True
    """bfloat16 autocast on GPUs."""
    cpu_bf16: bool = False
    """bfloat16 autocast on CPUs; faster on those with instructions for it (AVX512-BF16, AMX), else slower."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of initial parameters and of the order of rows."""
    beside_batch_size: Annotated[int | None, Gt(0)] = None
    """Rows of a step on samples of data.beside, over all workers; null: batch_size."""
    beside_epochs: Annotated[int | None, Gt(0)] = None
    """Passes over each day of data.beside; null: epochs."""
    beside_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the loss on samples of data.beside."""


@dataclass(frozen=True)
class TransferConfig(Section, section="transfer"):
    """What a target model takes over, and from where."""

    method: MethodName = "base"
    """How the target is served."""
    source_series: OptionalName = None
    """Registered model whose versions are the source series (every method but base)."""
    hot_start: OptionalName = None
    """Registered model NAME or NAME/VERSION to start from; null: from scratch. A bare NAME means its
    newest version whose day is before first_day."""
    hot_start_optimizer: Literal["keep", "reset"] = "keep"
    """Whether a hot start also takes over the optimiser's state."""
    hot_start_schema: Literal["same", "changed"] = "same"
    """same: a hot start has this schema's features, tables' rows aside. changed: features may be new or gone
    since, tables may have another eviction, hidden layers may be wider; what can't be taken over starts anew,
    and is said."""
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    """CTNet's adapters."""
    refresh_days: Annotated[int | None, Gt(0)] = 1
    """Steps after which a frozen source takes the newest version of its series: 1: at each; null: never
    after the first."""
    max_source_age_days: Annotated[int | None, Ge(0)] = 1
    """Days that a source version may be older than the step that takes it, else the run is refused, as it is
    where the series has later versions and none of the step's day; null: any. It changes no result."""
    share_attention: tuple[str, ...] = ()
    """CTNet: sequences whose attention is computed once and used by both towers; all: every sequence with
    attention that both towers have."""
    shared_attention: Literal["source", "target"] = "source"
    """CTNet: tower whose attention, and embeddings under it, serve both."""
    source_statistics: tuple[str, ...] = ()
    """Other domains whose statistics the target's own tower reads too: dense features of the schema whose
    counts_in names one of them. The target's own it always reads."""
    window: Annotated[int | None, Gt(0)] = 1
    """Fine-tuning and base_retrained: days up to the step's own that each step trains on; null: all that the
    store has."""
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    """What the target adds to the frozen source tower."""
    joint: JointConfig = field(default_factory=JointConfig)
    """Networks of joint training."""


Sharding = Literal["table_wise", "row_wise", "column_wise"]
SHARDING: tuple[Sharding, ...] = get_args(Sharding)


@dataclass(frozen=True)
class ComputeConfig(Section, section="compute"):
    """What a run may use of the cluster."""

    workers: Annotated[int, Gt(0)] = 1
    """Number of training workers."""
    min_workers: int | None = None
    """Workers with which a run starts and goes on where the cluster holds no more; null: exactly workers."""
    cpus_per_worker: Annotated[float, Gt(0)] = 1.0
    """CPUs of each worker; also its number of torch threads, rounded up."""
    gpu: bool = False
    """One GPU a worker."""
    parallel_runs: Annotated[int | None, Gt(0)] = None
    """Worker groups that walk runs side by side; null: as many as the cluster's CPUs and GPUs hold."""
    max_failures: Annotated[int, Ge(0)] = 2
    """Worker failures after which the run gives up; each is followed by a resumption from the last step."""
    sharding: tuple[Sharding, ...] = SHARDING
    """Ways to spread embedding tables over several workers; TorchRec's planner chooses one for each table."""

    def __post_init__(self) -> None:
        if not self.sharding:
            raise CtnetError(f"compute.sharding is empty: name one or more of {', '.join(SHARDING)}")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise CtnetError(
                f"compute.min_workers must be between 1 and compute.workers ({self.workers}), "
                f"not {self.min_workers}"
            )

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change while a run goes on."""
        return self.fewest_workers < self.workers

    @property
    def fewest_workers(self) -> int:
        """Workers that a run can't do without."""
        return self.min_workers or self.workers


@dataclass(frozen=True)
class TrackingConfig(Section, section="tracking"):
    """Where results go."""

    models: Location = "runs/models"
    """Root of the model versions: a local path or a URI, reachable from every worker."""
    mlflow_uri: Annotated[str, AfterValidator(_absolute_database), PlainSerializer(bare_uri)] = field(
        default="sqlite:///mlflow.db", repr=False
    )
    """MLflow tracking and registry URI; records hold it without user and password, which belong into
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a database's own variables."""
    experiment: str = "ctnet"
    """MLflow experiment: any name that MLflow takes."""
    model_prefix: OptionalName = None
    """What registered models' names begin with; null: the experiment's name."""
    label: OptionalName = None
    """What tables and MLflow call the run beside its domain and seed; null: its method."""
    name: OptionalName = None
    """Registered model; null: PREFIX.DOMAIN.LABEL, with the name of a data.label behind it, and .sSEED for a
    seed other than 0."""


@dataclass(frozen=True)
class RetentionConfig(Section, section="daily.retention"):
    """Which of a model's versions keep their weights, beside those that are needed."""

    newest: Annotated[int | None, Ge(1)] = None
    """Newest versions that keep their weights; null: all do."""
    every: Annotated[int | None, Ge(1)] = None
    """Days between older versions that keep them; null: none does."""


@dataclass(frozen=True)
class GuardConfig(Section, section="guard"):
    """What a day is refused for before it is trained on, and what holds a version back once it is scored.

    A day is compared with those that the run trained on before it (`ctnet_ray.runs.day_guard`; null switches
    a measure off), a version with the one before it (`ctnet_ray.runs.guard`). No result depends on them.
    """

    days: Annotated[int, Gt(0)] = 7
    """Trained days that a day is compared with, the newest before it; with fewer than 3 it is not."""
    rows: Annotated[float | None, Gt(1)] = 5.0
    """Factor by which there may be more rows, or fewer, than on their mean."""
    ctr: Annotated[float | None, Gt(1)] = 3.0
    """Factor by which clicks per miss may be more, or fewer, than on all of them."""
    empty: Annotated[float | None, Ge(0), Le(1)] = 0.3
    """How much larger the share of rows may be in which a column is empty, than on any of them."""
    new_ids: Annotated[float | None, Ge(0), Le(1)] = 0.3
    """How much larger the share of rows with ids may be that none of these days had, than on any of them."""
    psi: Annotated[float | None, Ge(0)] = 0.5
    """Largest population stability index of a column, to that of these days which it is most like; of a day
    with fewer than 500 rows it is not looked at."""
    infinite: Annotated[float | None, Ge(0), Le(1)] = 0.0
    """Largest share of rows with an infinite number in a column, on any day."""
    accept_days: tuple[date, ...] = ()
    """Days that are trained on whatever they are like; what they were like is recorded."""
    versions: Literal["hold_back", "off"] = "hold_back"
    """hold_back: a version whose scores are out of bounds is not newest in the registry, no target takes it,
    and its run stops until it is accepted or rewound; off: scores hold nothing back."""
    auc_drop: Annotated[float, Ge(0)] = 0.05
    """AUC that a version may lose against its parent's, each on its next day; three standard errors of the
    difference come on top, which is much on a day with few clicks."""
    calibration_off: Annotated[float, Ge(1)] = 2.0
    """Factor by which calibration may be further from 1 than the parent's; three standard errors on top."""
    logloss_excess: Annotated[float, Ge(0)] = 0.5
    """Share by which logloss may be above that of a constant, the click rate of the day before; what the
    parent's was above its own day's click rate comes on top."""

    @property
    def is_on(self) -> bool:
        """Whether a day is measured."""
        return any(
            limit is not None
            for limit in (self.rows, self.ctr, self.empty, self.new_ids, self.psi, self.infinite)
        )


@dataclass(frozen=True)
class DailyConfig(Section, section="daily"):
    """What the daily job waits for."""

    wait_minutes: Annotated[float, Ge(0)] = 0.0
    """Longest time to wait for the samples, or the source version, of the next step; 0: not at all."""
    look_seconds: Annotated[float, Gt(0)] = 60.0
    """Time between two looks."""
    source_lag_days: Annotated[int, Ge(0)] = 0
    """Days that the newest source version may be older than a step; 0: a step waits for that of its day.
    No more than `transfer.max_source_age_days`."""
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    """What is removed after each call."""


@dataclass(frozen=True)
class JobConfig(Section, section=""):
    """One continual run."""

    data: DataConfig
    """Where samples are and what they hold."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The tower."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How one day is trained."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """What a target model takes over."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """What the run may use of the cluster."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where results go."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """What a day is refused for before it is trained on, and what holds a version back."""

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data: strings, numbers, lists, mappings."""
        return to_jsonable_python(self)


@dataclass(frozen=True)
class ComparisonConfig(Section, section="comparison"):
    """Which runs are compared, on what."""

    store: Location
    """Root of the sample store: a local path or a URI; {seed} in it becomes the seed (a world a seed)."""
    schema: Location
    """Schema file: a local path or a URI of a YAML file; {seed} in it becomes the seed."""
    source: str
    """Source domain."""
    targets: tuple[str, ...]
    """Target domains."""
    first_day: date
    """First day to train on (YYYY-MM-DD)."""
    first_scored_day: date
    """First day that the tables count (YYYY-MM-DD); days before it are warm-up."""
    last_scored_day: date
    """Last day that the tables count (YYYY-MM-DD); training ends the day before."""
    transfer_day: date | None = None
    """First day that transfer methods train on, hot-started from the base model of the day before; null:
    they start from scratch on first_day."""
    hot_start_optimizer: Literal["keep", "reset"] = "keep"
    """Whether that hot start also takes over the base model's optimiser state."""
    methods: tuple[str, ...] = ("methods",)
    """What to compare with base: methods, variants, or groups of them (methods, windows, ablations,
    several_sources, controls, all); `ctnet_ray/methods/variants.py` lists the variants."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further variants: settings by name, each with transfer.method and dotted names of what differs."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings, by dotted name, of all runs of a method or of one variant, whichever name is given."""
    more_sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For a target: domains that a second source series is trained on beside `source` (several_sources)."""
    label: str = LABEL
    """Column of the samples that all runs predict, as data.label."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each has a source series and base model of its own."""

    def __post_init__(self) -> None:
        if not self.targets or not self.seeds:
            raise CtnetError("comparison.targets and comparison.seeds need at least one entry")
        if not self.first_day < self.first_scored_day <= self.last_scored_day:
            raise CtnetError("comparison: first_day < first_scored_day <= last_scored_day does not hold")
        if self.transfer_day and not self.first_day < self.transfer_day < self.first_scored_day:
            raise CtnetError("comparison.transfer_day must lie between first_day and first_scored_day")
