"""`dscheduler`: the scheduler of a cluster, until it is told to end."""

from __future__ import annotations

import asyncio
import os

import click

from distributed_core.cli.quantities import Duration
from distributed_core.cli.running import (
    collect_when_small,
    complain,
    kept_file,
    on_end_signals,
    raise_open_files_limit,
    run_until_done,
)
from distributed_core.files import scheduler_file_text
from distributed_core.settings import DEFAULT_PORT


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default=None, help="Address to listen on, and to tell others; default: all interfaces.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one.")
@click.option("--scheduler-file", type=click.Path(dir_okay=False), help="Write here where the scheduler is.")
@click.option("--credential", type=click.Path(dir_okay=False), help="The cluster's credential; default: your own.")
@click.option("--insecure", is_flag=True, help="No TLS, no authentication: whoever reaches the port runs code.")
@click.option("--pid-file", type=click.Path(dir_okay=False), help="Write the process id here.")
@click.option(
    "--preload",
    multiple=True,
    metavar="MODULE[:FUNCTION]",
    help="Import a module, or a .py file, whose functions (or only that one) clients may call here; repeatable.",
)
@click.option(
    "--idle-timeout", type=Duration(), default=0.0, help="End the cluster after so long without work: 30m, 1h30m."
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write down what happens, without code and data, for `python -m distributed_core.sim replay FILE`.",
)
@click.option("--dashboard/--no-dashboard", default=True, help="Serve the dashboard (this release has none yet).")
def main(
    host: str | None,
    port: int,
    scheduler_file: str | None,
    credential: str | None,
    insecure: bool,
    pid_file: str | None,
    preload: tuple[str, ...],
    idle_timeout: float,
    record: str | None,
    dashboard: bool,
) -> None:
    """Start a scheduler. Workers connect to it with `dworker HOST:PORT`, programs with `Client("HOST:PORT")`."""

    async def run() -> int:
        from distributed_core.servers.scheduler import Scheduler

        if insecure:
            click.echo("dscheduler: --insecure: anybody who reaches this port can run code as you", err=True)
        scheduler = Scheduler(
            host=host,
            credential=credential,
            insecure=insecure,
            preload=preload,
            idle_timeout_s=idle_timeout,
            record=record,
        )
        raise_open_files_limit()
        scheduler.start(port)
        on_end_signals(lambda: asyncio.ensure_future(scheduler.close()))
        scheduler.background(collect_when_small(lambda: len(scheduler.machine.ledger.tasks)))
        named = scheduler_file_text(scheduler.identity(), _absolute(scheduler))
        with kept_file(pid_file, f"{os.getpid()}\n"), kept_file(scheduler_file, named):
            click.echo(f"Start scheduler at {scheduler.address}")
            code = await scheduler.finished()
        if scheduler.farewell:
            complain(scheduler.farewell)
        return code

    run_until_done(run)


def _absolute(scheduler: object) -> str | None:
    held = getattr(scheduler, "credential", None)
    return os.path.abspath(held.path) if held is not None else None


if __name__ == "__main__":
    main()
