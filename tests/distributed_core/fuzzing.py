"""Bad input: how much of it, and of which shapes.

`FUZZ_EXAMPLES=100` runs a hundred times as many inputs as by default, each run with others; 0.25 a quarter of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from distributed_core import messages

FACTOR = float(os.environ.get("FUZZ_EXAMPLES", "1"))


def inputs(count: int) -> Callable[[Any], Any]:
    """Let a test run with `count` inputs, or a multiple where the environment says so."""
    return settings(
        max_examples=max(1, int(count * FACTOR)),
        deadline=None,
        database=None,
        derandomize=FACTOR <= 1,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


floats = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, -1.0, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 5e-324])
)
integers = st.one_of(st.integers(-3, 12), st.sampled_from([-(2**63), 2**63, 2**64 - 1, 2**31]))
texts = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["", "a:1", "10.0.0.1:1", "10.0.0.2:1", "f-c3-1", "a\nb", "\0"]),
    st.builds(lambda: "x-c3-" + "9" * 5000),
    st.builds(lambda: "ß" * 300),
)


def _deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(1015):
        made = [made]
    return made


scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts, st.binary(max_size=8))
#: Whatever msgpack can bring: also a list in a list in a list that nobody could read who gets it a little deeper.
anything = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.one_of(st.text(max_size=3), integers), inner, max_size=3),
        ),
        max_leaves=6,
    ),
    st.builds(_deep),
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "int": integers,
    "str": texts,
    "bool": st.booleans(),
    "bytes": st.one_of(st.binary(max_size=8), st.just(b"digest")),
    "float": st.one_of(floats, integers),
    "dict[str, Any]": st.dictionaries(st.text(max_size=4), anything, max_size=3),
    "list[Any]": st.lists(anything, max_size=4),
    "list[int]": st.lists(st.one_of(integers, anything), max_size=4),
    "Payload": st.one_of(st.binary(max_size=4), st.lists(anything, max_size=2)),
    "list[Any] | None": st.one_of(st.none(), st.lists(anything, max_size=3)),
    "Payload | None": st.one_of(st.none(), st.binary(max_size=4), st.lists(anything, max_size=2)),
    "Any": anything,
}


def typed(word: type[Any], **better: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Messages of one word whose fields have the right types, and little sense."""
    fields = {
        name: better[name] if name in better else _FIELDS[str(getattr(field, "__forward_arg__", field))]
        for name, field in word.__annotations__.items()
    }
    return st.builds(word, **fields)


def fitting(*shape: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Lists of arrays that mostly have this shape."""
    good = st.tuples(*shape).map(list)
    return st.lists(st.one_of(good, good, good, anything), max_size=4)


numbers = st.lists(st.one_of(st.integers(0, 6), integers, st.booleans()), max_size=4)
keys = st.one_of(st.none(), st.sampled_from(["a", "b", "f-c3-1"]), texts)
payloads = _FIELDS["Payload"]
options = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "retries": st.one_of(integers, floats, anything),
            "resources": st.one_of(
                st.dictionaries(st.sampled_from(["GPU", "x"]), st.one_of(floats, integers)), anything
            ),
            "workers": st.one_of(st.lists(texts, max_size=2), anything),
            "loose": anything,
            "timeout_s": st.one_of(floats, integers, anything),
            "actor": st.booleans(),
        },
    ),
    anything,
)
tasks = fitting(
    st.one_of(st.integers(0, 6), integers, st.booleans()),
    keys,
    st.one_of(st.just(b"digest"), st.binary(max_size=3)),
    payloads,
    st.one_of(numbers, st.lists(anything, max_size=2)),
    integers,
    options,
)
small = st.integers(0, 9)
addresses = st.one_of(st.sampled_from(["", "10.0.0.1:1", "10.0.0.2:1"]), texts)
pairs = fitting(small, addresses)
FROM_CLIENT = st.one_of(
    typed(messages.Submission, functions=fitting(st.binary(max_size=3), texts, st.binary(max_size=3)), tasks=tasks),
    typed(messages.Submission, functions=st.just([[b"digest", "f", b"body"]]), tasks=tasks),
    typed(messages.Scattering, items=fitting(small, keys, integers)),
    typed(messages.Release, numbers=numbers),
    typed(messages.Cancellation, numbers=numbers),
    typed(messages.Complaint, items=pairs),
    typed(messages.Wish, items=fitting(small, texts)),
    typed(messages.Retrial, numbers=numbers),
    typed(messages.Vow, numbers=numbers),
)
FROM_WORKER = st.one_of(
    typed(messages.Completion, task=small, run=small),
    typed(messages.Failure, task=small, run=small),
    typed(messages.Rejection, task=small, run=small, absent=pairs, unreachable=pairs),
    typed(messages.Possession, items=fitting(small, integers)),
    typed(messages.Heartbeat),
    typed(messages.Heartbeat, metrics=st.fixed_dictionaries({"memory_bytes": anything})),
    typed(messages.Shortfall, absent=pairs, unreachable=pairs),
    typed(messages.Departure, run=small),
    typed(messages.Yielding, task=small, run=small),
    typed(messages.Secession, task=small, run=small),
    typed(messages.Return, task=small, run=small),
    typed(messages.Sacrifice),
    typed(messages.Stubbornness, run=small),
)
inputs_of_runs = fitting(small, integers, st.lists(st.one_of(addresses, anything), max_size=2))
FROM_SCHEDULER = st.one_of(
    typed(messages.FunctionBody, function=small),
    typed(messages.FunctionDisposal, functions=numbers),
    typed(messages.Assignment, task=small, run=small, function=small, inputs=inputs_of_runs),
    typed(messages.Assignment, task=small, run=small, function=small, inputs=inputs_of_runs, timeout_s=st.just(0.0)),
    typed(messages.Withdrawal, task=small, run=small),
    typed(messages.Recall, task=small, run=small),
    typed(messages.Acquisition, items=inputs_of_runs),
    typed(messages.Dismissal),
    typed(messages.Disposal, tasks=numbers),
)
#: Words that this one should never say, too.
ANY_WORD = st.sampled_from(messages.WORDS).flatmap(typed)
