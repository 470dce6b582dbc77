"""Seeds that once failed, with the options they had then and a sentence each.

The dice of a seed move when the simulator learns something new, so each case stands for the
situation it was found in; what it showed is also held by a test beside the code that was wrong.
"""

from __future__ import annotations

import msgspec
import pytest

from copycat.sim.options import SeedOptions
from copycat.sim.runner import run_seed

CASES = {
    20897: (
        "Small batches, slow disks, a window of two: each message carried one small batch, so "
        "followers fell behind for ever and a calm cluster never became equal.",
        '{"members":3,"duration_us":6000000,"fault_us":5000000,"faults":["pause","process",'
        '"slow_disk","slow_link"],"raft":{"election_timeout_ms":500,"heartbeat_interval_ms":100,'
        '"window":2},"network":{"delay_us":500,"loss":0,"duplication":1000,"reordering":5000,'
        '"straggling":10000},"disk":{"sync_us":50000,"save_us":50000,"apply_us":50,"aside_us":'
        '2000,"inline":300000,"recovery_cut":0,"max_segment_size":16384,'
        '"max_entries_per_segment":1024},"workload":{"clients":4,"tick_us":20000,"command":'
        '800000,"query":800000,"burst_max":4,"inflight_max":400,"commands_max":2000,"keys":1,'
        '"session_timeout_ms":1000,"close":0,"twice":0},"drift_ppm":0}',
    ),
    5833: (
        "The simulator's own: a replica whose disk failed in mid-turn went on to the end of the "
        "turn and handed work to the next life of its member, which then never applied anything.",
        '{"members":3,"duration_us":10000000,"fault_us":800000,"faults":["pause","power_midway",'
        '"slow_disk"],"raft":{"election_timeout_ms":100,"heartbeat_interval_ms":50,"window":8},'
        '"network":{"delay_us":5000,"loss":0,"duplication":100000,"reordering":0,"straggling":'
        '1000},"disk":{"sync_us":300,"save_us":100,"apply_us":10,"aside_us":2000,"inline":'
        '300000,"recovery_cut":0,"max_segment_size":16384,"max_entries_per_segment":64},'
        '"workload":{"clients":2,"tick_us":100000,"command":800000,"query":100000,"burst_max":'
        '16,"inflight_max":400,"commands_max":200,"keys":4,"session_timeout_ms":3000,"close":0,'
        '"twice":5000},"drift_ppm":100000}',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", CASES)
def test_what_once_failed_holds(seed: int) -> None:
    _, options = CASES[seed]
    run_seed(seed, msgspec.json.decode(options, type=SeedOptions))
