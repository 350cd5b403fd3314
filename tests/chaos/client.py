"""A client host's process: one client, several threads that submit jobs all the time.

    python -m tests.chaos.client ADDRESS NAME SEED THREADS

Lines of JSON on stdout tell what happens. On stdin: `go`, `pause` (finish what was begun, then say `paused`), `close`.
SIGUSR1 writes the stacks of all threads to stderr.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import random
import signal
import sys
import threading
import time
from typing import Any

from distributed_core import Client
from tests.chaos.work import JOBS, verdict

CONNECT_TIMEOUT_S = 60.0


class Load:
    """The jobs of one client."""

    def __init__(self, client: Client, name: str, seed: str, threads: int) -> None:
        self._client = client
        self._name = name
        self._go = threading.Event()
        self._ended = False
        self._idle = threading.Semaphore(0)
        self._saying = threading.Lock()
        self._count = 0
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {name} {k}"),), daemon=True)
            for k in range(threads)
        ]
        self._running = False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def say(self, event: str, **more: Any) -> None:
        with self._saying:
            print(json.dumps({"event": event, "at_s": time.monotonic(), **more}), flush=True)

    def go(self) -> None:
        self._running = True
        self._go.set()

    def pause(self) -> None:
        """Wait until every job that was begun has ended."""
        self._go.clear()
        if self._running:
            for _ in self._threads:
                self._idle.acquire()
        self._running = False
        gc.collect()
        self.say("paused")

    def _work(self, dice: random.Random) -> None:
        names = list(JOBS)
        weights = [JOBS[name][1] for name in names]
        while True:
            self._go.wait()
            while self._go.is_set():
                self._do(dice.choices(names, weights)[0], dice)
            self._idle.release()

    def _do(self, job: str, dice: random.Random) -> None:
        with self._saying:
            self._count += 1
            name = f"{self._name}-{self._count}"
        self.say("begun", job=name, kind=job)
        try:
            tasks = JOBS[job][0](self._client, dice)
        except Exception as error:
            found, kind, text = verdict(job, error)
            self.say("ended", job=name, kind=job, tasks=0, verdict=found, error=kind, text=text)
        else:
            self.say("ended", job=name, kind=job, tasks=tasks, verdict="right", error="", text="")


def main() -> None:
    address, name, seed, threads = sys.argv[1:]
    faulthandler.register(signal.SIGUSR1)
    with Client(address, timeout=CONNECT_TIMEOUT_S) as client:
        load = Load(client, name, seed, int(threads))
        load.start()
        load.say("connected")
        for line in sys.stdin:
            if line.strip() == "go":
                load.go()
            elif line.strip() == "pause":
                load.pause()
            else:
                break
    load.say("closed")


if __name__ == "__main__":
    main()
