"""`python -m tests sim`: run worlds of the simulation.

python -m tests sim --seeds 1000           seeds 0 to 999
python -m tests sim --seed 17              one world, its trace printed
"""

from __future__ import annotations

import argparse
import sys
import traceback

from distributed_core.sim import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests")
    parser.add_argument("what", choices=["sim"])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    chosen = parser.parse_args()
    if chosen.seed is not None:
        print(simulate(chosen.seed))
        return 0
    failed = 0
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        try:
            simulate(seed)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"replay: python -m tests sim --seed {seed}")
    print(f"sim: {chosen.seeds - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
