"""An exported version as MLflow loads it: its `MLmodel` names this module, which knows MLflow's names alone.

mlflow.pyfunc.load_model("exported").predict(frame)    # probabilities, float32 [N]
"""

from dataclasses import dataclass
from typing import Any

from ctnet_ray.serving.folder import MLMODEL, check_at_top, open_export
from ctnet_ray.serving.scorer import Rows, Scorer, Scores


@dataclass(frozen=True)
class PyfuncModel:
    """A scorer by the names of MLflow's flavour `python_function`."""

    scorer: Scorer

    def predict(self, model_input: Rows, params: dict[str, Any] | None = None) -> Scores:
        """Return the probability of a click for each row, float32 [N].

        Args:
            model_input: Raw values by column, as `Scorer.score`; MLflow gives a pandas frame.
            params: None: the model takes none.

        Raises:
            InputError: As `Scorer.score`.
        """
        del params
        return self.scorer.score(model_input)


def _load_pyfunc(path: str) -> PyfuncModel:
    """Open an exported version; MLflow calls this.

    Raises:
        CtnetError: As `open_export`; also for an `MLmodel` that was changed.
    """
    check_at_top(path, MLMODEL)
    return PyfuncModel(open_export(path))
