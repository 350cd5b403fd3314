"""All commands of `dec2` under one name."""

from __future__ import annotations

import click

from dec2.cli.config import config
from dec2.cli.destroy import destroy
from dec2.cli.listing import listing
from dec2.cli.run import run
from dec2.cli.ssh import ssh
from dec2.cli.status import status
from dec2.cli.up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dec2", prog_name="dec2")
def main() -> None:
    """Bring a cluster up in one command, use it, and destroy it so that nothing is left."""


for _command in (up, status, run, ssh, listing, config, destroy):
    main.add_command(_command)
