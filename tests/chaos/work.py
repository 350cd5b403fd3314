"""Work with known answers: functions that run on the workers, and jobs that submit them and know what must come."""

from __future__ import annotations

import os
import random
import select
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed_core import Client, Future, as_completed, get_client
from distributed_core.errors import EngineError, KilledWorker, TaskCancelled, TaskTimeout

MARKS = "CHAOS_MARKS"
PLANT = "CHAOS_PLANT"


class WrongResult(Exception):
    """A job's result is not what it must be."""


# --- what runs on the workers -------------------------------------------------------------------------


def rest(seconds: float) -> None:
    """Sleep; `time.sleep` fails under libfaketime (0.9.10, EINVAL from clock_nanosleep)."""
    select.select([], [], [], seconds)


def add(*values: int) -> int:
    rest(0.002)
    if os.environ.get(PLANT) == "wrong-value" and random.random() < 0.02:
        return sum(values) + 1
    return sum(values)


def increased(value: int) -> int:
    return value + 1


def block(seed: int, nbytes: int) -> bytes:
    return seed.to_bytes(8, "little") * (nbytes // 8)


def checksum(*blocks: bytes) -> int:
    return sum(zlib.crc32(each) for each in blocks)


def sleeper(value: int, seconds: float) -> int:
    rest(seconds)
    return value


def fanned_out(width: int) -> int:
    """A task that submits tasks."""
    client = get_client()
    return sum(client.gather(client.map(increased, range(width))))


def failing(value: int) -> int:
    raise ArithmeticError(f"fails by design: {value}")


def failing_at_first(name: str, times: int, value: int) -> int:
    if _count(name) <= times:
        raise ArithmeticError("fails at first, by design")
    return value


def deadly_at_first(name: str, value: int) -> int:
    if _count(name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def deadly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count(name: str) -> int:
    """Return how often it was called for a name, on all hosts."""
    file = Path(os.environ[MARKS]) / name
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, b"x")
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


# --- jobs: each submits, waits, and raises WrongResult or what it did not expect; returns how many tasks ----


def expect(found: Any, right: Any) -> None:
    if found != right:
        raise WrongResult(f"{found!r:.80} instead of {right!r:.80}")


def expect_error(future: Future, kind: type[BaseException]) -> None:
    error = future.exception()
    if error is None:
        raise WrongResult(f"{future.result()!r:.60} instead of a {kind.__name__}")
    if type(error) is not kind:
        raise error


def chain(client: Client, dice: random.Random) -> int:
    length = dice.randrange(10, 40)
    future = client.submit(add, 0, 1)
    for _ in range(length):
        future = client.submit(add, future, 1)
    expect(future.result(), length + 1)
    return length + 1


def tree(client: Client, dice: random.Random) -> int:
    level = client.map(add, range(64), [1] * 64)
    count = 64
    while len(level) > 1:
        level = [client.submit(add, one, other) for one, other in zip(level[::2], level[1::2], strict=True)]
        count += len(level)
    expect(level[0].result(), sum(range(64)) + 64)
    return count


def all_to_all(client: Client, dice: random.Random) -> int:
    seed, width, nbytes = dice.randrange(1 << 20), dice.randrange(4, 8), 1 << dice.randrange(10, 19)
    parts = client.map(block, range(seed, seed + width), [nbytes] * width)
    sums = [client.submit(checksum, *parts) for _ in range(width)]
    expect(client.gather(sums), [checksum(*(block(seed + k, nbytes) for k in range(width)))] * width)
    return 2 * width


def big(client: Client, dice: random.Random) -> int:
    seed, nbytes = dice.randrange(1 << 20), 4 << 20
    parts = client.map(block, range(seed, seed + 4), [nbytes] * 4)
    total = client.submit(checksum, *parts)
    expect(total.result(), checksum(*(block(seed + k, nbytes) for k in range(4))))
    expect(parts[2].result() == block(seed + 2, nbytes), True)
    return 5


def spilled(client: Client, dice: random.Random) -> int:
    seed, nbytes, count = dice.randrange(1 << 20), 8 << 20, 32
    parts = client.map(block, range(seed, seed + count), [nbytes] * count)
    sums = client.map(checksum, parts)
    expect(client.gather(sums), [checksum(block(seed + k, nbytes)) for k in range(count)])
    return 2 * count


def flood(client: Client, dice: random.Random) -> int:
    first = dice.randrange(1000)
    expect(client.gather(client.map(increased, range(first, first + 1000))), list(range(first + 1, first + 1001)))
    return 1000


def one_by_one(client: Client, dice: random.Random) -> int:
    futures = client.map(add, range(100), [7] * 100)
    expect(sorted(value for _, value in as_completed(futures, with_results=True)), [k + 7 for k in range(100)])
    return 100


def inside(client: Client, dice: random.Random) -> int:
    widths = [dice.randrange(2, 20) for _ in range(4)]
    expect(client.gather(client.map(fanned_out, widths)), [sum(range(1, width + 1)) for width in widths])
    return 4 + sum(widths)


def slow(client: Client, dice: random.Random) -> int:
    futures = [client.submit(sleeper, k, dice.uniform(0.1, 1.0)) for k in range(8)]
    expect(client.submit(add, *futures).result(), sum(range(8)))
    return 9


def resources(client: Client, dice: random.Random) -> int:
    futures = [client.submit(add, k, 1, resources={"GPU": 1}) for k in range(10)]
    expect(client.gather(futures), [k + 1 for k in range(10)])
    return 10


def fails(client: Client, dice: random.Random) -> int:
    future = client.submit(failing, dice.randrange(1000))
    later = client.submit(add, future, 1)
    expect_error(future, ArithmeticError)
    expect_error(later, ArithmeticError)
    return 2


def retries(client: Client, dice: random.Random) -> int:
    name, value = f"retry-{dice.getrandbits(64):x}", dice.randrange(1000)
    expect(client.submit(failing_at_first, name, 2, value, retries=2).result(), value)
    return 1


def times_out(client: Client, dice: random.Random) -> int:
    expect_error(client.submit(sleeper, 1, 20, timeout=0.3), TaskTimeout)
    return 1


def scattered(client: Client, dice: random.Random) -> int:
    seed = dice.randrange(1 << 20)
    parts = client.scatter([block(seed + k, 1 << 16) for k in range(6)])
    sums = client.map(checksum, parts)
    expect(client.gather(sums), [checksum(block(seed + k, 1 << 16)) for k in range(6)])
    return 12


def cancelled(client: Client, dice: random.Random) -> int:
    futures = [client.submit(sleeper, k, 1.0) for k in range(12)]
    rest(dice.uniform(0, 0.3))
    client.cancel(futures)
    for k, future in enumerate(futures):
        try:
            expect(future.result(), k)
        except TaskCancelled:
            pass
    return 12


def kills_once(client: Client, dice: random.Random) -> int:
    name, value = f"deadly-{dice.getrandbits(64):x}", dice.randrange(1000)
    expect(client.submit(deadly_at_first, name, value).result(), value)
    return 1


def kills(client: Client, dice: random.Random) -> int:
    expect_error(client.submit(deadly), KilledWorker)
    return 1


#: Jobs by weight, and workers that each kills by design.
JOBS: dict[str, tuple[Callable[[Client, random.Random], int], float, int]] = {
    "chain": (chain, 6, 0),
    "tree": (tree, 6, 0),
    "all-to-all": (all_to_all, 6, 0),
    "big": (big, 4, 0),
    "spilled": (spilled, 0.7, 0),
    "flood": (flood, 2, 0),
    "one-by-one": (one_by_one, 4, 0),
    "slow": (slow, 4, 0),
    "inside": (inside, 1.5, 0),
    "resources": (resources, 3, 0),
    "fails": (fails, 2, 0),
    "retries": (retries, 3, 0),
    # A thread that waits in a system call cannot be interrupted: its process is ended after the grace.
    "times-out": (times_out, 1, 1),
    "scattered": (scattered, 4, 0),
    "cancelled": (cancelled, 2, 0),
    "kills-once": (kills_once, 0.7, 1),
    "kills": (kills, 0.15, 4),
}


def verdict(job: str, error: BaseException) -> tuple[str, str, str]:
    """Return ("wrong" or "error", the kind of error, its sentence)."""
    kind = "wrong" if isinstance(error, WrongResult) else "error"
    where = "" if isinstance(error, EngineError | WrongResult) else " (not an error of the engine)"
    return kind, type(error).__name__, f"{error}{where}"
