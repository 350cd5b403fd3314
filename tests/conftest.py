"""What all tests share: no test reaches the user's home, an account, or the network beyond loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["moto_fixtures.plugin"]

os.environ.update(
    AWS_EC2_METADATA_DISABLED="true",
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_DEFAULT_REGION="us-east-1",
    # The loop that everybody has; `test_loops` tries the other one.
    DISTRIBUTED_CORE_EVENT_LOOP="asyncio",
)


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Credentials and state of the tests live in a home of their own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        patch.delenv("DISTRIBUTED_CORE_CREDENTIAL", raising=False)
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield home
