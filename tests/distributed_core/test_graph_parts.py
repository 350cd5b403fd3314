"""What becomes of a graph before it leaves: names, programs, annotations, and what is sent in which order."""

from __future__ import annotations

import operator
import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from dask.base import collections_to_expr
from hypothesis import given
from hypothesis import strategies as st

from distributed_core import Client
from distributed_core.client.annotating import Annotations
from distributed_core.client.compiling import Compiler, stateless
from distributed_core.client.names import key_of, name_of
from distributed_core.errors import UsageError
from distributed_core.messages import Release, Submission
from distributed_core.protocol.programs import GraphCall, GraphProgram

# --- names ----------------------------------------------------------------------------------------

parts = st.one_of(st.text(max_size=8), st.integers(), st.binary(max_size=4), st.floats(allow_nan=False), st.booleans())
keys = st.recursive(parts, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


@given(keys, keys)
def test_names_are_as_different_as_keys(one: Any, other: Any) -> None:
    assert key_of(name_of(one)) == one
    assert (name_of(one) == name_of(other)) == (one == other)


def test_names_that_people_read() -> None:
    assert name_of("inc-123") == "inc-123"
    assert name_of(("x-123", 0, 1)) == "('x-123', 0, 1)"
    assert name_of(("x",)) == "('x',)"
    assert name_of(()) == "()"
    assert name_of(3) == "(3)"
    assert key_of("(no name of ours") == "(no name of ours"
    for wrong in (None, ["x"], ("x", object()), frozenset()):
        with pytest.raises(UsageError):
            name_of(wrong)


# --- programs -------------------------------------------------------------------------------------


def inc(x: int) -> int:
    return x + 1


def run(node: Any, values: dict[Any, Any] | None = None, shared: int = 1) -> Any:
    """Compile a node, send it there and back, and run it without its graph."""
    compiler = Compiler((values or {}).__getitem__)
    compiler.survey([node] * shared)
    work = compiler.work(node)
    made: Any = GraphCall("name", work.functions[0]) if work.plain else GraphProgram("name", work.functions)
    made, args, kwargs = pickle.loads(cloudpickle.dumps((made, work.args, work.kwargs)))
    assert made.__name__ == "name"
    return made(*args, **kwargs)


def test_a_call_is_a_plain_call() -> None:
    work = Compiler({"x": 5}.__getitem__).work(Task("k", inc, TaskRef("x")))
    assert work == ((inc,), (5,), {}, True, True)
    assert run(Task("k", sum, List(TaskRef("x"), 2)), {"x": 5}) == 7
    assert run(Task("k", dict, a=TaskRef("x"), b=Task(None, inc, TaskRef("x"))), {"x": 5}) == {"a": 5, "b": 6}


def test_calls_inside_calls_are_steps() -> None:
    inner = Task(None, inc, Task(None, inc, TaskRef("x")))
    assert run(Task("k", operator.add, inner, List(1).args[0]), {"x": 1}) == 4
    assert run(Task("k", sum, List(inner, DataNode(None, 4), Alias("x"))), {"x": 1}) == 8
    assert run(dask._task_spec.Dict({"a": inner, TaskRef("x"): 2}), {"x": 1}) == {"a": 3, 1: 2}
    assert run(Alias("k", "x"), {"x": [1]}) == [1]
    assert run(DataNode("k", (1, 2))) == (1, 2)


@pytest.mark.parametrize("shared", [1, 2])
def test_fused_tasks_are_programs(shared: int) -> None:
    first = Task("a", inc, TaskRef("x"))
    second = Task("b", operator.mul, TaskRef("a"), TaskRef("a"))
    third = Task(
        "c", lambda b, a, *, more: b + a + more, TaskRef("b"), TaskRef("y"), more=Task(None, inc, TaskRef("b"))
    )
    fused = Task.fuse(first, second, third)
    assert fused({"x": 2, "y": 100}) == 119
    assert run(fused, {"x": 2, "y": 100}, shared) == 119
    twice = Task.fuse(fused, Task("d", inc, TaskRef("c")))
    assert run(twice, {"x": 2, "y": 100}, shared) == 120


def test_a_program_lets_go_of_what_it_does_not_need_any_more() -> None:
    class Block:
        alive = 0

        def __init__(self) -> None:
            Block.alive += 1

        def __del__(self) -> None:
            Block.alive -= 1

    def following(block: Any) -> tuple[int, Block]:
        del block
        return Block.alive, Block()

    tasks = [Task("0", following, 0)]
    tasks += [Task(str(i), following, TaskRef(str(i - 1))) for i in range(1, 30)]
    work = Compiler({}.__getitem__).work(Task.fuse(*tasks))
    alive, _ = GraphProgram("name", work.functions)(*work.args)
    assert alive <= 2


def test_functions_as_arguments_travel_with_the_functions() -> None:
    offset = 10
    node = Task("k", map, lambda x: x + offset, List(TaskRef("x"), 2))
    work = Compiler({"x": 1}.__getitem__).work(node)
    assert len(work.functions) == 2
    assert list(GraphProgram("map", work.functions)(*work.args)) == [11, 12]
    pickle.dumps(work.args)


class Model:
    """Fitted in place, as models are."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def fit(self, x: int) -> Model:
        self.seen.append(x)
        return self

    def __call__(self, x: int) -> Model:
        return self.fit(x)

    @classmethod
    def make(cls) -> Model:
        return cls()


def test_functions_with_objects_are_not_shared() -> None:
    model = Model()
    for own in (model.fit, model, partial(inc, model), partial(model.fit, 1), [].append, partial(inc, [model])):
        assert not stateless(own), own
    dtypes = partial(np.sum, dtype=np.dtype("f8"), axis=(0, 1), key=inc)
    for shared in (inc, sum, Model, Model.make, operator.add, operator.itemgetter(1), np.add, np.sum, dtypes):
        assert stateless(shared), shared
    work = Compiler({}.__getitem__).work(Task("k", model.fit, 1))
    assert not work.shared
    work = Compiler({}.__getitem__).work(Task("k", map, model.fit, [1]))
    assert work.shared and work.functions == (map,)


@pytest.mark.process
def test_each_task_has_its_own_object(client: Client) -> None:
    model = Model()
    fitted = dask.compute(*[dask.delayed(model.fit)(i) for i in range(20)], scheduler=client)
    assert [each.seen for each in fitted] == [[i] for i in range(20)]


class OddTask(Task):
    """A kind of task that only its own class can run."""

    __slots__ = ()

    def __call__(self, values: Any = ()) -> Any:
        return "odd", super().__call__(values)


def test_unknown_kinds_of_tasks_run_themselves() -> None:
    work = Compiler({"x": 5}.__getitem__).work(OddTask("k", inc, TaskRef("x")))
    assert work.functions[0](*work.args, **work.kwargs) == ("odd", 6)


# --- annotations ----------------------------------------------------------------------------------


def options_of(collection: Any, optimize_graph: bool = True, **everywhere: Any) -> dict[str, Any]:
    """Return the options and the priority of all tasks by the first word of their keys."""
    expression = collections_to_expr([collection], optimize_graph).optimize()
    annotations = Annotations(expression, everywhere)
    graph = dask._task_spec.convert_legacy_graph(dict(expression.__dask_graph__()))
    return {
        dask.utils.key_split(key): annotations.options(key, node)
        for key, node in graph.items()
        if not isinstance(node, Alias)
    }


def test_annotations_of_delayed_calls() -> None:
    with dask.annotate(priority=5, retries=2, workers=["alice"], allow_other_workers=True):
        x = dask.delayed(inc)(1)
    y = dask.delayed(operator.neg)(x)
    made = options_of(y)
    assert made["inc"] == ({"workers": ["alice"], "loose": True, "retries": 2}, 5)
    assert made["neg"] == (None, 0)


@pytest.mark.parametrize("optimize_graph", [True, False])
def test_annotations_of_arrays_survive_fusion(optimize_graph: bool) -> None:
    with dask.annotate(resources={"GPU": 1}, workers="alice"):
        x = da.ones((4, 4), chunks=2)
    with dask.annotate(retries=3, resources={"GPU": 2, "RAM": 5}):
        y = x + 1
    made = options_of(y.sum(), optimize_graph)
    if optimize_graph:
        whole = {"workers": ["alice"], "retries": 3, "resources": {"GPU": 2.0, "RAM": 5.0}}
        assert whole in [options for options, _ in made.values()]
    else:
        assert made["ones"] == ({"workers": ["alice"], "resources": {"GPU": 1.0}}, 0) if "ones" in made else True
        assert made["add"] == ({"retries": 3, "resources": {"GPU": 2.0, "RAM": 5.0}}, 0)
    assert made["sum-aggregate"] == (None, 0)


def test_annotations_by_key_and_for_all() -> None:
    with dask.annotate(priority=lambda key: key[1] * 10):
        x = da.ones(6, chunks=2) + 1
    expression = collections_to_expr([x], False).optimize()
    annotations = Annotations(expression, {"retries": 1, "priority": 3})
    (key,) = (key for key in x.__dask_keys__() if key[1] == 2)
    assert annotations.options(key, None) == ({"retries": 1}, 20)
    assert annotations.options("another", None) == ({"retries": 1}, 3)
    by_key = Annotations(None, {"priority": lambda key: len(key)})
    assert by_key.options("four", None) == (None, 4)


def test_annotations_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="whole number"):
        Annotations(None, {"priority": 1.5})
    assert Annotations(None, {"priority": 2.0}).options("x", None) == (None, 2)
    with dask.annotate(workers=["alice"]):
        x = da.ones(4, chunks=2)
    with dask.annotate(workers=["bob"]):
        y = x + 1
    with pytest.raises(UsageError, match="optimize_graph=False"):
        options_of(y)


# --- what is sent ---------------------------------------------------------------------------------


@pytest.fixture
def sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The messages that leave the client."""
    messages: list[Any] = []
    channel: Any = client._session._channel
    send = channel.send

    def record(message: Any) -> None:
        messages.append(message)
        send(message)

    monkeypatch.setattr(channel, "send", record)
    return messages


def tasks_in(messages: list[Any]) -> list[Any]:
    return [task for message in messages if type(message) is Submission for task in message.tasks]


@pytest.mark.process
def test_tasks_leave_in_order_and_are_released(client: Client, sent: list[Any]) -> None:
    twice = dask.delayed(lambda x: x * 2)
    leaves = [twice(i) for i in range(2500)]
    total = dask.delayed(sum)([dask.delayed(sum)(leaves[i : i + 50]) for i in range(0, 2500, 50)])
    assert total.compute(scheduler=client) == 2499 * 2500
    tasks = tasks_in(sent)
    assert len(tasks) == 2551
    known: dict[int, None] = {}
    freed: dict[int, None] = {}
    for message in sent:
        if type(message) is Submission:
            for number, _, _, _, inputs, _, _ in message.tasks:
                assert all(each in known and each not in freed for each in inputs)
                known[number] = None
        elif type(message) is Release:
            freed.update(dict.fromkeys(message.numbers))
    # All but the result were released before it was there.
    assert len(freed) >= 2550
    # One function for each prefix, with what is the same for all its tasks: little is left for each.
    functions = [each for message in sent if type(message) is Submission for each in message.functions]
    assert sorted(name for _, name, _ in functions)[0] == "lambda" and len(functions) <= 4
    sizes = [len(task[3]) for task in tasks if not task[4]]
    assert max(sizes) < 60


@pytest.mark.process
def test_only_what_is_needed_leaves(client: Client, sent: list[Any]) -> None:
    graph = {"a": (inc, 1), "b": (inc, "a"), "c": (inc, "a"), "d": (inc, 3), "one": 1, "e": (operator.add, "b", "one")}
    assert client.get(graph, "e") == 4
    assert sorted(task[1] for task in tasks_in(sent)) == ["a", "b", "e"]


@pytest.mark.process
def test_annotations_leave_with_the_tasks(client: Client, sent: list[Any]) -> None:
    with dask.annotate(retries=2, priority=7):
        x = dask.delayed(inc)(1)
    y = dask.delayed(operator.neg)(x)
    assert y.compute(scheduler=client, retries=1, priority=3) == -2
    assert {task[1].partition("-")[0]: task[5:] for task in tasks_in(sent)} == {
        "inc": [7, {"retries": 2}],
        "neg": [3, {"retries": 1}],
    }
    sent.clear()
    with dask.annotate(retries=5):
        assert client.compute(dask.delayed(inc)(4)).result() == 5
    assert [task[6] for task in tasks_in(sent)] == [{"retries": 5}]
    with pytest.raises(UsageError, match="retries"):
        client.persist(y, retries="many")


# --- dask stays out -------------------------------------------------------------------------------


def test_a_client_does_not_import_dask() -> None:
    code = (
        "import sys, distributed_core.client.client, distributed_core.client.future as f\n"
        "future = f.Future.__new__(f.Future)\n"
        "assert isinstance(future, f.Future) and future.__class__ is f.Future\n"
        "assert not {'dask', 'numpy', 'pandas'} & set(sys.modules)\n"
        "from dask._task_spec import TaskRef\n"
        "assert isinstance(future, TaskRef) and isinstance(future, f.Future) and not isinstance(future, str)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
