"""Options every room shares: golden files, fresh simulator seeds, how much of the heaviest."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

__all__: list[str] = []

# Derandomized: a red run is red again on the next machine. The simulator brings chance.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("copycat")
    group.addoption("--rewrite", action="store_true", help="rewrite golden files and scripts")
    group.addoption("--seeds", type=int, default=20, help="fresh simulator seeds (default 20)")
    group.addoption("--seed-base", type=int, help="the first of them (default: drawn, printed)")
    group.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of crash images, flips and steps of the model, one in N; for sanitizers (default 1)",
    )


@pytest.fixture
def no_follower_feeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader regards no follower as one that can feed another: it serves history itself."""
    from copycat.raft import leader_feeding

    monkeypatch.setattr(leader_feeding, "feeders", _nobody)


def _nobody(*_: object) -> list[int]:
    return []


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed_base is None:
        config.option.seed_base = int.from_bytes(os.urandom(5), "little")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell runs what it puts into the background so, and every process that a test starts
        # would inherit it: none of them could be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    return f"simulator: {config.option.seeds} seeds from --seed-base={config.option.seed_base}"


@pytest.fixture(scope="session")
def rewrite(request: pytest.FixtureRequest) -> bool:
    """True when golden files are to be rewritten instead of compared."""
    return bool(request.config.option.rewrite)


@pytest.fixture(scope="session")
def every(request: pytest.FixtureRequest) -> int:
    """One crash image, flip or step of the model in so many is tried.

    A sanitizer looks for what the code does on each path, and costs ten times the time: `make
    san` gives it a part. What the tests say of their own number is scaled with it.
    """
    number = int(request.config.option.every)
    if number < 1:
        raise pytest.UsageError(f"--every={number}: one in so many, so 1 or more")
    return number


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> range:
    """The fresh seeds of this run; the header prints where they begin."""
    base: int = request.config.option.seed_base
    return range(base, base + int(request.config.option.seeds))
