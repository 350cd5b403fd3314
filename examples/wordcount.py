"""Count the words and identifiers in the source files of this machine's Python standard library.

    dec2 run examples/wordcount.py

Batches of files are counted on the workers, the counts are added up in a tree on the workers too, and only the total
comes back. Then the same is done without a cluster, and both must agree.
"""

import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

from distributed_core import get_client

WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9]*")
BATCHES_PER_WORKER = 2
FAN_IN = 4


def count_files(paths):
    """Return how often each word occurs in these files."""
    counts = Counter()
    for path in paths:
        counts.update(WORD.findall(Path(path).read_bytes()))
    return counts


def add_up(parts):
    """Return the sum of several counts."""
    total = Counter()
    for part in parts:
        total.update(part)
    return total


def source_files():
    """Return the standard library's source files, without what was installed beside it."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = (path for path in folder.rglob("*.py") if path.is_file())
    return sorted(
        str(path) for path in files if "site-packages" not in path.parts and "dist-packages" not in path.parts
    )


def main():
    client = get_client()
    files = source_files()
    nbytes = sum(Path(path).stat().st_size for path in files)
    workers = client.scheduler_info()["workers"]
    print(f"{len(files):,} files, {nbytes / 1e6:.1f} MB, on {len(workers)} workers")

    start = time.perf_counter()
    # Every n-th file: large and small ones are mixed, so that the batches take about as long as each other.
    count = BATCHES_PER_WORKER * len(workers)
    batches = [files[first::count] for first in range(count)]
    parts = client.map(count_files, batches)
    while len(parts) > 1:
        parts = [client.submit(add_up, parts[first : first + FAN_IN]) for first in range(0, len(parts), FAN_IN)]
    counted = parts[0].result()
    cluster_s = time.perf_counter() - start

    start = time.perf_counter()
    expected = count_files(files)
    serial_s = time.perf_counter() - start

    print(f"\n{'word':<16}{'times':>10}")
    for word, times in counted.most_common(10):
        print(f"{word.decode():<16}{times:>10,}")
    print(f"\n{sum(counted.values()):,} words, {len(counted):,} different ones")
    print(f"cluster {cluster_s:.2f} s, serial {serial_s:.2f} s")
    if counted != expected:
        print("the cluster's count differs from the serial one", file=sys.stderr)
        sys.exit(1)
    print("both counts agree")


if __name__ == "__main__":
    main()
