"""Measure the engine, alone or beside its peers.

python -m tests.benchmarks                                  everything, on this engine
python -m tests.benchmarks noop latency --rounds 3          parts; medians of three rounds
python -m tests.benchmarks --engines core,dask,dask-inf     the same work on each in turn, and the ratios
python -m tests.benchmarks counts                           what needs no quiet machine

`dask` and `dask-inf` (without withholding of root tasks) run in this interpreter unless told otherwise; so does `ray`,
where it is installed. `seed` is distributed 1.10.2, for which Python 3.6 and its sources are needed:
`--python seed=/path/to/python --path seed=/path/to/sources`. Quote ratios within one run, not absolute figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.benchmarks import model
from tests.benchmarks.engines import ENGINES
from tests.benchmarks.own import OWN, Figures
from tests.benchmarks.workloads import WORKLOADS

#: What only dask itself and an engine with its collections can run.
DASK_ONLY = {"array": ("core", "dask", "dask-inf")}
RUN_TIMEOUT_S = 600
Found = dict[tuple[str, str, str], list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join([*WORKLOADS, *OWN, "counts"]))
    parser.add_argument("--engines", default="core", help="of " + ", ".join(ENGINES))
    parser.add_argument("--workers", type=int, default=2, help="single-threaded worker processes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies tasks and bytes")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH", help="an engine's interpreter")
    parser.add_argument("--path", action="append", default=[], metavar="ENGINE=PATH", help="its sources")
    parser.add_argument("--json", type=Path, help="write all figures here")
    chosen = parser.parse_args()
    engines = chosen.engines.split(",")
    parts = chosen.parts or [*WORKLOADS, *OWN, "counts"]
    unknown = [each for each in parts if each not in (*WORKLOADS, *OWN, "counts")]
    unknown += [each for each in engines if each not in ENGINES]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}")
    found: Found = defaultdict(list)
    failed = 0
    for _ in range(chosen.rounds):
        for part in parts:
            failed += _measure(part, engines, chosen, found)
    _print(found, engines)
    if chosen.json:
        rows = [{"part": p, "figure": f, "engine": e, "values": values} for (p, f, e), values in found.items()]
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _measure(part: str, engines: list[str], chosen: argparse.Namespace, found: Found) -> int:
    """Measure one part on each engine; return how many failed."""
    failed = 0
    if part in WORKLOADS:
        for engine in engines:
            if engine not in DASK_ONLY.get(part, engines):
                continue
            figures = _run(engine, part, chosen)
            failed += figures is None
            _note(found, part, engine, figures or {})
    elif "core" in engines and part == "counts":
        for shape in model.SHAPES:
            _note(found, f"counts of {shape}", "core", model.counted(shape))
        _note(found, "counts of what is held", "core", model.held_by_scheduler())
    elif "core" in engines:
        _note(found, part, "core", OWN[part](chosen.scale))
    return failed


def _note(found: Found, part: str, engine: str, figures: Figures) -> None:
    for name, value in figures.items():
        found[part, name, engine].append(value)


def _run(engine: str, workload: str, chosen: argparse.Namespace) -> Figures | None:
    """Run one workload in the engine's own interpreter and in a process of its own."""
    pythons = dict(each.split("=", 1) for each in chosen.python)
    paths = dict(each.split("=", 1) for each in chosen.path)
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if engine in paths:
        environment["PYTHONPATH"] = paths[engine]
    script = Path(__file__).with_name("engines.py")
    argv = [pythons.get(engine, sys.executable), str(script), engine, workload, str(chosen.workers), str(chosen.scale)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, env=environment)
    except subprocess.TimeoutExpired:
        print(f"{engine} did not finish {workload} within {RUN_TIMEOUT_S} s", file=sys.stderr)
        return None
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        print(f"{engine} failed at {workload}: {last}", file=sys.stderr)
        return None
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _print(found: Found, engines: list[str]) -> None:
    """Print a row per figure: the median of each engine, and how many times each other one's it is."""
    rows = list(dict.fromkeys((part, name) for part, name, _ in found))
    wide = max([len(f"{part} {name}") for part, name in rows], default=0)
    heads = [*engines, *(f"{engines[0]}/{other}" for other in engines[1:])]
    print(" " * wide + "".join(f"{head:>16}" for head in heads))
    for part, name in rows:
        medians = {e: statistics.median(found[part, name, e]) for e in engines if (part, name, e) in found}
        first = medians.get(engines[0])
        cells = [_figure(medians.get(engine)) for engine in engines]
        cells += [_figure(first / medians[e] if first and medians.get(e) else None) for e in engines[1:]]
        print(f"{part} {name}".ljust(wide) + "".join(f"{cell:>16}" for cell in cells))


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
