"""What to do about damage: it depends on who else has a copy, and on what else is damaged."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from copycat.errors import CorruptLogError, FormatVersionError
from copycat.member.hard_state import HARD_STATE_FILES
from copycat.member.identity import IDENTITY_FILES, read_identity
from copycat.member.markers import LOST_ENTRIES_FILE
from copycat.member.verify import VerifyReport
from copycat.storage import Env
from copycat.storage.reader import Damage

__all__ = ["Advice"]

_ONE_OF_SEVERAL = "start this member: it has no vote until others gave it what is missing"
_HINTS = {
    "F5": "nothing is lost: the other copy is good, and the next start writes this one again",
    "F6": "do not start it: without its vote it could vote twice. Join it under a new directory",
    "F7": "do not start it: it is not known whose directory this is. Join a new one",
    "F14": "nothing is lost: the next start makes it again from the segment",
    "F17": "the next start takes the snapshot before it and the log, or another member's",
}
_BACKUP = "no other copy is known here: restore this directory from a backup"


class Advice:
    """Of one report: `error_of` makes each damage an error with what to do."""

    def __init__(self, report: VerifyReport) -> None:
        self._report = report
        self._home, self._founders = _member_of(report.path)
        lost = [one.index for one in report.damage if one.row in {"F2", "F3"} and one.index]
        self._first = min(lost, default=0)
        """The first entry that cannot be read; 0 when that is not known."""
        rows = {one.row for one in report.damage}
        self._bar = next((row for row in ("F6", "F7") if row in rows), "")
        self._is_out_of_reach = any(one.row == "F17" and not one.index for one in report.damage)

    def error_of(self, damage: Damage) -> CorruptLogError:
        """The error that a start would raise, with what to do."""
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
        """One action a line."""
        is_of_log = damage.row in {"F2", "F3"}
        is_lost = is_of_log or (damage.row == "F17" and self._is_out_of_reach)
        if not is_lost:
            return _HINTS[damage.row]
        if self._bar:
            return f"it must not be started as it is: what is said of {self._bar} comes first"
        if len(self._founders) > 1:
            return _ONE_OF_SEVERAL
        if not is_of_log:
            return f"{_BACKUP}; a start refuses"
        if not self._founders:
            return f"{_BACKUP}\n{self._export()}"
        return f"{self._alone()}\n{self._export()}"

    def of_missing(self) -> list[str]:
        """Which entries a gap proves to be missing from the end, and what it means; maybe none."""
        report = self._report
        if not report.missing_upto:
            return []
        if len(self._founders) > 1 and Env().exists(f"{self._home}/{LOST_ENTRIES_FILE}"):
            means = "this member knows that it lost them: start it, and the others send them again"
        elif len(self._founders) > 1:
            means = (
                "a member that is behind gets them from its leader; one that was up to date lost"
                " what it acknowledged: do not start it, join a new one"
            )
        elif self._founders:
            means = "if nobody gave them up with copycat recover, they are lost: restore a backup"
        else:
            means = "if nobody cut them off with truncate(), they are lost: restore a backup"
        first, last = report.last_index + 1, report.missing_upto
        return [f"entries {first:,} to {last:,}: a gap says that they were durable once", means]

    def _alone(self) -> str:
        if not self._first:
            return f"{_BACKUP}; a start refuses"
        return (
            "this member has no others: start it, and it goes on if a snapshot covers this.\n"
            "if it refuses, restore a backup, or keep what is before this: copycat recover"
            f" {quote(self._home)} --accept-loss-from {self._first}"
        )

    def _export(self) -> str:
        report = self._report
        if not report.checks:
            return "without its manifest no entry can be exported"
        if self._first <= report.first_index:
            return "no entry stands before the damage, so none can be exported"
        return (
            f"entries before {self._first:,} can be saved: copycat log export"
            f" {quote(report.path)} --to {self._first - 1} -o FILE"
        )


def _member_of(path: str) -> tuple[str, tuple[str, ...]]:
    """(the member's directory, its founders) of a log or a member; no founders for a bare log,
    or when nobody knows whose it is."""
    env = Env()
    for home in (path, str(Path(path).absolute().parent)):
        if any(env.exists(f"{home}/{name}") for name in (*IDENTITY_FILES, *HARD_STATE_FILES)):
            try:
                identity, _ = read_identity(env, home)
            except (CorruptLogError, FormatVersionError):
                identity = None
            return home, identity.members if identity is not None else ()
    return path, ()
