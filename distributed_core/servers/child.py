"""What a nanny's process runs: one worker, which ends with its nanny.

    python -m distributed_core.servers.child FD

FD is its end of the socket pair: the options arrive there as a line of JSON, and the worker's news leave there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

from distributed_core.comm import loops


def main() -> None:
    """Run the worker until it closes, is asked to end, or its nanny is gone."""
    line = socket.socket(fileno=int(sys.argv[1]))
    # The tasks' own child processes must not hold the line open after both ends died.
    line.set_inheritable(False)
    # The nanny decides: a Ctrl-C at the terminal reaches every process of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    sys.exit(loops.run(_run(line)))


async def _run(line: socket.socket) -> int:
    from distributed_core.servers.logs import keep_informed
    from distributed_core.servers.worker import Worker

    keep_informed()
    line.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=line)
    options: dict[str, Any] = json.loads(await reader.readline())
    port = options.pop("port")

    def say(status: str, **more: Any) -> None:
        writer.write(json.dumps({"status": status, **more}).encode() + b"\n")

    worker = Worker(**options)

    def registered(each: Worker) -> None:
        stamps = each.welcome_details.get("plugins", {}).get("nanny", {})
        say("registered", address=each.address, scheduler=each.scheduler_id, plugins=stamps)

    worker.on_registered = registered
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(worker.close()))
    try:
        worker.start(port)
        nanny_gone = asyncio.ensure_future(reader.read())
        closed = asyncio.ensure_future(worker.finished())
        await asyncio.wait([nanny_gone, closed], return_when=asyncio.FIRST_COMPLETED)
        if not closed.done():
            worker.data.folder.close()
            os._exit(0)
        code = closed.result()
        reason = str(worker.failure) if worker.failure else ""
    except OSError as error:
        code, reason = 1, str(error)
    say("leaving", exit_code=code, reason=reason, restart=worker.restart_wanted)
    await writer.drain()
    # Threads of user code may run on; they must not hold up the end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
