"""The last clicks of every user before each impression.

An impression looks back on the clicks of its user that are *strictly earlier*: never on itself, on a click
in the same instant, or on anything later. Logs go through day by day; what is carried from one day to the
next is the last clicks of every user, so memory grows with the users and not with the days. Within a day no
row is looped over: clicks are sorted by user and time, and the clicks before an impression are a slice.

    clicks, sorted       u1@10 u1@20 u1@30 | u2@15
    impression u1@25     start 0, stop 2: the slice u1@10 u1@20
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctnet_ray.errors import CtnetError

Ids = np.ndarray  #: int64


@dataclass(frozen=True)
class Clicks:
    """Clicks, sorted by user, then time.

    Shape suffix: C clicks.
    """

    user_C: Ids
    """Id of the user."""
    time_C: Ids
    """Time of the click, in the unit of the log."""
    entities: Mapping[str, Ids]
    """What was clicked, as ids [C], by the name of the history (item, tag, ...)."""


@dataclass(frozen=True)
class Windows:
    """What each of N impressions sees of the clicks: a slice each."""

    clicks: Clicks
    stop_N: Ids
    """End of the slice, exclusive."""
    length_N: Ids
    """Length of the slice, at most the history's length."""

    def column(self, name: str, rows: Ids) -> pa.ListArray:
        """Return one history of some impressions.

        Args:
            name: Name of the entities.
            rows: Indices of the impressions, [R].

        Returns:
            list<int64> [R], most recent last; histories of different names are aligned.
        """
        length_R, stop_R = self.length_N[rows], self.stop_N[rows]
        offsets = np.concatenate([[0], np.cumsum(length_R)])
        # Element k of the flat values belongs to row r with offsets[r] <= k < offsets[r + 1].
        flat = np.arange(offsets[-1]) + np.repeat(stop_R - offsets[1:], length_R)
        values = pa.array(self.clicks.entities[name][flat], pa.int64())
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def column_in(history: str, domain: str) -> str:
    """Return the column of a history that holds the clicks in one domain only.

    Raises:
        CtnetError: The domain can't be part of a column's name, which is an identifier.
    """
    column = f"{history}_in_{domain}"
    if not column.isidentifier():
        raise CtnetError(
            f"domain {domain!r}: histories by domain have columns such as {column!r}, and these are letters, "
            "digits and '_' only: rename the domain"
        )
    return column


def no_clicks(names: Sequence[str]) -> Clicks:
    """Return the state before the first day."""
    empty = np.empty(0, np.int64)
    return Clicks(empty, empty, dict.fromkeys(names, empty))


def look_back(
    earlier: Clicks,
    user_N: Ids,
    time_N: Ids,
    clicked_N: np.ndarray,
    entities: Mapping[str, Ids],
    length: int,
) -> tuple[Windows, Clicks]:
    """Find the last clicks before each impression of a day.

    Args:
        earlier: Last clicks of the days before: what the call for the previous day returned.
        user_N: User of each impression of the day, over all domains, in any order, int64 [N].
        time_N: Time of each impression, int64 [N].
        clicked_N: Whether it was clicked, bool [N].
        entities: Ids of what was shown, int64 [N], by the names that `earlier` has.
        length: Most clicks that an impression sees.

    Returns:
        The windows of the impressions, and the last `length` clicks of every user for the next day.

    Where a day holds impressions that are older than clicks of an earlier day, those clicks are not seen
    either: a history may then be shorter than `length`, never from the future.
    """
    clicks = _merged(
        earlier,
        Clicks(
            user_N[clicked_N],
            time_N[clicked_N],
            {name: entities[name][clicked_N] for name in earlier.entities},
        ),
    )
    start_N = np.searchsorted(clicks.user_C, user_N, side="left")
    stop_N = _clicks_before(clicks, user_N, time_N)
    return Windows(clicks, stop_N, np.minimum(stop_N - start_N, length)), _last(clicks, length)


def _merged(earlier: Clicks, today: Clicks) -> Clicks:
    user = np.concatenate([earlier.user_C, today.user_C])
    time = np.concatenate([earlier.time_C, today.time_C])
    order = np.lexsort((time, user))
    entities = {
        name: np.concatenate([ids, today.entities[name]])[order] for name, ids in earlier.entities.items()
    }
    return Clicks(user[order], time[order], entities)


def _clicks_before(clicks: Clicks, user_N: Ids, time_N: Ids) -> Ids:
    """Count, for each impression, the clicks that sort strictly before its (user, time)."""
    count = len(clicks.user_C)
    is_click = np.concatenate([np.ones(count, bool), np.zeros(len(user_N), bool)])
    user = np.concatenate([clicks.user_C, user_N])
    time = np.concatenate([clicks.time_C, time_N])
    # Impressions before clicks of the same instant: a tie does not count.
    order = np.lexsort((is_click, time, user))
    clicks_so_far = np.cumsum(is_click[order])
    impressions = ~is_click[order]
    stop_N = np.empty(len(user_N), np.int64)
    stop_N[order[impressions] - count] = clicks_so_far[impressions]
    return stop_N


def _last(clicks: Clicks, length: int) -> Clicks:
    end_C = np.searchsorted(clicks.user_C, clicks.user_C, side="right")
    kept = end_C - np.arange(len(end_C)) <= length
    return Clicks(
        clicks.user_C[kept], clicks.time_C[kept], {name: ids[kept] for name, ids in clicks.entities.items()}
    )
