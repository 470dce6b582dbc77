"""Compare with a golden file, or rewrite it: one function, one flag (`make golden`)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["compare_or_rewrite"]


def compare_or_rewrite(path: Path, observed: str, *, rewrite: bool) -> None:
    """Assert that `path` holds exactly `observed`; with `rewrite`, make it so."""
    if rewrite:
        path.write_text(observed, encoding="utf-8")
        return
    assert path.exists(), f"{path} is missing: run `make golden` and review it"
    assert observed == path.read_text(encoding="utf-8"), f"{path} differs (`make golden`?)"
