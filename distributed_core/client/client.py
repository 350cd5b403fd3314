"""The client: one class, blocking or asynchronous over the same session."""

from __future__ import annotations

from distributed_core.client.data import DataCalls
from distributed_core.client.operations import ClusterCalls
from distributed_core.client.tasks import TaskCalls


class Client(TaskCalls, DataCalls, ClusterCalls):
    """Submits functions to a cluster and gets futures.

    Parameters
    ----------
    address
        HOST:PORT of the scheduler; the port may be left out.
    scheduler_file
        Instead of the address, the file that `dscheduler --scheduler-file` wrote.
    timeout
        Seconds to look for the scheduler.
    credential
        The path of the cluster's credential; by default what the scheduler file names, else the user's own.
    insecure
        The scheduler runs with `--insecure`.
    direct
        Whether bulk data goes straight to the workers (True), through the scheduler (False, for a client behind an SSH
        tunnel), or straight where a worker can be reached (None).
    asynchronous
        Methods that wait return coroutines; the client lives on the running loop. Use `await` or `async with`.

    Raises
    ------
    ConnectError, CredentialRefused
        The scheduler cannot be reached, or does not accept the credential.

    Examples
    --------
    >>> with Client("127.0.0.1:8786") as client:
    ...     client.gather(client.map(abs, [-1, -2]))
    [1, 2]
    """


def get_client() -> Client:
    """Return the client that was opened last and is not closed; see `Client.current`."""
    return Client.current()
