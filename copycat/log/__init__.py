"""Entries at rest: the native segmented log, its public face, and the verified fake."""

__all__: list[str] = []
