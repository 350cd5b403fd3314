"""The Python API: a cluster as a context manager."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

from dec2 import apply
from dec2.engines import named
from dec2.errors import NoSuchCluster
from dec2.inventory import Inventory
from dec2.providers import opened
from dec2.spec import ClusterSpec


class Cluster:
    """A cluster: brought up on entry, destroyed on exit.

    Parameters
    ----------
    options
        The attributes of `ClusterSpec`, by name.

    Examples
    --------
    >>> with Cluster(name="quick", provider="local", count=3) as cluster:
    ...     client = cluster.client()
    ...     client.gather(client.map(abs, [-1, -2]))
    [1, 2]
    """

    def __init__(self, **options: Any) -> None:
        self.spec = ClusterSpec(**options)
        self.engine = named(self.spec.engine)
        self.provider = opened(self.spec.provider, self.spec.region)
        self._kept = contextlib.ExitStack()

    @property
    def name(self) -> str:
        return self.spec.name

    def up(self) -> apply.UpReport:
        """Bring the cluster up, or what is missing of it; return once all workers are registered.

        Raises
        ------
        NotRegistered, Dec2Error
            As `apply.bring_up`.
        """
        return apply.bring_up(self.spec, self.provider, self.engine, lambda node, phase: None)

    def status(self) -> Inventory:
        """Return what exists of the cluster."""
        return self.provider.observe(self.name)

    def client(self) -> Any:
        """Return the engine's client; what it needs to reach the scheduler stays up until `close`."""
        client = connected(self._kept, self.status(), self.provider, self.engine)
        self._kept.callback(client.close)
        return client

    def close(self) -> None:
        """Close clients, then destroy the cluster."""
        try:
            self._kept.close()
        finally:
            # A client that fails to close, as that of a dead scheduler may, must not keep instances running.
            apply.tear_down(self.name, self.provider, lambda text: None)

    def __enter__(self) -> Cluster:
        # An option that is wrong, or a lost connection, must not cost somebody a cluster that was there before.
        found = self.status().exists
        try:
            self.up()
        except BaseException:
            # Nobody gets a chance to destroy by hand what a context manager made.
            if not found:
                self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connected(kept: contextlib.ExitStack, inventory: Inventory, provider: Any, engine: Any) -> Any:
    """Return a client of a cluster; `kept` holds the way to it open."""
    if not inventory.exists:
        raise NoSuchCluster(
            f"there is no cluster {inventory.name} on {inventory.provider}; dec2 list shows what there is"
        )
    connection = kept.enter_context(provider.connection(inventory))
    return engine.connect(connection.address, connection.credential, direct=connection.direct)
