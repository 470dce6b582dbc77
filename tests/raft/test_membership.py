"""The voters of a configuration, in one order whoever lists them."""

from __future__ import annotations

import pytest

from copycat.errors import InvariantError
from copycat.raft.configuration import Configuration
from copycat.types import MemberId


def test_order_and_doubles_do_not_matter() -> None:
    assert Configuration.of(MemberId(3), MemberId(1), MemberId(3)).voters == (1, 3)


def test_quorum_and_others() -> None:
    configuration = Configuration.of(*map(MemberId, (1, 2, 3, 4)))
    assert configuration.quorum_size == 3
    assert configuration.others(MemberId(2)) == (1, 3, 4)


def test_members_that_do_not_vote() -> None:
    configuration = Configuration.of(
        MemberId(2), MemberId(1), non_voters=(MemberId(4), MemberId(3))
    )
    assert configuration.voters == (1, 2)
    assert configuration.members == (1, 2, 3, 4)
    assert configuration.others(MemberId(2)) == (1, 3, 4)
    with pytest.raises(InvariantError, match="votes or does not"):
        Configuration.of(MemberId(1), non_voters=(MemberId(1),))


def test_nobody_cannot_vote() -> None:
    with pytest.raises(InvariantError, match="nobody"):
        Configuration.of(MemberId(0))
    with pytest.raises(InvariantError, match="needs a voter"):
        Configuration.of()
