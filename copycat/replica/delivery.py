"""Results on their way to each session's newest connection, as fast as it takes them.

A reply leaves at once when its connection has room. What finds no room is not put into a
buffer: the machine's reply cache has it until the client acknowledges it, and it is fetched from
there, piece by piece, whenever there is room again. So a burst of large results waits where it
is anyway, and one reply alone always fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from copycat.machine.apply_result import RunReply
from copycat.machine.session_executor import SessionExecutor
from copycat.protocol.client import Results
from copycat.protocol.results import PIECE_NBYTES, cut_results
from copycat.replica.host import REPLY_ROOM, Host, Lane
from copycat.replica.inbox import Inbox
from copycat.replica.replies import Replies
from copycat.replica.session_index import Route, SessionView

__all__ = ["Delivery"]

RESULTS_NBYTES_MAX = PIECE_NBYTES
"""Above this the results of a run leave in several frames."""
TURN_NBYTES_MAX = 8 << 20
"""With so many bytes of results a turn has done enough: the others leave in later ones, or
everything else would wait for their copies."""
FETCHES_MAX = 8
"""Sessions whose replies are looked up at the same time, about REPLY_ROOM of each."""
FETCH_MAX = 8192
"""Commands whose replies are looked up in the cache at a time."""


class Delivery:
    """Answers runs of commands. `send`, `resend` and `deliver` are called in a turn."""

    def __init__(
        self,
        host: Host,
        executor: SessionExecutor,
        *,
        replies: Replies,
        inbox: Inbox,
    ) -> None:
        self._host = host
        self._executor = executor
        self._replies = replies
        self._inbox = inbox
        self._pending: dict[int, SessionView] = {}
        """Sessions with results that wait for room or for a later turn; who was served last is
        the last."""
        self._fetches = 0
        """Under way in the apply thread."""
        self._turn_nbytes = 0
        """Of the results that were written in this turn."""

    def send(self, view: SessionView, reply: RunReply) -> None:
        """Commands of this session were applied: answer them now, or when there is room."""
        if view.route is None:
            return
        if view.unsent is None:
            self._send(view, reply)
        else:  # behind what waits: results leave in the order of their commands
            self._postpone(view, reply.first_sequence, reply.first_sequence + reply.count - 1)

    def resend(self, view: SessionView, first: int, last: int) -> None:
        """The client asks again for the results of `first` to `last`, which were applied.

        A connection of this member that had no room is slow: what was written to it is on its
        way, and is not sent twice. A member that relays may have lost it.
        """
        if view.route is None:
            return
        if view.is_slow and not view.route.peer:
            first = view.after_delivered(first)
        if first <= last:
            self._postpone(view, first, last)

    def _postpone(self, view: SessionView, first: int, last: int) -> None:
        if view.unsent is not None:
            first, last = min(first, view.unsent[0]), max(last, view.unsent[1])
        view.unsent = first, last
        self._pending[view.session] = view

    def deliver(self) -> None:
        """End of a turn: fetch what now has room."""
        self._turn_nbytes = 0
        if not self._pending:
            return
        for session, view in list(self._pending.items()):
            route = view.route
            if route is None or view.unsent is None:
                view.unsent = None
                del self._pending[session]
            elif self._fetches >= FETCHES_MAX:
                break
            elif not view.is_fetching and self._host.has_room(route.peer, route.token):
                view.is_fetching = True
                self._fetches += 1
                self._pending[session] = self._pending.pop(session)
                first, last = view.unsent
                last = min(last, first + FETCH_MAX - 1)
                work = partial(self._executor.cached_replies, session, first, last, REPLY_ROOM)
                self._inbox.run(Lane.APPLY, work, partial(self._fetched, view, route, first))

    def _fetched(
        self, view: SessionView, route: Route, first: int, replies: list[RunReply]
    ) -> None:
        view.is_fetching = False
        self._fetches -= 1
        if view.route != route or view.unsent is None:
            return  # the client is somewhere else now, and asks there
        asked, last = view.unsent
        if not replies:
            view.unsent = None  # the session ended meanwhile
            return
        end = replies[-1].first_sequence + replies[-1].count
        if asked == first:  # else it was asked again meanwhile for more
            view.unsent = (end, last) if end <= last else None
        for reply in replies:
            if not self._send(view, reply):
                self._postpone(view, end - 1, end - 1)  # and all up to there
                break

    def _send(self, view: SessionView, reply: RunReply) -> bool:
        """Send what fits; False when the rest was postponed."""
        route = view.route
        if route is None:
            return True
        for results in results_of(reply):
            first = results.first_sequence
            has_room = self._host.has_room(route.peer, route.token)
            if not has_room or self._turn_nbytes >= TURN_NBYTES_MAX:
                view.is_slow = view.is_slow or not has_room
                self._postpone(view, first, reply.first_sequence + reply.count - 1)
                return False
            self._turn_nbytes += len(results.body)
            self._replies.send(route, results)
            view.delivered_up_to(first, first + results.count - 1)
        return True


def results_of(reply: RunReply) -> Iterator[Results]:
    """The reply frames for a run of results: one, or several when it is large."""
    first_index, last_index = reply.first_index, reply.last_index
    if len(reply.body) <= RESULTS_NBYTES_MAX:
        first, count = reply.first_sequence, reply.count
        yield Results(reply.session, first, count, first_index, last_index, reply.body)
        return
    is_exact = last_index - first_index + 1 == reply.count
    sequence = reply.first_sequence
    for count, body in cut_results(reply.body, RESULTS_NBYTES_MAX):
        if is_exact:
            first_index = reply.first_index + sequence - reply.first_sequence
            last_index = first_index + count - 1
        yield Results(reply.session, sequence, count, first_index, last_index, body)
        sequence += count
