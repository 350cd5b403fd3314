"""`dworker`: one or more workers, each in a process of its own under a nanny."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from distributed_core.cli.quantities import Duration, EnvironmentVariable, MemorySize, Resources
from distributed_core.cli.running import complain, on_end_signals, run_until_done
from distributed_core.comm.address import Address, format_address, parse_address
from distributed_core.errors import AddressError, ConnectError, CredentialError
from distributed_core.quantities import memory_share_bytes, parse_environment
from distributed_core.settings import DEFAULT_PORT

if TYPE_CHECKING:
    from distributed_core.servers.nanny import Nanny
    from distributed_core.servers.worker import Worker


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    address: str | None
    nthreads: int
    nprocs: int
    name: str | None
    host: str | None
    worker_port: int
    nanny: bool
    memory_limit: str
    scheduler_file: str | None
    credential: str | None
    insecure: bool
    death_timeout: float
    reconnect_timeout: float
    local_directory: str | None
    resources: dict[str, float] | None
    env: tuple[str, ...]
    preload: tuple[str, ...]
    preload_nanny: tuple[str, ...]
    lifetime: float
    lifetime_stagger: float
    lifetime_restart: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("address", metavar="[HOST:PORT]", required=False)
@click.option(
    "--nthreads", type=click.IntRange(0, 10_000), default=0, help="Threads per process; default: cores / processes."
)
@click.option("--nprocs", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Worker processes.")
@click.option("--name", help="A name of its own in the cluster; several processes get -0, -1, ... after it.")
@click.option("--host", help="Address to listen on, and to tell others; default: the one that leads to the scheduler.")
@click.option(
    "--worker-port", type=click.IntRange(0, 65535), default=0, help="Port of the worker; default: any free one."
)
@click.option("--nanny/--no-nanny", default=True, help="Run each worker in a process that is restarted when it dies.")
@click.option(
    "--memory-limit",
    type=MemorySize(),
    default="auto",
    show_default=True,
    help="Per process: 4GB, 0.5 of what there is, auto for an equal share of it, 0 for no limit.",
)
@click.option("--scheduler-file", type=click.Path(dir_okay=False), help="Find the scheduler by the file it wrote.")
@click.option("--credential", type=click.Path(dir_okay=False), help="The cluster's credential; default: your own.")
@click.option("--insecure", is_flag=True, help="The scheduler runs with --insecure.")
@click.option(
    "--death-timeout", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds to look for it."
)
@click.option(
    "--reconnect-timeout",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds to look for it when it was lost; results and running tasks are kept meanwhile.",
)
@click.option(
    "--local-directory",
    type=click.Path(file_okay=False),
    help="Where workers keep files, and results beyond their memory.",
)
@click.option("--resources", type=Resources(), help='What tasks may ask for: "GPU=2 MEM=100e9".')
@click.option("--env", type=EnvironmentVariable(), multiple=True, help="Set in the workers' environment; repeatable.")
@click.option(
    "--preload", multiple=True, metavar="MODULE", help="Import a module, or a .py file, in each worker; repeatable."
)
@click.option(
    "--preload-nanny",
    multiple=True,
    metavar="MODULE",
    help="Import a module, or a .py file, in each nanny; repeatable.",
)
@click.option("--lifetime", type=Duration(), default=0.0, help="Retire and end after so long: 12h, 1h30m.")
@click.option("--lifetime-stagger", type=Duration(), default=0.0, help="Up to so long earlier or later, at random: 5m.")
@click.option("--lifetime-restart", is_flag=True, help="Start another worker after the lifetime.")
def main(**options: Any) -> None:
    """Start workers that take their tasks from the scheduler at HOST:PORT."""
    chosen = Options(**options)
    if chosen.address is None and chosen.scheduler_file is None:
        raise click.UsageError("name the scheduler: dworker HOST:PORT, or dworker --scheduler-file FILE")
    if chosen.nprocs > 1 and chosen.worker_port:
        raise click.UsageError("several processes cannot share one --worker-port; leave it out")
    if chosen.nprocs > 1 and not chosen.nanny:
        raise click.UsageError("several processes need their nannies; leave --no-nanny out")
    if not chosen.nanny and (chosen.env or chosen.preload_nanny or chosen.lifetime_restart):
        raise click.UsageError("--env, --preload-nanny and --lifetime-restart need a nanny; leave --no-nanny out")
    if chosen.name is not None and not chosen.name.strip():
        raise click.UsageError("--name is empty; write one, or leave it out")
    if not (chosen.death_timeout >= 0 and chosen.reconnect_timeout >= 0):
        raise click.UsageError("--death-timeout and --reconnect-timeout are numbers; write seconds")
    if chosen.lifetime_stagger > chosen.lifetime:
        raise click.UsageError("--lifetime-stagger is longer than --lifetime; make it shorter")
    if chosen.lifetime_restart and not chosen.lifetime:
        raise click.UsageError("--lifetime-restart says nothing without --lifetime; say how long workers live")
    if chosen.address is not None:
        try:
            parse_address(chosen.address, DEFAULT_PORT)
        except AddressError as error:
            raise click.UsageError(str(error)) from None
    run_until_done(lambda: _run(chosen))


async def _run(options: Options) -> int:
    address, credential, insecure = await _find(options)
    servers = [_make(options, number, address, credential, insecure) for number in range(options.nprocs)]
    waiting = {id(server) for server in servers}

    def registered(server: Any) -> None:
        if id(server) in waiting:
            waiting.discard(id(server))
            click.echo(f"Start worker at: {getattr(server, 'worker_address', None) or server.address}")
            click.echo(f"Registered with center at: {format_address(address)}")

    def stop() -> None:
        for server in servers:
            server.background(server.close())

    for server in servers:
        server.on_registered = registered
        server.start(0 if options.nanny else options.worker_port)
    on_end_signals(stop)
    codes = await asyncio.gather(*(server.finished() for server in servers))
    for failure in dict.fromkeys(str(server.failure) for server in servers if server.failure):
        complain(failure)
    return max(codes)


def _make(options: Options, number: int, address: Address, credential: str | None, insecure: bool) -> Worker | Nanny:
    from distributed_core.servers.nanny import Nanny
    from distributed_core.servers.worker import Worker

    name = options.name
    if name and options.nprocs > 1:
        name = f"{name}-{number}"
    common: dict[str, Any] = {
        "host": options.host,
        "credential": credential,
        "insecure": insecure,
        "nthreads": options.nthreads or max(1, (os.cpu_count() or 1) // options.nprocs),
        "name": name,
        "death_timeout_s": options.death_timeout,
        "reconnect_timeout_s": options.reconnect_timeout,
        "memory_limit_bytes": memory_share_bytes(options.memory_limit, options.nprocs),
        "local_directory": options.local_directory,
        "resources": options.resources,
        "preload": options.preload,
        "lifetime_s": options.lifetime,
        "lifetime_stagger_s": options.lifetime_stagger,
        "lifetime_restart": options.lifetime_restart,
    }
    if not options.nanny:
        return Worker(address.host, address.port, **common)
    return Nanny(
        address.host,
        address.port,
        worker_port=options.worker_port,
        env=parse_environment(options.env),
        preload_nanny=options.preload_nanny,
        **common,
    )


async def _find(options: Options) -> tuple[Address, str | None, bool]:
    """Return the scheduler's address, credential and whether it is insecure; wait for the scheduler file."""
    if options.scheduler_file is None:
        return parse_address(options.address or "", DEFAULT_PORT), options.credential, options.insecure
    from distributed_core.client.locating import read_scheduler_file

    loop = asyncio.get_running_loop()
    deadline = loop.time() + options.death_timeout
    while True:
        try:
            named = read_scheduler_file(options.scheduler_file)
            break
        except CredentialError as error:
            if os.path.exists(options.scheduler_file):
                raise
            if loop.time() >= deadline:
                text = f"no scheduler file {options.scheduler_file} within {options.death_timeout:g} s"
                raise ConnectError(f"{text}; start dscheduler --scheduler-file there") from error
        await asyncio.sleep(0.05)
    address = parse_address(options.address or named["address"], DEFAULT_PORT)
    insecure = options.insecure or bool(named.get("insecure"))
    return address, options.credential or named.get("credential"), insecure


if __name__ == "__main__":
    main()
