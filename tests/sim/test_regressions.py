"""Seeds that once failed, with the options they had then and a sentence each.

What a seed draws changes when the simulator learns something new, so each case stands for the
situation it was found in; what it showed is also held by a test beside the code that was wrong.
`regressions.json` has them: seed, bug, options.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from copycat.sim.options import SeedOptions
from copycat.sim.runner import run_seed


class Case(msgspec.Struct):
    seed: int
    bug: str
    options: SeedOptions


CASES = msgspec.json.decode(
    Path(__file__).with_name("regressions.json").read_bytes(), type=list[Case]
)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.seed))
def test_what_once_failed_holds(case: Case) -> None:
    assert case.bug
    assert run_seed(case.seed, case.options).seed == case.seed
