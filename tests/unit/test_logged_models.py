"""What a LoggedModel says of a step, without MLflow's database."""

from datetime import date

from ctnet_ray.runs.records import EvaluationRecord, SampleRef, Version
from ctnet_ray.tracking import logged_models, projection

SAMPLES = SampleRef("channel", date(2022, 5, 2), 100, "0123456789" * 7, "/s/channel/day=2022-05-02")
SCORED = EvaluationRecord("r", date(2022, 5, 1), SAMPLES, {"auc": 0.75, "rows": 100.0}, 0.5)


def test_a_signature_has_a_column_for_each_feature_but_domains() -> None:
    schema = {
        "tables": {"item": {"rows": 60, "dim": 4}},
        "features": {
            "item": {"kind": "categorical", "table": "item"},
            "clicks": {"kind": "sequence", "table": "item", "max_length": 3},
            "age": {"kind": "numeric", "table": "age", "boundaries": [18]},
            "domain": {"kind": "domain", "table": "domain", "domains": ["feed", "search"]},
            "price": {"kind": "dense", "mean": 3.2, "std": 1.1},
            "photo": {"kind": "dense", "width": 2},
        },
    }
    found = logged_models.signature(schema).to_dict()
    for text in (
        '{"type": "long", "name": "item", "required": false}',
        '{"type": "array", "items": {"type": "long"}, "name": "clicks", "required": false}',
        '{"type": "float", "name": "age", "required": false}',
        '{"type": "float", "name": "price", "required": false}',
        '{"type": "array", "items": {"type": "float"}, "name": "photo", "required": false}',
    ):
        assert text in found["inputs"]
    assert "domain" not in found["inputs"]
    assert found["outputs"] == '[{"type": "float", "name": "probability", "required": true}]'


def test_points_belong_to_a_model_and_to_the_day_that_it_scored() -> None:
    points = logged_models.bound(projection.points(None, SCORED), "m-1", SAMPLES)
    auc = next(point for point in points if point.key == "auc")
    assert (auc.value, auc.step, auc.model_id) == (0.75, 19114, "m-1")
    # MLflow's digests have 36 characters at most.
    assert (auc.dataset_name, auc.dataset_digest) == ("channel/2022-05-02", "0123456789" * 3 + "012345")


def test_a_model_that_is_held_back_says_so() -> None:
    version = Version("r", date(2022, 5, 1), "/r/day=2022-05-01", "m.r", 7)
    held = EvaluationRecord("r", date(2022, 5, 1), SAMPLES, {}, 0.5, held_back="AUC 0.5")
    for evaluation, standing in ((None, "passed"), (SCORED, "passed"), (held, "held back")):
        assert logged_models.standing_tags(version, evaluation) == {
            "ctnet.standing": standing,
            "mlflow.modelVersions": '[{"name": "m.r", "version": "7"}]',
        }
