"""What a sweep is told, beside the comparison that it belongs to."""

from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt
from pydantic.dataclasses import dataclass

from ctnet_ray.config import MethodName, OptionalName
from ctnet_ray.errors import CtnetError
from ctnet_ray.metrics import DECIDING, METRICS
from ctnet_ray.section import Section

if TYPE_CHECKING:
    MetricName: TypeAlias = str
else:
    MetricName = Literal[tuple(DECIDING)]  # listed by --help, and checked wherever a configuration is read


@dataclass(frozen=True)
class SweepConfig(Section, section="sweep"):
    """What is tried, how trials are chosen, and when poor ones are stopped."""

    space: dict[str, Any] = field(default_factory=dict)
    """Values to try, by dotted name of the configuration, or `start` (hot, scratch): a list; {uniform: [low,
    high]}, {loguniform: [low, high]}, {randint: [low, high]} (both ends may come), or {subsets: [NAME, ...]}:
    every subset but the empty one."""
    presets: tuple[str, ...] = ()
    """Variants to try besides, by name (`ctnet_ray/methods/variants.py`): ctnet_last, ctnet_linear, ..."""
    method: MethodName = "ctnet"
    """Method whose settings are swept; as the comparison has it, it is the first trial."""
    search: Literal["grid", "random", "optuna"] = "random"
    """grid: every combination; random: drawn anew each time; optuna: drawn by a model of the trials before
    (tree-structured Parzen estimator)."""
    trials: Annotated[int, Gt(0)] = 32
    """Number of trials, the first one and presets among them; a grid may have fewer, and never has more."""
    metric: MetricName = "gauc"
    """What decides: its mean over the next days of the warm-up."""
    stop: Literal["asha", "median", "none"] = "asha"
    """Which trials are stopped early, by their mean up to the day: asha: all but the best third at each
    rung; median: those below the median of the others; none."""
    grace_days: Annotated[int, Gt(0)] = 2
    """Scored days that every trial gets."""
    seed: int = 0
    """Seed of the search. Trials train with comparison.seeds."""
    parallel_trials: Annotated[int | None, Gt(0)] = None
    """Trials that run side by side; null: as many as the cluster's CPUs and GPUs hold."""
    gpu_share: Annotated[float, Gt(0)] = 1.0
    """GPUs of a trial where compute.gpu is set; 0.25: four trials share one."""
    cache_gib: Annotated[float, Ge(0)] = 20.0
    """Space for the frozen source tower's layers, in GiB; 0: each trial runs the tower itself."""
    name: OptionalName = None
    """Name of the sweep in runs, MLflow and folders; null: from its configuration."""

    def __post_init__(self) -> None:
        if not self.space and not self.presets:
            raise CtnetError("sweep.space and sweep.presets are empty: say what is to be tried")

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is better lower or higher."""
        return "max" if METRICS[self.metric].sign > 0 else "min"
