"""House rules that a machine can hold: sizes, names, error trees, lazy imports."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("distributed_core", "dec2", "moto_fixtures")
LINES_MAX, FUNCTION_LINES_MAX = 500, 70
VAGUE = {"utils", "core", "common", "misc", "helpers"}
#: An engine's file is named after the engine.
NAMED_SO = {"dec2/engines/core.py"}


def sources() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_files_and_functions_stay_small() -> None:
    large = [name for name, text in sources() if text.count("\n") > LINES_MAX]
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno > FUNCTION_LINES_MAX
    ]
    assert (large, long) == ([], [])


def test_one_word_per_idea() -> None:
    places = defaultdict(list)
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {word: where for word, where in places.items() if len(where) > 1} == {}
    vague = [name for name, _ in sources() if Path(name).stem in VAGUE and name not in NAMED_SO]
    assert vague == []


@pytest.mark.parametrize("package", ["distributed_core", "dec2"])
def test_the_error_tree_is_drawn(package: str) -> None:
    module = importlib.import_module(f"{package}.errors")
    classes = {
        name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert set(module.__all__) == classes
    for name in classes:
        assert name in (module.__doc__ or "")
        assert getattr(module, name).__doc__


#: Who may look at the clock on the wall, which jumps: for people and for certificates, never to decide.
WALL_CLOCKS = {
    "distributed_core/comm/credential.py generate": "from when to when a certificate is valid",
    "distributed_core/servers/extensions/news.py _log_event": "when an event was, for people",
    "distributed_core/servers/extensions/questions.py __init__": "since when the scheduler runs, for people",
}
WALL = {
    "time": {"time", "time_ns", "ctime", "asctime", "localtime", "gmtime", "strftime", "CLOCK_REALTIME", "CLOCK_TAI"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "path": {"getmtime", "getctime", "getatime"},
    "uuid": {"uuid1"},
}
#: Of whatever: when a file was written is the wall's time too.
WALL_FIELDS = {"st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "st_atime", "st_atime_ns"}


def wall_clocks(name: str, text: str) -> Iterator[str]:
    """Yield the file and the function of each look at the clock on the wall."""
    tree = ast.parse(text)
    functions = [each for each in ast.walk(tree) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in ast.walk(tree):
        found = False
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            found = node.attr in WALL.get(owner, ()) or node.attr in WALL_FIELDS
        elif isinstance(node, ast.ImportFrom):
            found = any(each.name in WALL.get(node.module or "", ()) for each in node.names)
        if found:
            around = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
            yield f"{name} {around[-1].name if around else node.lineno}"


def test_only_monotonic_clocks_decide() -> None:
    used = {
        place for name, text in sources() if name.startswith("distributed_core/") for place in wall_clocks(name, text)
    }
    assert used == set(WALL_CLOCKS)


@pytest.mark.parametrize(
    "text",
    [
        "import time\ndef f(): return time.time()",
        "from time import time",
        "import datetime\nx = datetime.datetime.now()",
        "from datetime import datetime\nx = datetime.utcnow",
        "import time\nx = time.clock_gettime(time.CLOCK_REALTIME)",
        "import os\nx = os.path.getmtime('x')",
        "from pathlib import Path\nx = Path('x').stat().st_mtime",
        "from uuid import uuid1",
    ],
)
def test_a_wall_clock_is_found(text: str) -> None:
    assert len(list(wall_clocks("x.py", text))) == 1
    fine = "import time\nx = time.monotonic()\nfrom time import perf_counter, CLOCK_BOOTTIME"
    assert list(wall_clocks("x.py", fine)) == []


def test_importing_costs_nothing() -> None:
    code = "import sys, distributed_core, dec2; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("tornado", "boto3", "paramiko", "rich", "msgpack", "cryptography", "distributed'"):
        assert heavy not in loaded


def test_every_public_name_is_there() -> None:
    for package in ("distributed_core", "dec2"):
        module = importlib.import_module(package)
        for name in module.__all__:
            assert getattr(module, name).__doc__
        with pytest.raises(AttributeError):
            _ = module.no_such_name
