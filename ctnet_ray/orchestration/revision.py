"""Which code runs."""

import os
import subprocess
from pathlib import Path

import ctnet_ray


def code_revision() -> str:
    """Return the git revision of the code, "-dirty" behind it where files were changed; else the release.

    CTNET_CODE_REVISION overrides it, for code that was shipped without its repository.
    """
    given = os.environ.get("CTNET_CODE_REVISION")
    if given:
        return given
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(ctnet_ray.__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return f"ctnet-ray {ctnet_ray.__version__}"
    return done.stdout.strip()
