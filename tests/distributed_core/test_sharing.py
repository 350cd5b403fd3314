"""Datasets, metadata and events: what clients share by name."""

from __future__ import annotations

import gc
import logging
import threading
import warnings
from typing import Any

import pytest

import distributed_core
from distributed_core import Client, get_worker
from distributed_core.errors import UsageError

pytestmark = pytest.mark.process


def inc(x: int) -> int:
    return x + 1


def speak(word: str) -> str:
    distributed_core.print("hello", word, sep="-", end="!\n")
    distributed_core.warn(f"beware of {word}")
    get_worker().log_event(["spoken", "all"], {"word": word})
    logging.getLogger("speaker").warning("it said %s", word)
    return word


def test_datasets_outlive_who_published_them(client: Client, cluster: str) -> None:
    with Client(cluster, timeout=20, set_as_default=False) as other:
        other.publish_dataset({"a": other.submit(inc, 1), "b": [other.submit(inc, 2), 7]}, name="numbers")
        other.publish_dataset(x=other.submit(inc, 5), y="plain")
        with pytest.raises(UsageError, match="published already"):
            other.publish_dataset(1, name="numbers")
        other.publish_dataset(other.submit(inc, 6), name="x", override=True)
        for wrong in ({}, {"name": "nothing"}):
            with pytest.raises(UsageError, match="publish_dataset"):
                other.publish_dataset(**wrong)
    gc.collect()
    found = client.get_dataset("numbers")
    assert client.gather(found) == {"a": 2, "b": [3, 7]}
    assert client.datasets["x"].result(timeout=20) == 7
    assert set(client.list_datasets()) == set(client.datasets) == {"numbers", "x", "y"}
    assert client.get_dataset("none", default=3) == 3
    with pytest.raises(KeyError):
        client.get_dataset("none")
    for name in list(client.datasets):
        del client.datasets[name]
    with pytest.raises(KeyError):
        client.unpublish_dataset("x")
    assert len(client.datasets) == 0


def test_metadata(client: Client) -> None:
    client.set_metadata("plain", 1)
    client.set_metadata(["deep", "er"], {"x": [1, 2]})
    assert client.get_metadata("plain") == 1
    assert client.get_metadata(["deep", "er", "x"]) == [1, 2]
    assert client.get_metadata("deep") == {"er": {"x": [1, 2]}}
    assert client.get_metadata(["no"], default=None) is None
    with pytest.raises(KeyError):
        client.get_metadata(["no"])
    with pytest.raises(UsageError, match="nothing can be below"):
        client.set_metadata(["plain", "below"], 1)


def test_what_tasks_say_arrives_here(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Any] = []
    enough = threading.Event()

    def hear(event: tuple[float, Any]) -> None:
        heard.append(event)
        enough.set()

    client.subscribe_topic("spoken", hear)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert client.submit(speak, "world").result(timeout=20) == "world"
        assert enough.wait(20)
    assert heard[0][1] == {"word": "world"}
    assert "hello-world!" in capsys.readouterr().out
    events = client.get_events("spoken")
    assert [said for _, said in events] == [{"word": "world"}]
    assert client.get_events()["all"][0][1] == {"word": "world"}
    client.log_event("spoken", "by a client")
    while len(heard) < 2:
        enough.wait(0.01)
    assert heard[1][1] == "by a client"
    client.unsubscribe_topic("spoken")
    with pytest.raises(UsageError, match="did not subscribe"):
        client.unsubscribe_topic("spoken")
    with pytest.raises(UsageError, match="something to call"):
        client.subscribe_topic("spoken", 3)  # type: ignore[arg-type]


def test_logs_are_forwarded(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.forward_logging("speaker", level=logging.WARNING)
    client.submit(speak, "forwarded").result(timeout=20)
    while "it said forwarded" not in caplog.text:
        client.scheduler_info()
    client.unforward_logging("speaker")
    assert [record.name for record in caplog.records if "forwarded" in record.getMessage()] == ["speaker"]
