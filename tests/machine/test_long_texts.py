"""Texts of any length that user code raises or shows: replies and the log stay bounded (F23)."""

from __future__ import annotations

import logging
import re

import pytest

from copycat import ApplicationError, StateMachine, command, query
from copycat.tracebacks import TEXT_MAX, TRACEBACK_MAX, log_error
from tests.machine.runs import Script

LONG = 4 << 20


class Verbose(StateMachine):
    """Raises and shows texts of four megabytes."""

    def __repr__(self) -> str:
        return "R" * LONG

    @command
    def fail(self) -> None:
        raise KeyError("y" * LONG) from ValueError("x" * LONG)

    @command
    def later(self) -> None:
        self.executor.schedule(1, self.due)

    def due(self) -> None:
        raise ValueError("z" * LONG)

    @query
    def ask(self) -> None:
        raise ValueError("x" * LONG)


def test_what_long_texts_leave_in_replies_and_in_the_log_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(Verbose())
    session = script.register()
    failed, none = script.results(session, Verbose.fail(), Verbose.later())
    asked = script.query(session, Verbose.ask())
    script.tick(5000)
    assert none is None
    assert isinstance(failed, ApplicationError)
    assert isinstance(asked, ApplicationError)
    assert max(len(str(failed)), len(str(asked))) < 2 * TEXT_MAX
    assert len(caplog.records) == 3
    shown = caplog.text
    assert len(shown) < 6 * TEXT_MAX
    assert "raise KeyError" in shown, "the place is shown"
    assert "direct cause" in shown
    for letter in "xyzR":
        assert letter * 100 in shown
    assert len(re.findall(r"\.\.\. 41\d{5} more characters", shown)) == 5


def test_a_chain_of_a_thousand_causes_is_shown_by_its_beginning_and_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error: Exception = ValueError("first " + "x" * 1000)
    for _ in range(1000):
        another = ValueError("y" * 1000)
        another.__cause__ = error
        error = another
    log_error(logging.getLogger("copycat.test"), logging.ERROR, error, "raised %d", 1)
    (record,) = caplog.records
    assert record.getMessage() == "raised 1"
    assert record.filename == "test_long_texts.py"
    assert len(caplog.text) < TRACEBACK_MAX + 1000
    assert "ValueError: first" in caplog.text
    assert "characters are left out" in caplog.text
