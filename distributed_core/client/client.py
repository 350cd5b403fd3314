"""The client: one class, blocking or asynchronous over the same session."""

from __future__ import annotations

import threading

from distributed_core.client.data import DataCalls
from distributed_core.client.graphs import GraphCalls
from distributed_core.client.operations import ClusterCalls
from distributed_core.client.sharing import SharingCalls
from distributed_core.client.tasks import TaskCalls
from distributed_core.comm.address import format_address
from distributed_core.context import away, context

#: Two tasks that ask at once get one client.
_making = threading.Lock()


class Client(GraphCalls, TaskCalls, DataCalls, SharingCalls, ClusterCalls):
    """Submits functions to a cluster and gets futures.

    Parameters
    ----------
    address
        HOST:PORT of the scheduler; the port may be left out. Or a `LocalCluster`. Without one, and without a scheduler
        file, a `LocalCluster` is started and ends with the client.
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
    set_as_default
        Whether `get_client()` and dask's collections find this client.
    weight
        Its share of the workers where several clients have tasks ready: 3.0 gets three times what 1.0 gets.
    reconnect_timeout
        Seconds to look for a scheduler whose connection was lost, or for another one at its address. Once there is one,
        unfinished futures go on, and what workers kept is not run again; after that time they fail with
        `SchedulerLost`. 0: they fail at once. A scheduler that was ended in good order is not looked for.
    cluster_options
        For the `LocalCluster` of a client without an address: `n_workers`, `threads_per_worker`, ...

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
    """Return the client of this place: inside a task the worker's own, elsewhere the one that was opened last.

    Raises
    ------
    UsageError
        There is none.
    """
    worker = context.worker
    if worker is None:
        return Client.current()
    client: Client | None = worker.client
    if client is not None and not client._closed and not client._session.closed:
        return client
    # Who waits here keeps no seat that the one who makes it may need.
    with away(), _making:
        client = worker.client
        if client is None or client._closed or client._session.closed:
            credential = worker.credential
            client = worker.client = Client(
                format_address(worker.scheduler_address),
                credential=credential.path if credential else None,
                insecure=credential is None,
                set_as_default=False,
            )
            # What tasks print is for the users' clients.
            for topic in ("print", "warn"):
                client._session.listeners.pop(topic, None)
    return client
