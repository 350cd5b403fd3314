"""The command: makes a world of its own for each run, runs in it, and removes what outlives a world."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from moto_fixtures import cage, host
from tests.chaos.plants import PLANTS
from tests.chaos.schedule import KINDS

# What brings the simulated EC2 along is imported where it is needed: it takes a second.
if TYPE_CHECKING:
    from tests.chaos.run import Options

COMMANDS = ("ip", "nft", "ss", "unshare", "nsenter", "setpriv", "mount")
RUN = "CHAOS_RUN"
PLANT_SECONDS = 4.0
PLANT_JOBS_BOUND_S, PLANT_BOOKS_BOUND_S = 20.0, 15.0
EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, help="default: the time")
    parser.add_argument("--kinds", help=f"of faults, with commas: {', '.join(KINDS)}")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=3, help="faults that last at the same time, at most")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was measured, as JSON")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="plant a fault in the house; the run must fail")
    parser.add_argument("--plants", action="store_true", help="all planted faults: each must be noticed")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER")
    parser.add_argument("--verbose", action="store_true")


def main(chosen: argparse.Namespace) -> int:
    """Run what was chosen; return the exit code."""
    from moto_fixtures.region import MARKER

    if os.environ.get(RUN) and os.environ.get(MARKER) == "1":
        from tests.chaos.run import run_here

        return run_here(options_of(chosen))
    lacking = missing()
    if lacking:
        print(f"chaos: this computer cannot carry it: {lacking}", file=sys.stderr)
        return 1 if os.environ.get("DEC2_TESTCLOUD_REQUIRED") == "1" else 0
    if chosen.plants:
        missed = [name for name in sorted(PLANTS) if not noticed(name)]
        return 1 if missed else 0
    arguments = [*sys.argv[1:]]
    if chosen.seed is None:
        arguments += ["--seed", str(int(time.time()))]
    return in_world(arguments)


def in_world(arguments: list[str], output: int | None = None) -> int:
    """Run the command in a new world; return its exit code."""
    from moto_fixtures.isolation import python_module, run_apart

    run = str(os.getpid())
    try:
        return run_apart(python_module("tests", *arguments), {RUN: run}, output)
    finally:
        _sweep()


def _sweep() -> None:
    """Remove the control groups of this run, and of runs that were killed; others may be under way."""
    runs = {group.name.split("-")[1] for tree in cage.trees().values() for group in tree.glob("chaos-*-*")}
    for run in runs:
        if run == str(os.getpid()) or not Path("/proc", run).exists():
            cage.sweep(f"chaos-{run}-")


def noticed(name: str) -> bool:
    """Run shortly with a planted fault; return whether it was noticed, for the right reason."""
    arguments = ["chaos", "--plant", name, "--seconds", f"{PLANT_SECONDS:g}", "--seed", "1", "--workers", "2"]
    arguments += ["--kinds", "reset,kill-worker"]
    begun_s = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        code = in_world(arguments, output.fileno())
        output.seek(0)
        text = output.read()
    reasons = [line.strip(" -") for line in text.splitlines() if line.startswith("  - ")]
    why = next((reason for reason in reasons if PLANTS[name].complaint in reason), None)
    took_s = time.monotonic() - begun_s
    if code == 1 and why is not None:
        print(f"plant {name}: noticed in {took_s:.0f} s: {why[:150]}", flush=True)
        return True
    print(f"plant {name}: NOT noticed in {took_s:.0f} s (exit code {code})\n{text}", flush=True)
    return False


def options_of(chosen: argparse.Namespace) -> Options:
    """Return the options of a run."""
    from tests.chaos.run import Options

    kinds = tuple(chosen.kinds.split(",")) if chosen.kinds else tuple(KINDS)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SystemExit(f"chaos: there is no fault {', '.join(unknown)}; there are {', '.join(KINDS)}")
    bounds = {"jobs_bound_s": PLANT_JOBS_BOUND_S, "books_bound_s": PLANT_BOOKS_BOUND_S} if chosen.plant else {}
    return Options(
        seconds=chosen.seconds,
        seed=chosen.seed,
        workers=chosen.workers,
        clients=chosen.clients,
        at_once=chosen.at_once,
        kinds=kinds,
        report=chosen.report.resolve() if chosen.report else None,
        plant=chosen.plant or "",
        keep_logs=chosen.keep_logs.resolve() if chosen.keep_logs else None,
        verbose=chosen.verbose,
        **bounds,
    )


def missing() -> str | None:
    """Return what this computer lacks, as one sentence; None if it lacks nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts need Linux and root (namespaces, mounts and control groups): run the command with sudo."
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    if absent:
        return (
            f"the host lacks {', '.join(absent)}: apt-get install --no-install-recommends iproute2 nftables util-linux"
        )
    trees = cage.trees()
    if "memory" not in trees or "freezer" not in trees:
        return "its control groups are not of version 1 (memory and freezer), which the faults use."
    if not Path("/dev/net/tun").exists():
        return "it has no /dev/net/tun, from which the cables are made."
    probe = subprocess.run([*host.UNSHARE, "true"], capture_output=True, text=True)
    return None if probe.returncode == 0 else f"it does not allow new namespaces ({probe.stderr.strip()})."
