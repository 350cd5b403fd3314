"""`python -m distributed_core`: questions to a running server, and new credentials.

python -m distributed_core identity HOST:PORT     what it is, and its workers, as JSON
python -m distributed_core credential FILE        make a new credential
"""

from __future__ import annotations

import json
import sys

import click

from distributed_core.errors import EngineError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Ask a running scheduler, worker or nanny; make credentials."""


@main.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--credential", type=click.Path(dir_okay=False), help="The cluster's credential; default: your own.")
@click.option("--insecure", is_flag=True, help="The server runs with --insecure.")
@click.option("--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds to wait.")
def identity(address: str, credential: str | None, insecure: bool, timeout: float) -> None:
    """Print what the server at HOST:PORT is as one JSON object."""
    from distributed_core.calls import rpc

    try:
        remote = rpc(address, credential=credential, insecure=insecure, timeout_s=timeout)
        click.echo(json.dumps(remote.identity()))
    except (EngineError, TimeoutError) as error:
        click.echo(f"distributed_core: {error}", err=True)
        sys.exit(1)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False))
def credential(file: str) -> None:
    """Write a new credential to FILE, readable by you only."""
    from distributed_core.comm.credential import write_new

    try:
        made = write_new(file)
    except EngineError as error:
        click.echo(f"distributed_core: {error}", err=True)
        sys.exit(1)
    if not made:
        click.echo(f"distributed_core: {file} exists and is left as it is; name another file", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m distributed_core")
