"""What the commands share: one line for an error, a clean end on signals, files written whole."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from distributed_core.comm import loops
from distributed_core.errors import EngineError, UsageError
from distributed_core.files import write_whole
from distributed_core.servers.logs import keep_informed

EXIT_FAILED = 1
EXIT_USAGE = 2
COLLECT_INTERVAL_S = 10.0
COLLECT_OBJECTS_MAX = 10_000


def end(code: int) -> NoReturn:
    """End the process at once: threads of user code may run on and must not hold it up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def complain(error: BaseException | str) -> None:
    """Say in one line what went wrong."""
    click.echo(f"{Path(sys.argv[0]).name}: {error}", err=True)


def raise_open_files_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_until_done(main: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run the coroutine function `main` and end the process with what it returns.

    An `EngineError` becomes one line on stderr: wrong usage ends with 2, everything else with 1.
    """
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.WARNING)
    keep_informed()
    # What was imported stays; collecting it again and again only costs pauses.
    gc.collect()
    gc.freeze()

    async def run() -> int:
        return await main()

    code = EXIT_FAILED
    try:
        code = loops.run(run())
    except UsageError as error:
        complain(error)
        code = EXIT_USAGE
    except EngineError as error:
        complain(error)
    except KeyboardInterrupt:
        code = 0
    end(code)


async def collect_when_small(objects: Callable[[], int]) -> None:
    """Let the collector look at older objects only while there are few: a million would stop the loop for a second.

    The records of a machine need no collector, they are taken apart by hand; what does is little, and can wait. What is
    young is looked at all the time, a few thousand at once: that finds most of it.

    Parameters
    ----------
    objects
        Returns how many records there are.
    """
    gc.set_threshold(4_000, 1_000_000, 1_000_000)
    while True:
        await asyncio.sleep(COLLECT_INTERVAL_S)
        if objects() < COLLECT_OBJECTS_MAX:
            gc.collect()


def on_end_signals(action: Callable[[], Any]) -> None:
    """Call `action` on the loop when SIGTERM or Ctrl-C comes; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    came = 0

    def act() -> None:
        nonlocal came
        came += 1
        if came > 1:
            end(EXIT_FAILED)
        action()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)


@contextmanager
def kept_file(path: str | None, text: str) -> Iterator[None]:
    """Have a file while the command runs, and take it away afterwards if it is still ours."""
    if path is None:
        yield
        return
    write_whole(path, text)
    try:
        yield
    finally:
        with suppress(OSError):
            if Path(path).read_text(encoding="utf-8") == text:
                os.unlink(path)
