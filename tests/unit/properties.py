"""What costs much an example: a few examples in `make test`, many in `make slow`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy


def holds_for(few: int, many: int, **drawn: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """Make tests of a function that takes `tmp_path_factory` and what is drawn.

    Args:
        few: How many examples the fast suite tries.
        many: How many the slow one tries.
        drawn: What each argument is drawn from.
    """

    def tests_of(check: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])
        def test(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
            settings(max_examples=examples, deadline=None)(given(**drawn)(check))(tmp_path_factory)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return tests_of


def fast(names: Iterable[str], *few: str) -> list[ParameterSet]:
    """Return names for `pytest.mark.parametrize`, all but a few of them slow: these go the same ways."""
    return [pytest.param(name, marks=() if name in few else pytest.mark.slow) for name in names]
