"""Commands as a shell would start them, but in this process: one of their own imports for ten seconds."""

import runpy
import sys
from collections.abc import Sequence

import pytest

from tests.documented import ROOT


def start(patch: pytest.MonkeyPatch, module: str, options: Sequence[str] = ()) -> None:
    """Run `python -m MODULE OPTIONS` to its good end."""
    patch.setattr(sys, "argv", [module, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"{module.replace('.', '/')}.py"), run_name="__main__")
    assert not ended.value.code, f"{module} {options}"
