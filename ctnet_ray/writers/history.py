"""The last clicks of every user before each impression.

An impression looks back on the clicks of its user that are *strictly earlier*: never on itself, on a click
in the same instant, or on anything later. Of the days before, the running state has the last clicks of every
user. Within a day no row is looped over: clicks are sorted by user and time, and the clicks before an
impression are a slice.

    clicks, sorted       u1@10 u1@20 u1@30 | u2@15
    impression u1@25     start 0, stop 2: the slice u1@10 u1@20
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctnet_ray.errors import CtnetError
from ctnet_ray.samples.state_tables import Kind

Ids = np.ndarray  #: int64


@dataclass(frozen=True)
class Clicks:
    """Clicks.

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

    entities: Mapping[str, Ids]
    """What the clicks are of that any impression sees, by user and time, as in `Clicks`."""
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
        values = pa.array(self.entities[name][flat], pa.int64())
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


def clicks_kind(names: Sequence[str], length: int) -> Kind:
    """Return the kind of table that holds the last clicks of each user in each domain.

    Its columns are domain (hashed), user, time and the entities, int64.

    Args:
        names: Names of the entities.
        length: Clicks kept of a user.
    """

    def merge(table: pa.Table) -> pa.Table:
        domain, user, time = (table[name].to_numpy() for name in ("domain", "user", "time"))
        order = np.lexsort((time, user, domain))
        domain, user = domain[order], user[order]
        begins = np.ones(len(order), bool)
        begins[1:] = (domain[1:] != domain[:-1]) | (user[1:] != user[:-1])
        end = np.append(np.flatnonzero(begins)[1:], len(order))[np.cumsum(begins) - 1]
        return table.take(pa.array(order[end - np.arange(len(order)) <= length]))

    return Kind("clicks", "user", {"entities": sorted(names), "length": length}, merge, ("time",))


def look_back(clicks: Clicks, user_N: Ids, time_N: Ids, length: int) -> Windows:
    """Find the last clicks before each impression of a day.

    Args:
        clicks: Clicks of the day and of the days before, in any order.
        user_N: User of each impression of the day, over all domains, in any order, int64 [N].
        time_N: Time of each impression, int64 [N].
        length: Most clicks of a history.

    Returns:
        What each impression sees. Where a day holds impressions that are older than clicks of an earlier
        day, those clicks are not seen either: a history may then be shorter than `length`, never from the
        future.
    """
    order = np.lexsort((clicks.time_C, clicks.user_C))
    start_N, stop_N = _clicks_before(clicks.user_C[order], clicks.time_C[order], user_N, time_N)
    length_N = np.minimum(stop_N - start_N, length)
    # Most clicks are older than any history reaches; they are not held while the day is written.
    begun = np.bincount(stop_N - length_N, minlength=len(order) + 1)
    ended = np.bincount(stop_N, minlength=len(order) + 1)
    is_seen_C = np.cumsum(begun - ended)[:-1] > 0
    seen_before = np.concatenate([[0], np.cumsum(is_seen_C)])
    seen = order[is_seen_C]
    return Windows({name: ids[seen] for name, ids in clicks.entities.items()}, seen_before[stop_N], length_N)


def _clicks_before(user_C: Ids, time_C: Ids, user_N: Ids, time_N: Ids) -> tuple[Ids, Ids]:
    """Return where the clicks of each impression's user begin, and where those that are strictly earlier end.

    Clicks are sorted by user and time; U users have any, and R clicks are not before all impressions.
    """
    if not len(user_C) or not len(user_N):
        return np.zeros(len(user_N), np.int64), np.zeros(len(user_N), np.int64)
    is_first_C = np.append(True, user_C[1:] != user_C[:-1])
    start_U, place_C = np.flatnonzero(is_first_C), np.cumsum(is_first_C) - 1
    place_N = np.minimum(np.searchsorted(user_C[start_U], user_N), len(start_U) - 1)
    # Most clicks are before all impressions: they are counted, and a search among them all would take longer.
    moments = np.sort(time_N)
    is_old_C = time_C < moments[0]
    old_U = np.bincount(place_C[is_old_C], minlength=len(start_U))
    place_R, time_R = place_C[~is_old_C], time_C[~is_old_C]
    # User and time in one number; a click in the same instant comes behind the impression.
    key_R = place_R * (len(moments) + 1) + np.searchsorted(moments, time_R, side="right")
    key_N = place_N * (len(moments) + 1) + np.searchsorted(moments, time_N)
    begin_U = np.searchsorted(place_R, np.arange(len(start_U)))
    recent_N = np.searchsorted(key_R, key_N, side="right") - begin_U[place_N]
    start_N = start_U[place_N]
    is_there_N = user_C[start_N] == user_N
    return start_N, start_N + np.where(is_there_N, old_U[place_N] + recent_N, 0)
