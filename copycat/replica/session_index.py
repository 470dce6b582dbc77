"""What the event loop knows of the open sessions: a mirror of the executor's table.

The executor decides everything in `apply`, from the log alone (I17), and the mirror is updated
from the results of each slice. The mirror only serves the leader: to refuse early, to know which
sequences are in its log (C18), and to see which clients are silent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from copycat.machine.apply_result import RunReply, SessionEnded, SessionKeptAlive, SessionOpened
from copycat.machine.sessions import SessionRow

__all__ = ["SessionIndex", "SessionView"]


REPLY_NBYTES_MIN = 256
"""A result counts as so many bytes at least."""


class SessionView:
    """One open session as the loop sees it."""

    __slots__ = (
        "acked_sequence",
        "active_index",
        "active_ms",
        "expiring_index",
        "inflight",
        "inflight_nbytes",
        "reply_nbytes",
        "request_sequence",
        "sequence",
        "session",
        "timeout_ms",
    )

    def __init__(self, opened: SessionOpened) -> None:
        self.session = opened.session
        self.timeout_ms = opened.timeout_ms
        self.active_ms = opened.time_ms
        self.active_index = opened.session
        self.acked_sequence = 0
        """The client has the replies up to this sequence, as the leader's log says or will say."""
        self.reply_nbytes = REPLY_NBYTES_MIN
        """About the size of a result: the largest average of the latest runs."""
        self.sequence = 0
        """Highest sequence applied."""
        self.request_sequence = 0
        """Highest sequence in the leader's log (C18); equals `sequence` elsewhere."""
        self.expiring_index = 0
        """The activity that an EXPIRE entry under way has seen."""
        self.inflight: deque[tuple[int, int]] = deque()
        """(last sequence, bytes) of runs that are logged but not applied."""
        self.inflight_nbytes = 0

    def admitted(self, last_sequence: int, nbytes: int) -> None:
        """A run up to `last_sequence` is added to the leader's log."""
        self.request_sequence = last_sequence
        self.inflight.append((last_sequence, nbytes))
        self.inflight_nbytes += nbytes

    def applied(self, reply: RunReply) -> int:
        """Commands up to the reply's last sequence have taken effect; bytes not in flight now."""
        self.sequence = max(self.sequence, reply.first_sequence + reply.count - 1)
        self.request_sequence = max(self.request_sequence, self.sequence)
        self.touched(reply.last_index, reply.time_ms)
        average = len(reply.body) // reply.count
        self.reply_nbytes = max(average, self.reply_nbytes * 3 // 4, REPLY_NBYTES_MIN)
        nbytes = 0
        while self.inflight and self.inflight[0][0] <= self.sequence:
            nbytes += self.inflight.popleft()[1]
        self.inflight_nbytes -= nbytes
        return nbytes

    def touched(self, index: int, time_ms: int) -> None:
        """The client was heard: entry `index` says so."""
        self.active_index = max(self.active_index, index)
        self.active_ms = max(self.active_ms, time_ms)

    def forget_requests(self) -> None:
        """This member does not lead (any more): forget what was in flight."""
        self.request_sequence = self.sequence
        self.inflight.clear()
        self.inflight_nbytes = 0
        self.expiring_index = 0


class SessionIndex:
    """All open sessions by id, in the order of their registration; at first those of `rows`."""

    def __init__(self, rows: Iterable[SessionRow] = ()) -> None:
        self._views: dict[int, SessionView] = {}
        self.load(rows)
        self._unacked_nbytes: Mapping[int, int] = {}
        self.unacked_total_nbytes = 0
        """Bytes of replies that clients have not acknowledged, where they are many."""

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[SessionView]:
        return iter(self._views.values())

    def get(self, session: int) -> SessionView | None:
        """The view of an open session."""
        return self._views.get(session)

    def load(self, rows: Iterable[SessionRow]) -> None:
        """A snapshot was installed: take over the executor's new table."""
        self._views.clear()
        for row in rows:
            opened = SessionOpened(row.session, row.client_id, row.timeout_ms, row.time_ms)
            view = self._views[row.session] = SessionView(opened)
            view.active_index = row.active_index
            view.sequence = view.request_sequence = row.sequence

    def set_unacked(self, unacked_nbytes: Mapping[int, int]) -> None:
        """A slice was applied: what is not acknowledged after it, by session."""
        self._unacked_nbytes = unacked_nbytes
        self.unacked_total_nbytes = sum(unacked_nbytes.values())

    def unacked_nbytes_of(self, view: SessionView) -> int:
        """Bytes of replies of a session that are not acknowledged; 0 when they are not many."""
        return self._unacked_nbytes.get(view.session, 0)

    def opened(self, change: SessionOpened) -> None:
        """A REGISTER was applied."""
        self._views[change.session] = SessionView(change)

    def touched(self, change: SessionKeptAlive) -> None:
        """A KEEP_ALIVE was applied."""
        view = self._views.get(change.session)
        if view is not None:
            view.touched(change.index, change.time_ms)

    def ended(self, change: SessionEnded) -> SessionView | None:
        """A CLOSE or EXPIRE was applied."""
        return self._views.pop(change.session, None)

    def restart_timeouts(self, index: int, time_ms: int) -> None:
        """A new leader's no-op was applied: each session gets a whole timeout again (I19)."""
        for view in self._views.values():
            view.touched(index, time_ms)

    def extend_timeouts(self, now_ms: int, elapsed_ms: int) -> None:
        """This process was paused: sessions that it could not receive from get a whole timeout
        again (F18)."""
        for view in self._views.values():
            if 2 * elapsed_ms >= view.timeout_ms:
                view.active_ms = max(view.active_ms, now_ms)

    def extend_all_timeouts(self, now_ms: int) -> None:
        """No client could be received for a while: each session gets a whole timeout again."""
        for view in self._views.values():
            view.active_ms = max(view.active_ms, now_ms)

    def forget_requests(self) -> None:
        """This member is no leader any more."""
        for view in self._views.values():
            view.forget_requests()

    def overdue(self, now_ms: int) -> Iterator[SessionView]:
        """Sessions silent for longer than their timeout, each once for each activity."""
        for view in self._views.values():
            silent = view.active_ms + view.timeout_ms < now_ms and not view.inflight
            if silent and view.expiring_index < view.active_index:
                view.expiring_index = view.active_index
                yield view
