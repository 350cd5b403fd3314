"""Text to quantities, and what differs between versions: pure functions."""

from __future__ import annotations

import pytest

from distributed_core.errors import UsageError
from distributed_core.measuring import machine_memory_bytes
from distributed_core.quantities import (
    checked_resources,
    memory_share_bytes,
    parse_duration,
    parse_environment,
    parse_resources,
)
from distributed_core.versions import differences, own_versions, warning_at_connect


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30 s", 30), ("5m", 300), ("1h30m", 5400), ("1 hour 30 minutes", 5400), ("250ms", 0.25), ("90", 90), (3, 3)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "5 5", "1h30", "-3s", "5 parsecs", -1, float("inf"), None, "s", "1h s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="write a number of seconds"):
        parse_duration(text)


def test_memory() -> None:
    total = machine_memory_bytes()
    assert memory_share_bytes("4GB", 3) == 4 * 10**9
    assert memory_share_bytes("512MiB", 1) == 512 << 20
    assert memory_share_bytes("2e9", 1) == 2 * 10**9
    assert memory_share_bytes("0.5", 2) == total // 2
    assert memory_share_bytes("auto", 2) == total // 2
    assert memory_share_bytes(0, 2) == memory_share_bytes(None, 2) == 0
    with pytest.raises(UsageError, match="no amount of memory"):
        memory_share_bytes("much", 1)


def test_resources() -> None:
    assert parse_resources("GPU=2 MEM=100e9") == {"GPU": 2.0, "MEM": 100e9}
    assert parse_resources("GPU=2,MEM=1") == {"GPU": 2.0, "MEM": 1.0}
    assert checked_resources({"GPU": 2}) == {"GPU": 2.0}
    for text in ("", "GPU", "=2", "GPU=-1", "GPU=nan", "GPU=x", "GPU=1 GPU=2"):
        with pytest.raises(UsageError, match="resource"):
            parse_resources(text)
    for given in ([], "GPU=2", {"GPU": -1}, {"GPU": "2"}, {"": 1}, {1: 1}, {"GPU": float("inf")}, {"GPU": True}):
        with pytest.raises(UsageError, match="resources are names"):
            checked_resources(given)


def test_environments() -> None:
    assert parse_environment(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for part in ("A", "=1", "A B=1", "1A=2"):
        with pytest.raises(UsageError, match="NAME=VALUE"):
            parse_environment([part])


def test_own_versions_are_those_of_what_is_imported() -> None:
    import cloudpickle
    import numpy

    own = own_versions()
    assert own["numpy"] == numpy.__version__
    assert own["cloudpickle"] == cloudpickle.__version__
    assert "distributed_core" in own


def test_what_differs_is_named_with_who_has_it() -> None:
    here = {"python": "3.11.2", "numpy": "2.1.0", "msgpack": "1.1"}
    scheduler = {"python": "3.12.0", "numpy": "1.0", "msgpack": "1.0"}
    worker = {"python": "3.11.9", "numpy": "2.0.0", "msgpack": "1.1"}
    assert differences(here, [("a", dict(here), True)]) == []
    python, msgpack, numpy = differences(here, [("the scheduler", scheduler, False), ("a", worker, True)])
    assert python.startswith("python 3.11.2 here, 3.12.0 on the scheduler (which does no harm")
    assert msgpack == "msgpack 1.1 here, 1.0 on the scheduler"
    assert numpy == "numpy 2.1.0 here, 2.0.0 on a"
    (text,) = differences(here, [("a", {"python": "3.10.1"}, True), ("b", {"python": "3.10.1"}, True)])
    assert "3.10.1 on a, b (pickled functions of one minor version of Python break on another)" in text


def test_what_one_side_lacks_is_no_difference() -> None:
    assert differences({"python": "3.11.2"}, [("a", {"python": "3.11.2", "numpy": "2.0"}, True)]) == []
    assert warning_at_connect({}) is None
    assert warning_at_connect({"versions": own_versions(), "workers": [[own_versions(), ["a"], 1]]}) is None
    text = warning_at_connect({"workers": [[{"python": "3.2.1"}, ["a", "b"], 7]]})
    assert text is not None
    assert "3.2.1 on 7 workers (a, b, ...)" in text
