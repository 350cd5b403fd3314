"""`python -m distributed_core.sim replay FILE`: do again what `dscheduler --record FILE` wrote.

It prints how many tasks are in which state, what each unfinished one waits for, and a digest of the state: the one that
`Client.dump_state` shows under `recording`, for as many events.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from distributed_core.errors import UsageError
from distributed_core.sim.replay import replay, report


def main() -> int:
    """Return 0 where all invariants hold, 1 where one is broken, 2 where the file is no recording."""
    parser = argparse.ArgumentParser(prog="python -m distributed_core.sim", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    chosen = kinds.add_parser("replay", help="feed a recording to a new scheduler's machine")
    chosen.add_argument("file", type=Path)
    chosen.add_argument("--events", type=int, help="stop after so many")
    chosen.add_argument("--check-every", type=int, default=1, help="check the invariants after each so many events")
    chosen.add_argument("--tasks", type=int, default=20, help="how many unfinished tasks to explain")
    given = parser.parse_args()
    try:
        done = replay(given.file, events_max=given.events, check_every=max(1, given.check_every))
    except UsageError as error:
        print(f"distributed_core.sim: {error}", file=sys.stderr)
        return 2
    print(report(done, tasks_max=given.tasks))
    return 1 if done.broken else 0


if __name__ == "__main__":
    sys.exit(main())
