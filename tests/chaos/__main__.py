"""`python -m tests.chaos`: real processes, real faults, and both checkers."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time

import click

from tests.chaos.checkers import HistoryError
from tests.chaos.namespaces import NamespacesNotAllowed, make_namespaces
from tests.chaos.processes import ProcessFailed
from tests.chaos.run import CLIENTS, OPERATOR, PLACES, ChaosRun, Plan
from tests.tidy.tree import ROOT

__all__: list[str] = []


@click.command()
@click.option("--faults", default=200, show_default=True, help="How many faults.")
@click.option("--operations", default=100_000, show_default=True, help="At least so many.")
@click.option("--seed", type=int, help="Draws the faults; else a new one, which is printed.")
@click.option("--pause", default=10.0, show_default=True, help="Seconds of a SIGSTOP.")
@click.option("--workers", default=10, show_default=True, help="Clients, in two processes.")
@click.option("--keep", is_flag=True, help="Keep the files of a run that did not fail, too.")
def main(
    faults: int, operations: int, seed: int | None, pause: float, workers: int, keep: bool
) -> None:
    """Five members, and faults while clients work; then judge histories, states and logs."""
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
    try:
        namespaces = make_namespaces([*PLACES, *CLIENTS, OPERATOR])
    except NamespacesNotAllowed as cause:
        print(f"chaos: skipped: no network namespaces may be made here ({cause}); nothing was run")
        return
    root = ROOT / "build" / "chaos" / f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    root.mkdir(parents=True)
    run = ChaosRun(Plan(faults, operations, seed, pause, workers), root, namespaces)
    print(f"chaos: seed {seed}, {faults} faults, {operations:,} operations, in {root}")
    again = (
        f"the same faults again: {sys.executable} -m tests.chaos --faults {faults}"
        f" --operations {operations} --pause {pause} --seed {seed}"
    )
    try:
        verdict = asyncio.run(run.run())
    except (HistoryError, ProcessFailed) as cause:
        print(f"\nchaos: FAILED: {cause}\neverything is kept in {root}\n{again}")
        sys.exit(1)
    except BaseException:
        print(f"\nchaos: not completed; everything is kept in {root}\n{again}")
        raise
    text = verdict.text()
    (root / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")
    if verdict.undecided:
        print("chaos: FAILED: the search did not decide every key")
        sys.exit(1)
    if not keep:
        shutil.rmtree(root)


main()
