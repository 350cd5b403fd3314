"""Fixtures for pytest: `light_cloud` (instances on paper) and `cloud` (instances that boot).

Tests that use `cloud` carry the mark `cloud` and run inside of a throw-away namespace:

    python -m moto_fixtures tests

Elsewhere they skip and say why; with DEC2_TESTCLOUD_REQUIRED=1 they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from moto_fixtures import host
from moto_fixtures.errors import TestCloudError

if TYPE_CHECKING:
    from moto_fixtures.cloud import TestCloud


def cannot_run() -> str | None:
    """Why tests with machines cannot run in this process, as one sentence; None if they can."""
    lacking = host.missing()
    if lacking:
        return f"This computer cannot carry the machines of the test cloud: {lacking}"
    from moto_fixtures.region import assert_isolated

    try:
        assert_isolated()
    except TestCloudError as error:
        return str(error)
    return None


def skip_or_fail(why: str) -> None:
    """Skip the test, or fail it where the machines are required."""
    if os.environ.get("DEC2_TESTCLOUD_REQUIRED") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture
def light_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestCloud]:
    """A fresh cloud with its instances on paper; boto3 in this process and in children finds it by the environment."""
    from moto_fixtures.cloud import TestCloud

    with TestCloud(machines=False) as opened:
        for name, value in opened.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        yield opened
        assert opened.failures() == []


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    """A cloud whose instances boot, shared by the tests of a module; the environment points at it meanwhile."""
    why = cannot_run()
    if why:
        skip_or_fail(why)
    from moto_fixtures.cloud import TestCloud

    with TestCloud() as opened, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in opened.environment().items():
            monkeypatch.setenv(name, value)
        yield opened
        assert opened.failures() == []
