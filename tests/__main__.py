"""Long tests that are no part of the suite.

python -m tests sim --seeds 1000           worlds of the simulation, seeds 0 to 999
python -m tests sim --seed 17              one world, with its scenario and its trace
python -m tests sim --reduce 17            the smallest scenario that fails as this one does, into seed-17.txt
python -m tests sim --scenario FILE        the world of such a file
python -m tests dask-suite                 dask's own tests of arrays, bags and delayed calls, on this engine
python -m tests dask-suite bag delayed     parts of them; `-k WORDS` as for pytest
python -m tests chaos --seconds 120        real processes under real faults; `--help` says more
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests import simulation
from tests.chaos import world
from tests.dask_suite import SUITES, run_suites


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests")
    kinds = parser.add_subparsers(dest="what", required=True)
    sim = kinds.add_parser("sim")
    sim.add_argument("--seeds", type=int, default=1000)
    sim.add_argument("--first", type=int, default=0)
    sim.add_argument("--seed", type=int)
    sim.add_argument("--processes", type=int, help="default: one for each core")
    sim.add_argument("--reduce", type=int, metavar="SEED")
    sim.add_argument("--out", type=Path, help="where --reduce writes")
    sim.add_argument("--scenario", type=Path)
    suite = kinds.add_parser("dask-suite")
    suite.add_argument("parts", nargs="*", choices=[*SUITES, []], default=[])
    suite.add_argument("-k", dest="words", default="")
    suite.add_argument("--report", type=Path, default=Path("dask-suite.txt"))
    world.add_arguments(kinds.add_parser("chaos"))
    chosen = parser.parse_args()
    if chosen.what == "chaos":
        return world.main(chosen)
    if chosen.what == "dask-suite":
        return 1 if run_suites(chosen.parts or list(SUITES), chosen.words, chosen.report) else 0
    if chosen.reduce is not None:
        return 0 if simulation.reduce_seed(chosen.reduce, chosen.out) else 1
    if chosen.scenario is not None:
        return 0 if simulation.replay(chosen.scenario) else 1
    if chosen.seed is not None:
        return 0 if simulation.show(chosen.seed) else 1
    return 0 if simulation.run_seeds(chosen.first, chosen.seeds, chosen.processes) else 1


if __name__ == "__main__":
    sys.exit(main())
