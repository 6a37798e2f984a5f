"""Settings by dotted name."""

from datetime import date
from typing import Any

import pytest

from ctnet_ray.config import AdapterConfig, DataConfig, JobConfig, ModelConfig, TransferConfig
from ctnet_ray.errors import CtnetError
from ctnet_ray.section import override

JOB = JobConfig(DataConfig("samples", "schema.yaml", "feed", date(2022, 5, 1), date(2022, 5, 3)))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("training.batch_size", 64, 64),
        ("training.batch_size", "64", 64),  # as YAML or a command line may write it
        ("transfer.adapters.placement", ["first", "logit"], ("first", "logit")),
        ("transfer.residual.scale_and_shift", False, False),
        ("data.first_day", "2022-05-02", date(2022, 5, 2)),
        ("data.first_day", date(2022, 5, 2), date(2022, 5, 2)),
        ("model.hidden", [8, 4], (8, 4)),
    ],
)
def test_a_value_of_any_depth(name: str, value: Any, expected: Any) -> None:
    changed: Any = override(JOB, {name: value})
    for part in name.split("."):
        changed = getattr(changed, part)
    assert changed == expected
    assert type(changed) is type(expected)


def test_the_rest_stays_and_the_original_too() -> None:
    changed = override(JOB, {"transfer.adapters.gate": "linear", "training.epochs": 2})
    assert changed.transfer == TransferConfig(adapters=AdapterConfig(gate="linear"))
    assert (changed.training.epochs, JOB.training.epochs) == (2, 1)
    assert changed.data is JOB.data
    assert override(JOB, {}) is JOB


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("training.batch", 1, "unknown setting 'training.batch'; 'batch' is none of batch_size, epochs, "),
        ("train.epochs", 1, "unknown setting 'train.epochs'; 'train' is none of data, model, training, "),
        ("training.epochs.more", 1, "unknown setting 'training.epochs.more'; 'more' is none of"),
        ("", 1, "unknown setting ''"),
        ("training.epochs", "many", "setting training.epochs: 'many': Input should be a valid integer"),
        ("training.epochs", 1.5, "setting training.epochs: 1.5: Input should be a valid integer"),
        ("transfer.method", "magic", "setting transfer.method: 'magic': Input should be 'base'"),
        (
            "transfer.adapters.placement",
            "first",
            "setting transfer.adapters.placement: 'first': ",
        ),
        ("data.first_day", "yesterday", "setting data.first_day: 'yesterday': "),
    ],
)
def test_what_cannot_be_set_is_said_in_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(CtnetError) as caught:
        override(JOB, {name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_does_not_hold_together_is_refused() -> None:
    with pytest.raises(CtnetError, match=r"training\.epochs must be above 0, not 0"):
        override(JOB, {"training.epochs": 0})


def test_settings_that_only_fit_together_can_be_given_together() -> None:
    changed = override(JOB, {"transfer.source_series": "s", "transfer.method": "ctnet"})
    assert changed.transfer.method == "ctnet"


def test_plain_data_comes_back() -> None:
    transfer = override(
        JOB, {"transfer.adapters.placement": ["first"], "transfer.share_attention": ["all"]}
    ).transfer
    plain = override(JOB, {"transfer": transfer}).to_dict()
    assert TransferConfig(**plain["transfer"]) == transfer
    assert ModelConfig(**plain["model"]) == JOB.model
    assert JobConfig(**JOB.to_dict()) == JOB
    with pytest.raises(CtnetError, match=r"^unknown setting 'model\.hiden'; 'hiden' is none of hidden, att"):
        ModelConfig(**{"hiden": [3]})  # type: ignore[arg-type]
