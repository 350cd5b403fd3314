"""Long tests that are no part of the suite.

python -m tests sim --seeds 1000           worlds of the simulation, seeds 0 to 999
python -m tests sim --seed 17              one world, its trace printed
python -m tests dask-suite                 dask's own tests of arrays, bags and delayed calls, on this engine
python -m tests dask-suite bag delayed     parts of them; `-k WORDS` as for pytest
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from distributed_core.sim import simulate
from tests.dask_suite import SUITES, run_suites


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests")
    kinds = parser.add_subparsers(dest="what", required=True)
    sim = kinds.add_parser("sim")
    sim.add_argument("--seeds", type=int, default=1000)
    sim.add_argument("--first", type=int, default=0)
    sim.add_argument("--seed", type=int)
    suite = kinds.add_parser("dask-suite")
    suite.add_argument("parts", nargs="*", choices=[*SUITES, []], default=[])
    suite.add_argument("-k", dest="words", default="")
    suite.add_argument("--report", type=Path, default=Path("dask-suite.txt"))
    chosen = parser.parse_args()
    if chosen.what == "dask-suite":
        return 1 if run_suites(chosen.parts or list(SUITES), chosen.words, chosen.report) else 0
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
