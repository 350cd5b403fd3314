"""`python -m tests dask-suite`: dask's own tests of arrays, bags and delayed calls, with this engine as the scheduler.

Each file of tests runs in a process of its own, against a cluster on this machine. There, every scheduler that dask
knows by name ("sync", "threads", "processes") is the client of that cluster, and so is the default one: whatever the
tests compute, they compute here. A test that fails is run again with dask's own "processes" scheduler in place of the
client. One that fails there as well wants what no other process can give (a counter in the test's own memory, a lock),
or fails for another reason that is not the scheduler.

The counts, and for each failure its reason, are written to a file. The extra `suite` has what more of the tests need.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any, NamedTuple

ADDRESS = "DASK_SUITE_ADDRESS"
PROCESSES = "processes"
FILE_TIMEOUT_S = 3600
TEST_TIMEOUT_S = 120
SUITES = {"array": "array/tests", "bag": "bag/tests", "delayed": "tests/test_delayed.py"}


# --- the plugin: what each process of pytest does first ---------------------------------------------


def pytest_configure(config: Any) -> None:
    """Put the engine in place of dask's schedulers."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return
    import dask
    import dask.base

    dask.config.set({"dataframe.shuffle.method": "tasks"})
    if address == PROCESSES:
        get: Any = dask.base.named_schedulers[PROCESSES]
        dask.config.set(scheduler=PROCESSES)
    else:
        from distributed_core import Client

        client = Client(address, insecure=True)
        config.add_cleanup(client.close)
        get = client.get
        dask.config.set(scheduler=client)
    for name in dask.base.named_schedulers:
        dask.base.named_schedulers[name] = get


# --- the runner -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """How a test ended: `passed`, `failed` or `skipped` (as pytest counts, an expected failure is skipped)."""

    file: str
    name: str
    kind: str
    reason: str


def files_of(suite: str) -> list[Path]:
    """Return the files of tests of one part of dask, as it is installed."""
    import dask

    path = Path(dask.__file__).parent / SUITES[suite]
    return [path] if path.is_file() else sorted(path.glob("test_*.py"))


def run_file(
    file: Path, address: str, folder: Path, *, only: list[str] | None = None, words: str = ""
) -> list[Outcome]:
    """Run one file of tests, or some of its tests, with the scheduler at `address`."""
    report = folder / f"{file.parent.parent.name}-{file.stem}.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.dask_suite", "-p", "no:cacheprovider"]
    argv += [f"--junitxml={report}", "-o", "addopts=", "-o", "filterwarnings=default", f"--timeout={TEST_TIMEOUT_S}"]
    argv += ["--tb=short", "--no-header", "--rootdir", str(file.parent), "-c", os.devnull]
    argv += ["-k", words] if words else []
    argv += [f"{file}::{name}" for name in only] if only else [str(file)]
    environment = {**os.environ, ADDRESS: address, "PYTHONPATH": str(Path(__file__).parent.parent)}
    try:
        done = subprocess.run(
            argv, env=environment, cwd=folder, capture_output=True, text=True, timeout=FILE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [Outcome(file.name, "(the whole file)", "failed", f"it took longer than {FILE_TIMEOUT_S} s")]
    if not report.exists():
        return [Outcome(file.name, "(the whole file)", "failed", (done.stdout + done.stderr)[-3000:])]
    return [_outcome(file, case) for case in xml.parse(report).iter("testcase")]


def _outcome(file: Path, case: xml.Element) -> Outcome:
    name = case.get("name") or ""
    holder = (case.get("classname") or "").rpartition(".")[2]
    if holder != file.stem and holder.startswith("Test"):
        name = f"{holder}::{name}"
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return Outcome(file.name, name, "failed", f"{found.get('message')}\n{found.text}")
    skipped = case.find("skipped")
    if skipped is not None:
        return Outcome(file.name, name, "skipped", skipped.get("message") or "")
    return Outcome(file.name, name, "passed", "")


def run_suites(suites: list[str], words: str, report: Path) -> int:
    """Run parts of dask's suite; print the counts, write the reasons, and return how many failures are the engine's."""
    from distributed_core import LocalCluster

    outcomes: list[Outcome] = []
    elsewhere: list[Outcome] = []
    with tempfile.TemporaryDirectory() as made, LocalCluster(n_workers=2, insecure=True) as cluster:
        folder = Path(made)
        for suite in suites:
            for file in files_of(suite):
                start = time.monotonic()
                found = run_file(file, cluster.address, folder, words=words)
                failed = [each.name for each in found if each.kind == "failed"]
                if failed:
                    elsewhere += run_file(file, PROCESSES, folder, only=failed)
                outcomes += found
                print(f"{suite} {file.name}: {_counts(found)} in {time.monotonic() - start:.0f} s", flush=True)
    others = {(each.file, each.name) for each in elsewhere if each.kind == "failed"}
    failures = [each for each in outcomes if each.kind == "failed"]
    own = [each for each in failures if (each.file, each.name) not in others]
    lines = [f"dask's suite ({', '.join(suites)}): {_counts(outcomes)}", ""]
    for title, chosen in (
        ("Failures here alone", own),
        ("Failures with dask's own processes too", [each for each in failures if each not in own]),
    ):
        lines += [f"## {title}: {len(chosen)}", ""]
        for each in chosen:
            lines += [f"### {each.file}::{each.name}", "", each.reason, ""]
    report.write_text("\n".join(lines))
    print(lines[0])
    print(f"of the failures, {len(failures) - len(own)} fail with dask's own processes too, {len(own)} here alone")
    for each in own:
        print(f"  {each.file}::{each.name}: {each.reason.splitlines()[0][:160]}")
    print(f"the reasons are in {report}")
    return len(own)


def _counts(outcomes: list[Outcome]) -> str:
    kinds = [each.kind for each in outcomes]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("passed", "failed", "skipped"))
