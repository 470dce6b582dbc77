"""The lazy threads of a bare log end when they are told to."""

from __future__ import annotations

import threading

from copycat.log.background import SyncTimer


def test_a_stop_between_two_steps_of_the_timer_is_not_lost() -> None:
    stopped = threading.Event()

    class Dirty(threading.Event):
        def clear(self) -> None:  # as when `stop` runs right before it
            stopped.set()
            self.set()
            super().clear()

    dirty = Dirty()
    dirty.set()
    timer = SyncTimer(lambda: 0, 0.0)
    worker = threading.Thread(target=timer._work, args=(dirty, stopped), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
