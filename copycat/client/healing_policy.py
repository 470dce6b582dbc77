"""What the leader may change by itself when members are away: the values that a user sets."""

from __future__ import annotations

import msgspec

from copycat.errors import ConfigurationError
from copycat.protocol.codec_configuration import MEMBERS_MAX
from copycat.protocol.member_record import HealingPolicy as PolicyRecord

__all__ = ["HealingPolicy"]

LONGEST_S = 365 * 86400.0


class HealingPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Stands in the list of the members, so every leader has the same one. Durations in seconds.

    target_active: so many voters there are to be that the leader hears; 0: it leaves voters alone.
    target_passive: the same for passive members, whose places reserve members take.
    heal_after: a member is replaced when it was not heard for so long. heal_interval: between two
    steps. suspend_after: a passive member that was not heard for so long becomes a reserve, and
    deletes its log when it comes back; 0: never. replace_slow_after: a voter that answers, and was
    behind for so long while others were much nearer to the end of the log, gives its place to one
    of them; 0: never. rebalance: a voter that is alive gives its place to a passive member of
    another failure domain, where the voters are spread better then. is_on: nothing is changed
    while it is off.

    ConfigurationError names all values that cannot be used.
    """

    target_active: int = 0
    target_passive: int = 0
    heal_after: float = 30.0
    heal_interval: float = 10.0
    suspend_after: float = 3600.0
    replace_slow_after: float = 0.0
    rebalance: bool = True
    is_on: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name} ({value!r}) must be a whole number from 0 to {MEMBERS_MAX}"
            for name, value in (
                ("target_active", self.target_active),
                ("target_passive", self.target_passive),
            )
            if not (type(value) is int and 0 <= value <= MEMBERS_MAX)
        ]
        problems += [
            f"{name} ({value!r}) must be from {least} to {LONGEST_S:.0f} seconds"
            for name, value, least in (
                ("heal_after", self.heal_after, 0.1),
                ("heal_interval", self.heal_interval, 0.1),
                ("suspend_after", self.suspend_after, 0.0),
                ("replace_slow_after", self.replace_slow_after, 0.0),
            )
            if not (type(value) in {int, float} and least <= value <= LONGEST_S)
        ]
        problems += [
            f"{name} ({value!r}) must be True or False"
            for name, value in (("rebalance", self.rebalance), ("is_on", self.is_on))
            if not isinstance(value, bool)
        ]
        if problems:
            raise ConfigurationError("; ".join(problems), hint="see `copycat cluster heal --help`")

    @property
    def record(self) -> PolicyRecord:
        """As the list of the members holds it."""
        return PolicyRecord(
            self.target_active,
            self.target_passive,
            round(self.heal_after * 1000),
            round(self.heal_interval * 1000),
            round(self.suspend_after * 1000),
            round(self.replace_slow_after * 1000),
            self.rebalance,
            self.is_on,
        )

    @classmethod
    def of(cls, record: PolicyRecord) -> HealingPolicy:
        """What the list of the members holds."""
        return cls(
            target_active=record.target_active,
            target_passive=record.target_passive,
            heal_after=record.heal_after_ms / 1000,
            heal_interval=record.heal_interval_ms / 1000,
            suspend_after=record.suspend_after_ms / 1000,
            replace_slow_after=record.replace_slow_after_ms / 1000,
            rebalance=record.rebalance,
            is_on=record.is_on,
        )
