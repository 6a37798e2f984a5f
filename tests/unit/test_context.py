"""A process that begins alone."""

import subprocess
import sys

SCRIPT = """
import resource, signal
from ctnet_ray.training.context import start_alone
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
start_alone()
"""


def test_it_needs_no_room_for_a_file_and_ends() -> None:
    # torch's store of a file tried for ever to remove what it could not write, after its error was said.
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
