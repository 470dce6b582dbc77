"""Says what to do about damage, which depends on other copies and on what else is damaged."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from copycat.errors import CorruptLogError, FormatVersionError, VersionMismatchError
from copycat.member.configuration_file import known_addresses
from copycat.member.hard_state import HARD_STATE_FILES
from copycat.member.identity import IDENTITY_FILES, read_identity
from copycat.member.markers import LOST_ENTRIES_FILE
from copycat.member.verify import VerifyReport
from copycat.storage import Env
from copycat.storage.reader import Damage

__all__ = ["Advice"]

_ONE_OF_SEVERAL = "start this member: it does not vote until it has fetched the missing entries"
_HINTS = {
    "F5": "nothing is lost: another copy, or the log, says the same, and the next start writes"
    " this copy again",
    "F6": "do not start this member, since it could vote twice: add a new member instead, or"
    " restore a backup if it is the only member",
    "F7": "do not start this member, since its identity is lost: add a new member instead, or"
    " restore a backup if it is the only member",
    "F14": "nothing is lost: the next start builds the index again from the segment",
    "F17": "the next start uses an earlier snapshot and the log, or another member's snapshot",
}
_BACKUP = "no other copy is known: restore this directory from a backup"


class Advice:
    """Advice on each damage in one report of `verify`."""

    def __init__(self, report: VerifyReport) -> None:
        self._report = report
        self._home, self._members = _member_of(report.path)
        lost = [one.index for one in report.damage if one.row in {"F2", "F3"} and one.index]
        self._first = min(lost, default=0)
        """The first entry that cannot be read; 0 when that is not known."""
        rows = {one.row for one in report.damage}
        self._bar = next((row for row in ("F6", "F7") if row in rows), "")
        self._is_out_of_reach = any(one.row == "F17" and not one.index for one in report.damage)

    def error_of(self, damage: Damage) -> CorruptLogError:
        """The error that describes a damage, with its hint."""
        path = self._report.path
        place = f"{damage.path}, byte {damage.offset:,}" if damage.offset >= 0 else damage.path
        what = f"entry {damage.index:,} of {path} ({place})" if damage.index else place
        return CorruptLogError(
            f"{what}: {damage.what} ({damage.row})",
            hint=self.hint_of(damage),
            path=damage.path,
            offset=damage.offset,
            index=damage.index,
        )

    def hint_of(self, damage: Damage) -> str:
        """What to do about a damage, one action per line."""
        is_of_log = damage.row in {"F2", "F3"}
        is_lost = is_of_log or (damage.row == "F17" and self._is_out_of_reach)
        if not is_lost:
            return _HINTS[damage.row]
        if self._bar:
            return f"do not start this member: see the hint for {self._bar}"
        if len(self._members) > 1:
            return _ONE_OF_SEVERAL
        if not is_of_log:
            return f"{_BACKUP}; this member does not start"
        if not self._members:
            return f"{_BACKUP}\n{self._export()}"
        return f"{self._alone()}\n{self._export()}"

    def of_missing(self) -> list[str]:
        """Lines about entries that a gap proves to be missing at the end; none if none are."""
        report = self._report
        if not report.missing_upto:
            return []
        if len(self._members) > 1 and Env().exists(f"{self._home}/{LOST_ENTRIES_FILE}"):
            means = (
                "this member has recorded the loss: start it, and the others send these entries"
            )
        elif len(self._members) > 1:
            means = (
                "a member that was behind gets these entries from its leader; a member that was up"
                " to date has lost acknowledged entries: do not start it, add a new member instead"
            )
        elif self._members:
            means = (
                "unless copycat recover discarded these entries, they are lost: restore a backup"
            )
        else:
            means = "unless truncate() deleted these entries, they are lost: restore a backup"
        first, last = report.last_index + 1, report.missing_upto
        return [f"entries {first:,} to {last:,}: a gap shows that they were durable once", means]

    def _alone(self) -> str:
        if not self._first:
            return f"{_BACKUP}; this member does not start"
        return (
            "this cluster has one member: start it; that is enough if a snapshot covers entry"
            f" {self._first:,}.\n"
            "if it does not start, restore a backup, or keep the entries before: copycat recover"
            f" {quote(self._home)} --accept-loss-from {self._first}"
        )

    def _export(self) -> str:
        report = self._report
        if not report.checks:
            return "without its manifest no entry can be exported"
        if self._first <= report.first_index:
            return "there is no entry before the damage, so none can be exported"
        return (
            f"entries before {self._first:,} can be saved: copycat log export"
            f" {quote(report.path)} --to {self._first - 1} -o FILE"
        )


def _member_of(path: str) -> tuple[str, tuple[str, ...]]:
    """The directory of the member whose log `path` is or contains, and all members' addresses.

    No members for a bare log, or when the identity cannot be read.
    """
    env = Env()
    for home in (path, str(Path(path).absolute().parent)):
        if any(env.exists(f"{home}/{name}") for name in (*IDENTITY_FILES, *HARD_STATE_FILES)):
            try:
                identity, _ = read_identity(env, home)
                known = () if identity is None else known_addresses(env, home, identity)
            except (CorruptLogError, FormatVersionError, VersionMismatchError):
                known = ()
            return home, known
    return path, ()
