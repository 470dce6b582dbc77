"""F2: schedules without polls, so that elections are contested and their votes matter."""

from __future__ import annotations

import pytest

from copycat.raft import election
from copycat.raft.effects import Effect, RoleChanged
from copycat.raft.state import State
from copycat.types import ServerState
from tests.raft.schedule import Chaos


def at_once(raft: State) -> None:
    """What an election timeout would do without a poll: campaign (paper section 5.2)."""
    if raft.state is ServerState.CANDIDATE and raft.is_saving:
        raft.draw_election_timeout()
    elif not raft.has_healthy_disk:
        timeout_ms = raft.options.election_timeout_ms
        raft.campaign_within(timeout_ms, 2 * timeout_ms)
    else:
        election.elect(raft, transfer=False)


class Contested(Chaos):
    """A storm in which everybody campaigns as soon as its timer ends."""

    def __init__(self, seed: int) -> None:
        self.campaigns: dict[int, set[int]] = {}
        self.elected: set[int] = set()
        super().__init__(seed, 400)
        self.cluster.watch = self.look

    def look(self, number: int, effect: Effect) -> None:
        if isinstance(effect, RoleChanged):
            if effect.state is ServerState.CANDIDATE:
                self.campaigns.setdefault(effect.term, set()).add(number)
            elif effect.state is ServerState.LEADER:
                self.elected.add(effect.term)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_laws_hold_when_elections_are_contested(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(election, "on_election_timeout", at_once)
    contested = split = 0
    for seed in range(1000 + 30 * block, 1030 + 30 * block):
        storm = Contested(seed)
        try:
            storm.storm()
            monkeypatch.undo()  # calm needs polls: without them members may disturb each other
            storm.calm()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        monkeypatch.setattr(election, "on_election_timeout", at_once)
        contested += sum(len(who) > 1 for who in storm.campaigns.values())
        split += len(storm.campaigns.keys() - storm.elected)
    assert contested > 20
    assert split > 20
