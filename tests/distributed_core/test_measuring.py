"""How much memory there is: made-up machines, with control groups of both versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil

from distributed_core.measuring import cgroup_limit_bytes, machine_memory_bytes, process_memory_bytes

GIB = 1 << 30


def made(root: Path, own: str, files: dict[str, str]) -> Path:
    """Make a machine of 8 GiB; `own` is what the kernel says of this process's groups."""
    for name, text in {"proc/self/cgroup": own, "proc/meminfo": f"MemTotal: {8 << 20} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_the_smallest_on_the_way_up_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/slurm/job_1/step"
    files = {
        f"{group}/memory.max": "max\n",
        f"{group}/memory.high": f"{4 * GIB}\n",
        "sys/fs/cgroup/slurm/job_1/memory.max": f"{3 * GIB}\n",
        "sys/fs/cgroup/slurm/memory.max": f"{6 * GIB}\n",
    }
    root = made(tmp_path, "0::/slurm/job_1/step\n", files)
    assert cgroup_limit_bytes(root) == 3 * GIB
    assert machine_memory_bytes(root) == 3 * GIB


def test_version_1(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = made(tmp_path, "5:devices:/docker/x\n4:cpu,memory:/docker/x\n0::/\n", files)
    assert machine_memory_bytes(root) == 2 * GIB


def test_in_a_container_the_path_may_be_the_hosts(tmp_path: Path) -> None:
    root = made(tmp_path, "0::/../../docker/x\n", {"sys/fs/cgroup/memory.max": f"{GIB}\n"})
    assert machine_memory_bytes(root) == GIB


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    root = made(tmp_path, "0::/a\n4:memory:/a\n", {"sys/fs/cgroup/a/memory.max": "max\n"})
    assert cgroup_limit_bytes(root) is None
    assert machine_memory_bytes(root) == 8 * GIB
    larger = made(tmp_path, "0::/a\n", {"sys/fs/cgroup/a/memory.max": f"{99 * GIB}\n"})
    assert machine_memory_bytes(larger) == 8 * GIB


def test_nonsense_is_no_limit(tmp_path: Path) -> None:
    root = made(tmp_path, "\n:::\nmemory\n0::/a\n", {"sys/fs/cgroup/a/memory.max": "lots\n"})
    assert cgroup_limit_bytes(root) is None


#: In a process of its own: in that of the tests, memory that others left is used again.
GROWTH = """
from distributed_core.measuring import process_memory_bytes
before = process_memory_bytes()
held = bytearray(b"x") * (64 << 20)
print(process_memory_bytes() - before)
"""


def test_this_machine_and_a_process() -> None:
    assert 0 < machine_memory_bytes() <= psutil.virtual_memory().total
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert 60_000_000 < int(done.stdout) < 90_000_000


def test_pages_of_a_file_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "array"
    np.ones(8 << 20).tofile(path)
    before = process_memory_bytes()
    mapped = np.memmap(path, np.float64, "c")
    assert mapped.sum() == 8 << 20
    assert process_memory_bytes() - before < 20_000_000
