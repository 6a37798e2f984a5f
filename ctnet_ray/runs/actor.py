"""Who decides: what records and tags name beside a decision."""

import getpass
import os
import socket


def who() -> str:
    """Return USER@HOST, or what CTNET_ACTOR says, for a service."""
    if actor := os.environ.get("CTNET_ACTOR"):
        return actor
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without users
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
