"""An exception of which nothing can be asked is a result like any other."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from copycat import StateMachine, command
from tests.machine.runs import Script


class Closed(Exception):
    """Nothing can be asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class Closing(StateMachine):
    @command
    def go(self) -> None:
        raise Closed


def test_an_error_of_which_nothing_can_be_asked_is_a_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(Closing())
    session = script.register()
    with caplog.at_level(logging.CRITICAL, "copycat.machine"):  # pytest would ask it
        script.commands(session, [Closing.go()])
    assert script.executor.last_applied == 2
