"""How a member learns who the members are, and what it is itself: by its log, or by a leader.

A configuration is appended, truncated and installed with the log (C35). Besides, each message of a
leader repeats what this member is by the newest committed configuration (C28), and the leader
sends all of that to a member whose log does not reach so far.

A member becomes a reserve, or leaves, only by such a word of a leader of its term, and never by an
entry that it reads (C33).
"""

from __future__ import annotations

from collections import deque

from copycat.protocol.peer import AppendEntries, ConfigurationNotice
from copycat.raft import leader_members
from copycat.raft.configuration import Configuration
from copycat.raft.effects import (
    ConfigurationChanged,
    ConfigurationCommitted,
    StandingOrders,
    Wipe,
)
from copycat.raft.state import State, orders_for
from copycat.raft.term_index import TermIndex
from copycat.types import MemberType

__all__ = [
    "is_well_formed",
    "on_appended",
    "on_committed",
    "on_installed",
    "on_log_changed",
    "on_notice",
    "on_orders",
    "on_trimmed",
    "on_truncated",
    "on_wiped",
]

_STATEFUL = frozenset({MemberType.ACTIVE, MemberType.PASSIVE})


# ---- with the log -------------------------------------------------------------------------------


def on_appended(raft: State, configuration: Configuration) -> None:
    """The last entry of the log is `configuration`: who votes counts by it from here on."""
    raft.configurations.append(configuration)
    on_log_changed(raft)


def on_truncated(raft: State, after: int) -> None:
    """Entries above `after` were deleted, and perhaps configurations with them."""
    if raft.configurations.truncate(after):
        on_log_changed(raft)


def on_installed(
    raft: State, configuration: Configuration | None, index: int, *, continues: bool
) -> None:
    """A snapshot of `index` was installed, and holds `configuration`; None: the founders', with
    which this log begins then. What the log held below may never have been committed."""
    configurations = raft.configurations
    base = configurations.base if configuration is None else configuration
    configurations.install(base, index, continues=continues)
    on_log_changed(raft)


def on_trimmed(raft: State, first_index: int) -> None:
    """The front of the log was deleted."""
    raft.configurations.trim(first_index)


def on_log_changed(raft: State) -> None:
    """The table may have another newest row, or the log may reach what was announced."""
    raft.configurations.forget_announced(raft.last)
    raft.next_configuration_index = raft.configurations.next_index(raft.commit_index)
    _follow(raft)


def on_committed(raft: State) -> None:
    """The commit index has reached a configuration entry, or several at once."""
    before = raft.committed_configuration
    rows = raft.configurations.above(before.entry.index)
    raft.committed_configuration = raft.configurations.at(raft.commit_index)
    raft.next_configuration_index = raft.configurations.next_index(raft.commit_index)
    for row in rows:
        if row.entry.index <= raft.commit_index:
            _know(raft, row)
    _know(raft, raft.committed_configuration)
    if raft.leader_state is not None and raft.committed_configuration != before:
        leader_members.on_configuration_committed(raft, raft.leader_state)
    _follow(raft)


def _know(raft: State, configuration: Configuration) -> None:
    """`configuration` is known to be committed."""
    if configuration.entry > raft.orders.configuration:
        raft.orders = orders_for(configuration, raft.member)
    if configuration.entry > raft.known_configuration.entry:
        raft.known_configuration = configuration
        raft.acknowledgements.follow_members(configuration)
        raft.effects.append(ConfigurationCommitted(configuration))


def _follow(raft: State) -> None:
    newest = raft.configurations.newest
    is_another = newest != raft.configuration
    if is_another:
        raft.configuration = newest
        raft.effects.append(ConfigurationChanged(newest))
    if raft.leader_state is None:
        raft.peers = raft.other_members()
    elif is_another:
        leader_members.follow_members(raft, raft.leader_state)
    raft.follow_restrictions()


# ---- by the word of a leader --------------------------------------------------------------------


def on_orders(raft: State, message: AppendEntries) -> None:
    """The leader of this term names a committed configuration that is newer than all that this
    member has heard of, and what this member is by it (C28, C45).

    A reserve takes up its new type from here on. Who loses its log by it waits for the whole
    configuration, which has to be kept before.
    """
    raft.orders = StandingOrders(message.configuration, message.member_type, message.since)
    if message.member_type in _STATEFUL and not raft.is_wiping:
        raft.is_reserve = False
    raft.follow_restrictions()


def is_well_formed(message: ConfigurationNotice) -> bool:
    """Whether a leader could have sent it."""
    entry, _, members = message.configuration
    ids = {each.member for each in members}
    return (
        1 <= entry.term <= message.term
        and entry.index >= 1
        and 0 not in ids
        and len(ids) == len(members)
        and any(each.type is MemberType.ACTIVE for each in members)
        and all(
            each.type is not MemberType.INACTIVE
            and 0 <= each.since <= entry.index
            and (each.type is MemberType.PASSIVE or not each.is_promotable)
            for each in members
        )
    )


def on_notice(raft: State, message: ConfigurationNotice) -> None:
    """The leader of this term says what the newest committed configuration is."""
    record = message.configuration
    configuration = Configuration.from_members(record.members, record.entry)
    if configuration.entry <= raft.known_configuration.entry:
        return  # late
    raft.configurations.announce(configuration)
    raft.configurations.forget_announced(raft.last)
    is_newest_order = configuration.entry >= raft.orders.configuration
    _know(raft, configuration)
    own_type = configuration.type(raft.member)
    if is_newest_order and own_type in _STATEFUL and not raft.is_wiping:
        raft.is_reserve = False
    _follow(raft)
    if is_newest_order and own_type not in _STATEFUL and not raft.is_reserve:
        raft.is_reserve = raft.is_wiping = True
        raft.follow_restrictions()
        raft.effects.append(Wipe(configuration))


def on_wiped(raft: State) -> None:
    """Log, snapshots and state are empty, durably: begin with nothing but term and vote (C33)."""
    raft.is_wiping = False
    raft.wipes += 1
    raft.terms = TermIndex((), 1, 0)
    raft.durable_index = raft.synced_index = 0
    raft.commit_index = raft.commit_ceiling = raft.installed_index = 0
    raft.oldest_snapshot_index = 0
    raft.verified_index = raft.reported_index = raft.accepted_request = 0
    raft.syncs = deque((ticket, 0, ms) for ticket, _, ms in raft.syncs)
    raft.acknowledgements.log_term = raft.current_term
    raft.configurations.wipe(raft.known_configuration)
    raft.committed_configuration = raft.configurations.base
    raft.eligibility.on_wiped()
    raft.is_reserve = not raft.is_stateful
    on_log_changed(raft)
