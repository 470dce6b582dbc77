"""How a member learns who the members are, and what it is itself: by its log, or by a leader.

A configuration is appended, truncated and installed with the log (C35). Besides, each message of a
leader repeats what this member is by the newest committed configuration (C28), and the leader
sends all of that to a member whose log does not reach so far.

A member becomes a reserve, or leaves, only by such a word of a leader of its term, and never by an
entry that it reads (C33). That it is removed an earlier leader may say too.
"""

from __future__ import annotations

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
from copycat.types import NO_ENTRY, MemberType, ServerState

__all__ = [
    "is_well_formed",
    "on_appended",
    "on_committed",
    "on_installed",
    "on_late_notice",
    "on_log_changed",
    "on_notice",
    "on_orders",
    "on_trimmed",
    "on_truncated",
]


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
    _take_up_log(raft)
    raft.follow_restrictions()


def _take_up_log(raft: State) -> None:
    """A reserve has a log from here on, if the newest of all that it was told gives it one.

    What one message says is not enough: its sender may be a leader that does not know yet which
    of its own configurations is committed, and may name one that is older than the wipe.
    """
    if raft.is_stateful and not raft.is_wiping:
        raft.is_reserve = False


def is_well_formed(message: ConfigurationNotice) -> bool:
    """Whether a leader could have sent it."""
    entry, _, members, _ = message.configuration
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
            and each.has_right_marks
            for each in members
        )
    )


def on_late_notice(raft: State, message: ConfigurationNotice) -> None:
    """A leader of an earlier term says that this member, which was one, is removed.

    A removed voter may have a higher term than the cluster, whose leader does not follow it; then
    no leader of its own term ever says anything. What is committed is true in every term, and
    nobody is added again under an id that was removed: so the word counts, and its sender does
    not count as a leader that is heard. Nothing else that is late counts.
    """
    members = {each.member for each in message.configuration.members}
    was_member = raft.known_configuration.record(raft.member) is not None
    if raft.leader_state is not None or raft.member in members or not was_member:
        raft.ignored += 1
        return
    if raft.state is ServerState.CANDIDATE:
        raft.become_follower(raft.current_term, raft.leader)
    on_notice(raft, message)


def on_notice(raft: State, message: ConfigurationNotice) -> None:
    """The leader of this term says what the newest committed configuration is.

    A member whose log has a newer one that gives it a log deletes nothing: the leader that sent
    that entry had the committed one in its log.
    """
    record = message.configuration
    configuration = Configuration.from_members(record.members, record.entry, record.policy)
    if configuration.entry <= raft.known_configuration.entry:
        return  # late
    raft.configurations.announce(configuration)
    raft.configurations.forget_announced(raft.last)
    is_newest_order = configuration.entry >= raft.orders.configuration
    takes_log = not configuration.type(raft.member).is_stateful
    _know(raft, configuration)
    _take_up_log(raft)
    _follow(raft)
    # A reserve may have begun a log by a heartbeat, and have been restarted since.
    has_log = not raft.is_reserve or (raft.last != NO_ENTRY and not raft.is_wiping)
    if is_newest_order and takes_log and has_log and not raft.is_stateful:
        raft.is_reserve = raft.is_wiping = True
        raft.follow_restrictions()
        raft.effects.append(Wipe(configuration))
