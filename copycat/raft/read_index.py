"""Linearizable reads by read index (C10, I14).

A read may be answered when a majority has confirmed, *after the read arrived*, that this
member still leads, and everything committed at that moment is applied. One round confirms all
reads that came before it; what comes while a round is in flight waits for the next one. A
round is a request number: a voter confirms it by answering any request of this term with that
number or a later one, and answers are credited only after their term was looked at.
"""

from __future__ import annotations

__all__ = ["ReadRounds"]


class ReadRounds:
    """Tokens only grow, so the newest token of a round stands for all before it."""

    __slots__ = ("pending_token", "round_index", "round_request", "round_token")

    def __init__(self) -> None:
        self.pending_token = 0
        """Newest read that waits for a round to be created; 0 for none."""
        self.round_request = 0
        """First request number that confirms the round in flight; 0 when there is none."""
        self.round_token = 0
        self.round_index = 0

    def wait(self, token: int) -> None:
        """A read arrived; it joins the next round, never the one in flight."""
        self.pending_token = max(self.pending_token, token)

    @property
    def wants_round(self) -> bool:
        """Reads wait and nothing is in flight."""
        return self.pending_token != 0 and self.round_request == 0

    def begin(self, first_request: int, commit_index: int) -> None:
        """Create the round: its read index is the commit index of this very moment (C10)."""
        self.round_request = first_request
        self.round_token = self.pending_token
        self.round_index = commit_index
        self.pending_token = 0

    def confirmed(self) -> tuple[int, int]:
        """Close the round: (token, read index)."""
        answer = (self.round_token, self.round_index)
        self.round_request = 0
        return answer
