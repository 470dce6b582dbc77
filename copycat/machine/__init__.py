"""Entries at work: sessions and the user's state machine. Deterministic; no clock, no dice."""
