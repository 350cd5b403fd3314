"""Collections of dask on real workers: each kind, kept on the cluster, mixed with futures, and their failures."""

from __future__ import annotations

import asyncio
import copy
import operator
import signal
import threading
import time
import traceback
from collections import OrderedDict
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.highlevelgraph import HighLevelGraph

from distributed_core import Client, Future, futures_of, wait
from distributed_core.errors import NotSerializable, TaskCancelled, UsageError
from tests.distributed_core.launching import Launcher

pytestmark = pytest.mark.process


def inc(x: int) -> int:
    return x + 1


def total(*args: Any) -> Any:
    return sum(args)


def divide(x: float, y: float) -> float:
    return x / y


def run_id(*args: Any) -> float:
    """Return something that no other run returns."""
    return time.time_ns() + len(args)


def frame(rows: int = 400, npartitions: int = 8) -> tuple[pd.DataFrame, Any]:
    plain = pd.DataFrame(
        {"key": [i % 17 for i in range(rows)], "value": range(rows), "text": [f"t{i % 5}" for i in range(rows)]}
    )
    return plain, dd.from_pandas(plain, npartitions=npartitions)


# --- graphs ---------------------------------------------------------------------------------------


def test_a_plain_graph(client: Client) -> None:
    graph = {
        "a": 1,
        "b": (inc, "a"),
        "c": (total, ["a", "b"], ["b"]),
        ("t", 0): (inc, "b"),
        "alias": ("t", 0),
        7: (inc, 1),
    }
    graph["c"] = (total, "a", "b", ("t", 0))
    assert client.get(graph, "c") == 6
    assert client.get(graph, ["c", [["b"], "alias"], ("t", 0), 7, "a"]) == [6, [[2], 3], 3, 2, 1]
    assert client.get(graph, []) == []
    assert client.get(HighLevelGraph.from_collections("layer", {"x": (inc, 1)}), "x") == 2


def test_nested_calls_containers_and_literals(client: Client) -> None:
    graph = {
        "one": 1,
        "nested": (sum, [(inc, (inc, "one")), "one", (total, 5, (inc, "one"))]),
        "dict": (dict, [["k", "one"], ["l", (inc, "one")]]),
        "list": ["one", (inc, "one"), {"plain": "one"}],
        "large": "x" * 5000,
        "length": (len, "large"),
    }
    assert client.get(graph, ["nested", "dict", "list", "length"]) == [
        11,
        {"k": 1, "l": 2},
        [1, 2, {"plain": "one"}],
        5000,
    ]


def test_names_that_differ_stay_apart(client: Client) -> None:
    names = [
        ("x", 1),
        "('x', 1)",
        "x",
        1,
        "1",
        b"x",
        ("x", ("y", 2)),
        1.5,
        np.int64(9),
        "(",
        ("x", np.int64(2)),
        ("x",),
    ]
    graph = {name: f"value {number}" for number, name in enumerate(names)}
    assert client.get(graph, names) == list(graph.values())
    calls = {("k", name): (str.upper, value) for name, value in graph.items()}
    assert client.get(calls, list(calls)) == [value.upper() for value in graph.values()]
    assert client.get({"y": (str.upper, ("x", 2)), **graph}, "y") == "VALUE 10"


def test_the_same_key_may_mean_something_else_in_the_next_graph(client: Client) -> None:
    for number in range(20):
        assert client.get({"x": (inc, number), "y": (inc, "x")}, ["y", "x"]) == [number + 2, number + 1]


def test_a_graph_of_100000_tasks_leaves_nothing(client: Client) -> None:
    n = 49_500
    graph: dict[Any, Any] = {("leaf-0a", i): (operator.add, i, 1) for i in range(n)}
    graph.update({("twice-0a", i): (operator.mul, ("leaf-0a", i), 2) for i in range(n)})
    graph.update({("part-0a", i): (sum, [("twice-0a", j) for j in range(i, i + 50)]) for i in range(0, n, 50)})
    graph["total"] = (sum, [("part-0a", i) for i in range(0, n, 50)])
    assert len(graph) > 99_990
    assert client.get(graph, "total") == n * (n + 1)
    deadline = time.monotonic() + 30
    while any(each["held"] for each in client.scheduler_info()["workers"].values()):
        assert time.monotonic() < deadline, client.scheduler_info()
    assert client._session.cells.by_number == {}


def test_a_long_chain(client: Client) -> None:
    graph = {"c0": 0, **{f"c{i}": (operator.add, f"c{i - 1}", 1) for i in range(1, 3000)}}
    assert client.get(graph, "c2999") == 2999


def test_graphs_that_make_no_sense(client: Client) -> None:
    with pytest.raises(UsageError, match="circle"):
        client.get({"a": (inc, "b"), "b": (inc, "a")}, "a")
    with pytest.raises(UsageError, match="circle"):
        client.get({"a": (inc, "a")}, "a")
    with pytest.raises(UsageError, match="alias of itself"):
        client.get({"a": "b", "b": "a"}, "a")
    with pytest.raises(UsageError, match="a graph or an expression"):
        client.get([1, 2], "a")
    with pytest.raises(UsageError, match="a key of a graph is"):
        client.get({frozenset([1]): (inc, 1)}, frozenset([1]))
    with pytest.raises(TaskCancelled, match="no task is named nowhere"):
        client.get({"a": (inc, 1)}, "nowhere")
    assert client.get({"a": (inc, 1)}, "a") == 2


def test_a_task_that_cannot_be_sent(client: Client) -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    with pytest.raises(NotSerializable, match="the task 'b' of this graph"):
        client.get({"a": (inc, 1), "b": (total, "a", lock)}, "b")
    call = dask.delayed(locked)
    with pytest.raises(NotSerializable, match="a function of the tasks locked"):
        dask.compute(call(1), call(2), scheduler=client)
    assert client.submit(inc, 1).result() == 2


# --- collections ----------------------------------------------------------------------------------


def test_arrays(client: Client) -> None:
    x = da.arange(200, chunks=20).reshape(20, 10)
    plain = np.arange(200).reshape(20, 10)
    np.testing.assert_array_equal((x + x.mean(axis=0)).compute(scheduler=client), plain + plain.mean(axis=0))
    assert (x.T @ x).sum().compute(scheduler=client) == (plain.T @ plain).sum()
    np.testing.assert_array_equal(x.rechunk((7, 3))[3:9, ::2].compute(scheduler=client), plain[3:9, ::2])
    r = da.random.default_rng(3).random((60, 60), chunks=20)
    first, second = dask.compute(r.std(), r.std(), scheduler=client)
    assert first == second
    np.testing.assert_array_equal(x.map_blocks(lambda block: block * 2).compute(scheduler=client), plain * 2)


def test_an_array_of_data_that_the_client_has(client: Client) -> None:
    plain = np.random.default_rng(1).random((300, 300))
    assert np.isclose(da.from_array(plain, chunks=100).sum().compute(scheduler=client), plain.sum())


def test_dataframes(client: Client) -> None:
    plain, df = frame()
    pd.testing.assert_series_equal(
        df.groupby("key").value.sum().compute(scheduler=client).sort_index(), plain.groupby("key").value.sum()
    )
    assert len(df[df.value > 100].compute(scheduler=client)) == 299
    assert df.set_index("value").loc[10:20].compute(scheduler=client).shape == (11, 2)


@pytest.mark.parametrize("inside", [False, True])
def test_shuffle_and_merge_go_by_tasks(client: Client, inside: bool) -> None:
    plain, df = frame()

    def compute(collection: Any) -> Any:
        if not inside:
            return collection.compute(scheduler=client)
        with client.as_current():
            return collection.compute()

    shuffled = compute(df.shuffle("key"))
    pd.testing.assert_frame_equal(shuffled.sort_values("value"), plain, check_dtype=False)
    other = dd.from_pandas(plain.rename(columns={"value": "other"}), npartitions=5)
    merged = compute(df.merge(other, on="key"))
    assert len(merged) == len(plain.merge(plain, on="key"))
    sizes = compute(df.groupby("text").apply(len, meta=("n", "i8")))
    assert sorted(sizes) == [80] * 5


def test_a_shuffle_by_disk_is_refused(client: Client) -> None:
    grouped = db.from_sequence(range(20), npartitions=4).groupby(lambda x: x % 3, shuffle="disk")
    with pytest.raises(UsageError, match="one machine's disk"):
        grouped.compute(scheduler=client)
    _, df = frame()
    parts = df.shuffle("key", shuffle_method="disk").to_delayed()
    with pytest.raises(UsageError, match="one machine's disk"):
        dask.compute(*parts, scheduler=client)


def test_bags(client: Client) -> None:
    bag = db.from_sequence(range(100), npartitions=7)
    assert bag.map(lambda x: x * 2).filter(lambda x: x % 3 == 0).sum().compute(scheduler=client) == 3366
    assert bag.take(3, compute=False).compute(scheduler=client) == [0, 1, 2]
    assert dict(bag.foldby(lambda x: x % 2, operator.add).compute(scheduler=client)) == {0: 2450, 1: 2500}
    with client.as_current():
        groups = dict(bag.groupby(lambda x: x % 3).compute())
    assert sorted(groups) == [0, 1, 2] and len(groups[0]) == 34


def test_delayed(client: Client) -> None:
    add = dask.delayed(operator.add)
    values = [add(i, 1) for i in range(50)]
    assert dask.delayed(sum)(values).compute(scheduler=client) == sum(range(1, 51))
    assert dask.compute({"a": values[0], "b": [values[1], (values[2], 5)]}, scheduler=client) == (
        {"a": 1, "b": [2, (3, 5)]},
    )
    point = dask.delayed(OrderedDict)([("x", values[3])])
    assert point["x"].compute(scheduler=client) == 4
    assert dask.delayed(lambda **kw: kw)(a=values[1], b=2).compute(scheduler=client) == {"a": 2, "b": 2}
    assert dask.delayed({1: values[0]}).compute(scheduler=client) == {1: 1}


def test_the_scheduler_of_the_configuration(client: Client) -> None:
    with dask.config.set(scheduler=client):
        assert da.ones(10, chunks=3).sum().compute() == 10
    with client.as_current() as same:
        assert same is client and Client.current() is client
        assert da.ones(10, chunks=3).sum().compute() == 10
        assert dask.base.get_scheduler().__self__ is client
        assert copy.deepcopy(dask.config.config)["scheduler"] is client
    assert dask.config.get("scheduler", None) is None


# --- compute, persist -----------------------------------------------------------------------------


def test_compute_gives_futures(client: Client) -> None:
    x = da.arange(10, chunks=5)
    d = dask.delayed(inc)(1)
    future = client.compute(x.sum())
    assert isinstance(future, Future) and future.result() == 45
    # Dask's optimizer changes the order of mixed collections.
    futures = client.compute([x.sum(), d, x.max(), 3, d])
    assert client.gather(futures) == [45, 2, 9, 3, 2]
    assert client.compute([x, [d, d]], sync=True)[1] == [2, 2]
    assert client.compute(x.sum(), sync=True, optimize_graph=False) == 45
    assert client.compute(5) == 5 and client.compute([]) == []


def test_persist(client: Client) -> None:
    stamp = dask.delayed(run_id)()
    x = da.from_delayed(dask.delayed(np.full)(4, stamp), (4,), dtype="i8")
    kept, same = client.persist([x + 1, x + 1])
    futures = futures_of(kept)
    assert len(futures) == 1 and isinstance(futures[0], Future)
    wait(futures)
    first = kept.sum().compute(scheduler=client)
    assert kept.sum().compute(scheduler=client) == first == same.sum().compute(scheduler=client)
    (alike,) = dask.persist(x + 1, scheduler=client)
    assert futures_of(alike)
    plain, df = frame()
    held = client.persist(df.shuffle("key"))
    assert len(futures_of(held)) == held.npartitions
    assert held.value.sum().compute(scheduler=client) == plain.value.sum()
    bag = client.persist(db.range(10, npartitions=2).map(inc))
    assert sorted(bag.compute(scheduler=client)) == list(range(1, 11))
    call = client.persist(dask.delayed(inc)(1))
    assert dask.delayed(inc)(call).compute(scheduler=client) == 3
    with pytest.raises(UsageError, match="persist takes collections"):
        client.persist([1])


def test_persisted_parts_are_not_computed_again(client: Client) -> None:
    graph = {"stamp": (run_id,), "one": (operator.add, "stamp", 1), "two": (operator.add, "stamp", 2)}
    (one,) = client.get(graph, ["one"], sync=False)
    (stamp,) = client.get(graph, ["stamp"], sync=False)
    value = stamp.result()
    assert client.get(graph, "two") == value + 2
    assert client.get(graph, "stamp") == value
    assert one.result() > 0
    del stamp
    assert client.get(graph, "stamp") != value


def test_normalize_collection(client: Client) -> None:
    stamp = dask.delayed(run_id)(1, dask_key_name="the-stamp")
    top = dask.delayed(inc)(stamp)
    assert client.normalize_collection(top) is top
    held = client.persist(stamp)
    normal = client.normalize_collection(top)
    assert any(type(each) is Future for each in normal.dask.values())
    assert normal.compute(scheduler=client) == held.compute(scheduler=client) + 1
    with pytest.raises(UsageError):
        client.normalize_collection(3)


def test_futures_of(client: Client) -> None:
    x = client.persist(da.ones(9, chunks=3))
    future = client.submit(inc, 1)
    call = dask.delayed(total)(future, [future, 2])
    assert len(futures_of([x, {"a": future}])) == 4
    assert [each.key for each in futures_of(call)] == [future.key]
    assert futures_of(da.ones(3)) == [] == client.futures_of(5)
    future.cancel()
    with pytest.raises(TaskCancelled):
        client.futures_of(future)


# --- futures inside -------------------------------------------------------------------------------


def test_futures_inside_collections(client: Client) -> None:
    two, three = client.submit(inc, 1), client.submit(inc, 2)
    assert isinstance(two, dask._task_spec.TaskRef) and type(two) is Future
    assert dask.delayed(total)(two, three).compute(scheduler=client) == 5
    assert dask.delayed(sum)([two, three, two]).compute(scheduler=client) == 7
    assert dask.delayed(dict)(a=two, b=[three]).compute(scheduler=client) == {"a": 2, "b": [3]}
    assert dask.delayed(two).compute(scheduler=client) == 2
    assert client.get({"x": two, "y": (operator.add, "x", three), "z": (sum, [two, "y"])}, ["x", "y", "z"]) == [2, 5, 7]
    block = client.submit(np.arange, 5)
    x = da.from_delayed(dask.delayed(block), (5,), dtype="i8")
    assert (x + 1).sum().compute(scheduler=client) == 15
    parts = client.map(lambda n: pd.DataFrame({"a": range(n)}), [2, 3])
    df = dd.from_delayed([dask.delayed(part) for part in parts], meta={"a": "i8"})
    assert df.a.sum().compute(scheduler=client) == 4
    (scattered,) = client.scatter([10])
    assert dask.delayed(operator.add)(scattered, two).compute(scheduler=client) == 12
    assert db.from_delayed([dask.delayed(client.submit(range, 4))]).sum().compute(scheduler=client) == 6


def test_futures_of_one_task_count_once(client: Client) -> None:
    two = client.submit(inc, 1)
    again = Future(two.key, client)
    assert client.submit(total, two, again).result() == 4
    assert dask.delayed(total)(two, again).compute(scheduler=client) == 4


def test_a_task_takes_a_collection_of_futures(client: Client) -> None:
    kept = client.persist(da.arange(6, chunks=2))
    assert client.submit(lambda blocks: int(sum(map(np.sum, blocks))), futures_of(kept)).result() == 15


def test_another_clients_data(client: Client, cluster: str) -> None:
    with Client(cluster) as other:
        kept = other.persist(da.arange(6, chunks=2))
        wait(futures_of(kept))
        assert kept.sum().compute(scheduler=client) == 15


# --- failures -------------------------------------------------------------------------------------


def test_a_failure_has_the_users_traceback(client: Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        dask.delayed(inc)(dask.delayed(divide)(1, 0)).compute(scheduler=client)
    frames = [each.name for each in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "divide"
    assert not any(each.filename.endswith("programs.py") for each in traceback.extract_tb(caught.value.__traceback__))
    with pytest.raises(ZeroDivisionError):
        dask.compute([dask.delayed(divide)(1, each) for each in (1, 0, 2)], scheduler=client)
    with pytest.raises(ZeroDivisionError):
        da.ones(6, chunks=2).map_blocks(lambda block: 1 // 0, dtype="f8").sum().compute(scheduler=client)
    assert client.compute(dask.delayed(divide)(1, 0)).exception().args == ("division by zero",)


def test_a_failure_is_not_waited_out(client: Client, tmp_path: Any) -> None:
    path = str(tmp_path / "go")
    with pytest.raises(ZeroDivisionError):
        client.get({"slow": (wait_for_file, path), "fast": (divide, 1, 0)}, ["slow", "fast"])
    open(path, "w").close()


def wait_for_file(path: str) -> None:
    import os

    while not os.path.exists(path):
        time.sleep(0.01)


def test_what_failed_may_be_tried_again(client: Client, tmp_path: Any) -> None:
    path = tmp_path / "data"
    graph = {"read": (read, str(path)), "more": (inc, "read")}
    with pytest.raises(FileNotFoundError):
        client.get(graph, "more")
    path.write_text("5")
    assert client.get(graph, "more") == 6


def read(path: str) -> int:
    with open(path) as file:
        return int(file.read())


# --- asynchronous ---------------------------------------------------------------------------------


def test_an_asynchronous_client(cluster: str) -> None:
    async def main() -> None:
        async with Client(cluster, asynchronous=True) as client:
            x = da.arange(10, chunks=5)
            assert await client.compute(x.sum()) == 45
            assert await client.compute([x.sum(), x.max()], sync=True) == [45, 9]
            assert await client.get({"x": (inc, 1)}, "x") == 2
            kept = client.persist(x)
            assert await client.compute(kept.sum()) == 45
            with pytest.raises(RuntimeError):
                x.compute(scheduler=client)
            with client.as_current():
                assert Client.current() is client

    asyncio.run(main())


def test_dask_in_a_task(launch: Launcher) -> None:
    def inner() -> Any:
        import dask.array as da

        from distributed_core import get_client

        return da.arange(10, chunks=5).sum().compute(scheduler=get_client())

    _, address = launch.scheduler()
    launch.worker(address, "--nthreads", "2")
    with Client(address) as client:
        assert client.submit(inner).result(timeout=60) == 45


def test_persisted_parts_of_a_lost_worker_are_computed_again(launch: Launcher) -> None:
    _, address = launch.scheduler()
    first = launch.worker(address, "--nthreads", "1", "--no-nanny")
    with Client(address) as client:
        kept = client.persist(da.arange(100, chunks=5) + 1)
        wait(futures_of(kept))
        launch.worker(address, "--nthreads", "1", "--no-nanny")
        first.end(signal.SIGKILL)
        assert kept.sum().compute(scheduler=client) == 5050
