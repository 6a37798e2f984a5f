"""Named settings of methods."""

from typing import Any

import pytest

from ctnet_ray.errors import CtnetError
from ctnet_ray.methods.table import METHODS
from ctnet_ray.methods.variants import chosen

JOINT = ("mlp_pp", "ple", "minet", "ddtcdr", "dasl")


def names(*wanted: str, **own: dict[str, Any]) -> list[str]:
    return list(chosen(wanted, own))


def test_base_stands_first_and_nothing_twice() -> None:
    assert names("ctnet", "base", "ctnet") == ["base", "ctnet"]
    assert names() == ["base"]


def test_methods_are_all_but_those_that_have_windows() -> None:
    assert names("methods") == [
        name for name in METHODS if name != "base_retrained" and not name.startswith("finetune_")
    ]
    assert set(JOINT) < set(names("methods"))
    assert names("windows")[1:] == [
        f"{method}_{days}"
        for method in ("finetune_all", "finetune_embeddings")
        for days in ("1", "3", "7", "all_days")
    ]


@pytest.mark.parametrize(
    ("name", "method", "window"),
    [
        ("finetune_all_30", "finetune_all", 30),
        ("finetune_embeddings_120", "finetune_embeddings", 120),
        ("finetune_all_all_days", "finetune_all", None),
    ],
)
def test_any_window_is_a_variant(name: str, method: str, window: int | None) -> None:
    assert chosen((name,), {})[name] == {"transfer.method": method, "transfer.window": window}


def test_all_is_methods_windows_ablations_and_own_variants() -> None:
    own = {"mine": {"transfer.method": "ctnet"}}
    assert names("all", **own) == names("methods", "windows", "ablations", "mine", **own)
    assert not [name for name in names("all") if "several_sources" in name or "reset" in name]


def test_the_papers_ablations_are_there() -> None:
    found = set(names("ablations"))
    asked = ("no_adapters", "first", "last", "deep", "linear", "before_activation", "concatenation")
    asked += ("random_init", "shared_attention", "scratch")
    assert {f"ctnet_{name}" for name in asked} <= found


def test_each_variant_says_its_method() -> None:
    settings = chosen(("all", "several_sources", "controls"), {})
    assert {values["transfer.method"] for values in settings.values()} == set(METHODS)


def test_an_own_variant_may_take_a_known_name() -> None:
    own = {"ctnet_deep": {"transfer.method": "ctnet", "training.epochs": 3}}
    assert chosen(("ctnet_deep",), own)["ctnet_deep"] == own["ctnet_deep"]


@pytest.mark.parametrize("name", ["ctnett", "finetune_all_0", "finetune_all_-1", "finetune_all_x", ""])
def test_an_unknown_name_is_said_with_those_that_there_are(name: str) -> None:
    with pytest.raises(
        CtnetError, match=rf"comparison\.methods: '{name}' is no method, .*all, base, "
    ) as info:
        names(name)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("settings", [{}, {"transfer.window": 3}, {"transfer.method": "magic"}])
def test_a_variant_without_its_method_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(CtnetError, match=r"comparison\.variants\.mine: transfer\.method must say which"):
        names("mine", mine=settings)
