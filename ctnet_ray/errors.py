"""The one exception that people are meant to read."""


class CtnetError(Exception):
    """Something outside the program is wrong; the message is one line and says the way out.

    Commands print the message and end with exit status 1; any other exception is a defect of ours.
    """


class DivergedError(CtnetError):
    """Training diverged. All workers of a run raise it at the same place, so their group can go on."""
