"""joblib on the cluster."""

from __future__ import annotations

import os
from typing import Any

import joblib
import numpy as np
import pytest

import distributed_core.joblib
from distributed_core import Client
from distributed_core.errors import UsageError

pytestmark = pytest.mark.process


def square(x: int) -> int:
    return x * x


def pid(_: int) -> int:
    return os.getpid()


def fail_at(x: int) -> int:
    if x == 7:
        raise ValueError(f"no {x}")
    return x


def dot(data: Any, factor: int) -> float:
    return float(data.sum()) * factor


def nested(x: int) -> int:
    return sum(joblib.Parallel()(joblib.delayed(square)(each) for each in range(x)))


def test_calls_run_on_the_workers(client: Client) -> None:
    with joblib.parallel_config(backend="distributed_core"):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(100)) == [x * x for x in range(100)]
        pids = set(joblib.Parallel(batch_size=1)(joblib.delayed(pid)(x) for x in range(20)))
    assert os.getpid() not in pids
    with joblib.parallel_backend("distributed_core", client=client):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_results_as_they_come(client: Client) -> None:
    with joblib.parallel_config(backend="distributed_core"):
        found = joblib.Parallel(return_as="generator_unordered")(joblib.delayed(square)(x) for x in range(10))
        assert sorted(found) == [x * x for x in range(10)]


def test_errors_come_back_and_the_next_call_works(client: Client) -> None:
    with joblib.parallel_config(backend="distributed_core"):
        with pytest.raises(ValueError, match="no 7"):
            joblib.Parallel()(joblib.delayed(fail_at)(x) for x in range(50))
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_large_arguments_are_brought_once(client: Client) -> None:
    data = np.ones(200_000)
    with joblib.parallel_config(backend="distributed_core", scatter=[data]):
        found = joblib.Parallel()(joblib.delayed(dot)(data, factor) for factor in range(5))
    assert found == [200_000.0 * factor for factor in range(5)]
    with pytest.raises(UsageError, match="scatter"), joblib.parallel_config(backend="distributed_core", scatter=3):
        pass


def test_parallel_calls_inside_parallel_calls(client: Client) -> None:
    with joblib.parallel_config(backend="distributed_core"):
        expected = [sum(x * x for x in range(n)) for n in range(6)]
        assert joblib.Parallel()(joblib.delayed(nested)(n) for n in range(6)) == expected


def test_n_jobs(client: Client) -> None:
    backend = distributed_core.joblib.ClusterBackend(client)
    assert backend.effective_n_jobs(-1) == 2
    assert backend.effective_n_jobs(1) == 1
    assert backend.effective_n_jobs(-2) == 1
    assert backend.effective_n_jobs(50) == 2
    with pytest.raises(ValueError, match="n_jobs"):
        backend.effective_n_jobs(0)
