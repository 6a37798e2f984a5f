"""Score a registered model version on a sample day, or several side by side.

python -m jobs.evaluate --model NAME/VERSION --day 2022-05-08
python -m jobs.evaluate --models NAME/VERSION NAME@champion FOLDER --day 2022-05-08
"""

from datetime import date

from ctnet_ray.config import ComputeConfig, TrackingConfig
from jobs.command import run, typed


def main(
    day: date,
    model: str | None = None,
    models: list[str] | None = None,
    domain: str | None = None,
    store: str | None = None,
    cluster: str = "group",
    output: str = "runs/evaluation",
    compute: ComputeConfig = ComputeConfig(),  # noqa: B008
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008
) -> None:
    """Print metrics of one day, each row counted once: of one version, or of several with their differences.

    One version is scored on the cluster, and nothing is recorded. Several are opened in this process and
    score the same rows in one pass; a report is written and logged to MLflow.

    Args:
        day: Sample day to score (YYYY-MM-DD).
        model: Registered model: NAME, NAME/VERSION or NAME@ALIAS; a bare NAME means the newest version.
        models: Two versions or more in a row, named as above or by their folders; the others are compared
            with the first.
        domain: Domain of the samples; null: the one that the versions were trained on.
        store: Sample store; null: the one that the versions were trained from.
        cluster: Of several versions, the column of ids that errors are clustered by: rows of one value are
            alike. The group of GAUC is a request or else a user; where requests, name the column of users.
        output: Of several versions, the local folder for the report (HTML, Markdown, CSV, PNG).
        compute: Of one version, what the run may use of the cluster.
        tracking: Where versions are registered, and reports logged.
    """
    from ctnet_ray import storage
    from ctnet_ray.errors import CtnetError

    if (model is None) == (models is None):
        raise CtnetError("name one version with --model, or two or more with --models")
    if models is not None:
        from ctnet_ray.orchestration.side_by_side import evaluate_versions

        folder = storage.absolute(output)
        evaluate_versions(models, day, domain, store, cluster, folder, typed("jobs.evaluate"), tracking)
        return
    assert model  # noqa: S101  (for the type checker)
    from ctnet_ray.orchestration.continual import evaluate_version

    evaluate_version(model, day, domain, store, compute, tracking)


if __name__ == "__main__":
    run(main, __doc__ or "", several=("models",))
