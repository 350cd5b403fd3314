"""What a script, its neighbours or an interactive session define, travels; and workers share no random state."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_core import Client, wait
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process

DEFINITIONS = """
import dataclasses, enum, functools

FACTOR = 10

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

@dataclasses.dataclass
class Point:
    x: int
    y: int = 0

    def doubled(self):
        return Point(2 * self.x, 2 * self.y)

class Base:
    def name(self):
        return "base"

class Derived(Base):
    def name(self):
        return "derived of " + super().name()

class Oops(Exception):
    def __init__(self, number, text):
        super().__init__(number, text)
        self.number = number

def times(x):
    return x * FACTOR

def indirectly(x):
    return times(x) + 1

def adder(n):
    def add(x):
        return x + n
    return add

def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)

def fail(n):
    raise Oops(n, "on purpose")

def paint(colour):
    return Colour.BLUE if colour is Colour.RED else colour

square = lambda x: x * x
"""

USES = """
def check(client, m):
    assert client.submit(m.times, 2).result() == 20
    assert client.submit(m.indirectly, 2).result() == 21
    assert client.submit(m.adder(5), 2).result() == 7
    assert client.submit(m.square, 7).result() == 49
    assert client.submit(m.recursive, 5).result() == 120
    assert client.submit(functools.partial(pow, 2), 5).result() == 32
    assert client.submit(functools.partial(m.times), 2).result() == 20
    point = client.submit(m.Point, 3, y=4).result()
    assert type(point) is m.Point and point == m.Point(3, 4), type(point)
    assert client.submit(m.Point.doubled, m.Point(1, 2)).result() == m.Point(2, 4)
    assert client.submit(m.Point(5, 6).doubled).result() == m.Point(10, 12)
    assert client.submit(m.paint, m.Colour.RED).result() is m.Colour.BLUE
    assert client.submit(lambda each: each.name(), m.Derived()).result() == "derived of base"
    assert client.submit(len, [m.Point(1), m.Point(2)]).result() == 2
    assert client.gather(client.map(lambda p: p.x, [m.Point(1), m.Point(2)])) == [1, 2]
    assert client.submit(m.Point.doubled, client.scatter(m.Point(7, 8))).result() == m.Point(14, 16)
    assert client.submit(map_here, m.times, [1, 2]).result() == [10, 20]
    error = client.submit(m.fail, 3).exception()
    assert type(error) is m.Oops and error.number == 3, repr(error)
    with client.get_executor() as executor:
        assert list(executor.map(m.times, [1, 2, 3], chunksize=2)) == [10, 20, 30]

def map_here(function, values):
    return [function(each) for each in values]
"""

OPEN = "import functools, sys\nfrom distributed_core import Client\nclient = Client(sys.argv[1] or None, timeout=20)\n"


def run(folder: Path, *argv: str, text: str | None = None) -> str:
    found = subprocess.run(
        [sys.executable, *argv], cwd=folder, input=text, capture_output=True, text=True, check=False, timeout=90
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_from_a_script(cluster: str, tmp_path: Path) -> None:
    here = "import sys as _sys\ncheck(client, _sys.modules['__main__'])\nclient.close()\nprint('well')\n"
    (tmp_path / "script.py").write_text(DEFINITIONS + OPEN + USES + here)
    assert run(tmp_path, "script.py", cluster) == "well\n"


def test_from_a_scripts_neighbours(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text(DEFINITIONS)
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "__init__.py").write_text("from family.member import *\n")
    (tmp_path / "family" / "member.py").write_text(DEFINITIONS)
    (tmp_path / "nameless" / "inner").mkdir(parents=True)
    (tmp_path / "nameless" / "inner" / "deep.py").write_text(DEFINITIONS)
    (tmp_path / "script.py").write_text(
        OPEN
        + USES
        + "import neighbour, family, nameless.inner.deep\n"
        + "for each in (neighbour, family, nameless.inner.deep):\n    check(client, each)\n"
        + "import late\ncheck(client, late)\nclient.close()\nprint('well')\n"
    )
    (tmp_path / "late.py").write_text(DEFINITIONS)
    assert run(tmp_path, "script.py", cluster) == "well\n"


def test_from_a_package_that_is_run(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").touch()
    (tmp_path / "parcel" / "defined.py").write_text(DEFINITIONS)
    (tmp_path / "parcel" / "__main__.py").write_text(
        OPEN + USES + "from . import defined\ncheck(client, defined)\nclient.close()\nprint('well')\n"
    )
    assert run(tmp_path, "-m", "parcel", cluster) == "well\n"


def test_from_an_interactive_session(cluster: str, tmp_path: Path) -> None:
    """Function by function as one types, with an empty line after each."""
    opened = OPEN.replace("sys.argv[1] or None", repr(cluster))
    typed = DEFINITIONS.strip().replace("\n\n    def", "\n    def").replace("    return add\n", "    return add\n\n")
    uses = USES.strip()
    last = "import types\n\nprint((check(client, sys.modules['__main__']), 'well')[1])\n"
    out = run(tmp_path, "-q", "-i", text="\n".join([opened, typed, "", uses, "", last]))
    assert "well" in out


def test_a_redefined_function_is_the_new_one(client: Client) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("k = 2\nhas = [1]\ndef inner(x): return x * k\ndef outer(x): return inner(x)\n", scope)
    exec("def lengths(x): return len(has)\n", scope)
    assert client.submit(scope["outer"], 5).result(timeout=20) == 10
    exec("k = 3", scope)
    assert client.submit(scope["outer"], 5).result(timeout=20) == 15
    exec("def inner(x): return -x", scope)
    assert client.submit(scope["outer"], 5).result(timeout=20) == -5
    assert client.submit(scope["lengths"], 0).result(timeout=20) == 1
    scope["has"].append(2)
    assert client.submit(scope["lengths"], 0).result(timeout=20) == 2

    count = 1

    def counted() -> int:
        return count

    assert client.submit(counted).result(timeout=20) == 1
    count = 2
    assert client.submit(counted).result(timeout=20) == 2


def test_a_function_is_sent_once_and_not_kept_alive(client: Client) -> None:
    def make() -> Any:
        def recursive(n: int) -> int:
            return n if n < 1 else recursive(n - 1)

        return recursive

    recursive = make()
    for _ in range(3):
        assert client.submit(recursive, 3).result(timeout=20) == 0
    digest, _, functions = client._function(recursive)
    assert functions == []
    assert client._function(recursive)[0] == digest
    gone = weakref.ref(recursive)
    del recursive
    gc.collect()
    assert gone() is None


# --- random state ---------------------------------------------------------------------------------


def draw(rounds: int) -> list[Any]:
    numbers = [random.random() for _ in range(rounds)]
    return [os.getpid(), *numbers, float(np.random.rand()), float(np.random.default_rng().random())]


def test_workers_share_no_random_state(launch: Launcher) -> None:
    _, address = launch.scheduler()
    launch.start("dworker", address, "--nprocs", "3", "--nthreads", "1")
    with Client(address, timeout=20) as client:
        client.wait_for_workers(3, timeout=60)
        futures: list[Any] = []
        # Until each worker had some of them.
        while len({future.result()[0] for future in futures}) < 3:
            futures += client.map(draw, [2] * 30)
            wait(futures, timeout=60)
        drawn = [number for future in futures for number in future.result()[1:]]
        assert len(set(drawn)) == len(drawn)
