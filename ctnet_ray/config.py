"""Everything that can be set, as frozen dataclasses.

Commands read them from a YAML file and dotted overrides (`--training.batch_size 512`) with jsonargparse;
unknown keys are errors. `to_dict` serves MLflow parameters, the records beside the weights and the digest
that names a run.
"""

import math
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal, get_args

from ctnet_ray import storage
from ctnet_ray.errors import CtnetError

Gate = Literal["glu", "linear", "none"]
Fusion = Literal["after_activation", "before_activation"]
Init = Literal["zero", "random"]
MethodName = Literal["base", "source_direct", "ctnet", "ctnet_one_time"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True)
class DataConfig:
    """Where samples are and what they hold."""

    store: str
    """Root of the sample store: a local path or a URI (s3://, gs://, any fsspec scheme)."""
    schema: str
    """Schema file: a local path or a URI of a YAML file."""
    domain: str
    """Domain whose samples are trained on and scored."""
    first_day: date
    """First day to train on (YYYY-MM-DD)."""
    last_day: date
    """Last day to train on (YYYY-MM-DD); each step is scored on the day after, where it has samples."""


@dataclass(frozen=True)
class ModelConfig:
    """One tower."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Widths of the MLP's hidden layers."""
    attention_hidden: int = 32
    """Hidden width of the attention unit that scores a sequence's items against the query."""
    embedding_init: float = 0.01
    """Standard deviation of the normal distribution that new embeddings are drawn from."""


@dataclass(frozen=True)
class AdapterConfig:
    """CTNet's adapters, from the source tower's layers to the target tower's."""

    placement: tuple[str, ...] = ("hidden",)
    """Layers with an adapter: hidden (all hidden layers), hidden_1, hidden_2, ..., embedding, logit."""
    gate: Gate = "glu"
    """glu: (W h + b) * sigmoid(V h + c); linear: W h + b; none: no adapter at all (an ablation)."""
    fusion: Fusion = "after_activation"
    """Whether a hidden layer's adapter is added after or before the target layer's activation."""
    init: Init = "zero"
    """zero: W = b = 0, so that a hot start is exactly the base model; random: torch's default."""


@dataclass(frozen=True)
class TrainingConfig:
    """How one day is trained."""

    batch_size: int = 512
    """Rows of a step over all workers."""
    epochs: int = 1
    """Passes over each day."""
    dense_learning_rate: float = 0.001
    """Adam's learning rate of dense parameters."""
    embedding_learning_rate: float = 0.05
    """Row-wise Adagrad's learning rate of embeddings."""
    embedding_initial_accumulator: float = 0.01
    """Row-wise Adagrad's initial accumulator of squared gradients."""
    weight_decay: float = 0.0
    """Decoupled weight decay of dense parameters (AdamW)."""
    clip_norm: float = 10.0
    """Largest norm of the dense gradient; 0 leaves it alone."""
    bf16: bool = True
    """bfloat16 autocast on GPUs; CPUs always use float32."""
    seed: int = 0
    """Seed of initial parameters and of the order of rows."""


@dataclass(frozen=True)
class TransferConfig:
    """What a target model takes over, and from where."""

    method: MethodName = "base"
    """How the target is served."""
    source_series: str = ""
    """Registered model whose versions are the source series (every method but base)."""
    hot_start: str = ""
    """Registered model NAME or NAME/VERSION to start from; empty: from scratch. A bare NAME means its
    newest version whose day is before first_day."""
    hot_start_optimizer: Literal["keep", "reset"] = "keep"
    """Whether a hot start also takes over the optimiser's state."""
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    """CTNet's adapters."""


@dataclass(frozen=True)
class ComputeConfig:
    """What a run may use of the cluster."""

    workers: int = 1
    """Number of training workers."""
    cpus_per_worker: float = 1.0
    """CPUs of each worker; also its number of torch threads, rounded up."""
    gpu: bool = False
    """One GPU a worker."""
    max_failures: int = 2
    """Worker failures after which the run gives up; each is followed by a resumption from the last step."""


@dataclass(frozen=True)
class TrackingConfig:
    """Where results go."""

    models: str = "runs/models"
    """Root of the model versions: a local path or a URI, reachable from every worker."""
    mlflow_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking and registry URI."""
    experiment: str = "ctnet"
    """MLflow experiment; also the prefix of registered models."""
    name: str = ""
    """Registered model; empty: EXPERIMENT.DOMAIN.METHOD, and .sSEED behind it for a seed other than 0."""


@dataclass(frozen=True)
class JobConfig:
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

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data: strings, numbers, lists, mappings."""
        return _plain(asdict(self))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the work: what decides the result, and nothing else.

        The last day, the resources other than the number of workers, and where results go are left out,
        so that a run goes on when a day is added or the cluster changes.
        """
        values = self.to_dict()
        values["data"].pop("last_day")
        kept = {key: values[key] for key in ("data", "model", "training", "transfer")}
        return storage.digest({**kept, "workers": self.compute.workers})[:12]


@dataclass(frozen=True)
class ComparisonConfig:
    """Which runs are compared, on what."""

    store: str
    """Root of the sample store: a local path or a URI; {seed} in it becomes the seed (a world a seed)."""
    schema: str
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
    """First day that transfer methods train on, hot-started from the base model of the day before; none:
    they start from scratch on first_day."""
    hot_start_optimizer: Literal["keep", "reset"] = "keep"
    """Whether that hot start also takes over the base model's optimiser state."""
    methods: tuple[MethodName, ...] = METHODS
    """Methods to compare; base is always run."""
    controls: bool = False
    """Also run base with its optimiser state reset on transfer_day, and base with twice the epochs."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; each has a source series and base model of its own."""

    def __post_init__(self) -> None:
        if not self.targets or not self.seeds:
            raise CtnetError("comparison.targets and comparison.seeds need at least one entry")
        if not self.first_day < self.first_scored_day <= self.last_scored_day:
            raise CtnetError("comparison: first_day < first_scored_day <= last_scored_day does not hold")
        if self.transfer_day and not self.first_day < self.transfer_day < self.first_scored_day:
            raise CtnetError("comparison.transfer_day must lie between first_day and first_scored_day")
        if self.controls and not self.transfer_day:
            raise CtnetError("comparison.controls needs comparison.transfer_day")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, date) else value


def _check(config: JobConfig) -> None:
    positive = {
        "training.batch_size": config.training.batch_size,
        "training.epochs": config.training.epochs,
        "training.dense_learning_rate": config.training.dense_learning_rate,
        "training.embedding_learning_rate": config.training.embedding_learning_rate,
        "model.attention_hidden": config.model.attention_hidden,
        "compute.workers": config.compute.workers,
        "compute.cpus_per_worker": config.compute.cpus_per_worker,
        **{f"model.hidden[{index}]": width for index, width in enumerate(config.model.hidden)},
    }
    for key, value in positive.items():
        if not 0 < value < math.inf:
            raise CtnetError(f"{key} must be above 0, not {value}")
    not_negative = {
        "training.embedding_initial_accumulator": config.training.embedding_initial_accumulator,
        "training.weight_decay": config.training.weight_decay,
        "training.clip_norm": config.training.clip_norm,
        "training.seed": config.training.seed,
        "model.embedding_init": config.model.embedding_init,
        "compute.max_failures": config.compute.max_failures,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise CtnetError(f"{key} must be at least 0, not {value}")
    if not config.model.hidden:
        raise CtnetError("model.hidden needs at least one layer")
    if config.training.batch_size % config.compute.workers:
        raise CtnetError(
            f"training.batch_size ({config.training.batch_size}) must be a multiple of "
            f"compute.workers ({config.compute.workers})"
        )
    if config.data.last_day < config.data.first_day:
        raise CtnetError(
            f"data.last_day {config.data.last_day} is before data.first_day {config.data.first_day}"
        )
    if config.transfer.method != "base" and not config.transfer.source_series:
        raise CtnetError(f"transfer.source_series is needed by method {config.transfer.method}")
