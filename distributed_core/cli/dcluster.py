"""`dcluster`: a cluster over SSH, for as long as the command runs."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Any

import click

from distributed_core.cli.quantities import MemorySize
from distributed_core.cli.running import EXIT_FAILED, EXIT_USAGE, complain, end
from distributed_core.errors import EngineError, UsageError
from distributed_core.settings import DEFAULT_PORT


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--hostfile", type=click.Path(dir_okay=False), help="A file with hosts, one per line; # is a comment.")
@click.option("--scheduler", help="The host of the scheduler; default: the first host.")
@click.option("--scheduler-port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True)
@click.option(
    "--nthreads", type=click.IntRange(0, 10_000), default=0, help="Threads per process; default: cores / processes."
)
@click.option(
    "--nprocs", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Worker processes per host."
)
@click.option(
    "--memory-limit", type=MemorySize(), default="auto", show_default=True, help="Per worker process; 0 is no limit."
)
@click.option("--ssh-username", help="Default: yours.")
@click.option("--ssh-port", type=click.IntRange(1, 65535), default=22, show_default=True)
@click.option("--ssh-private-key", type=click.Path(dir_okay=False), help="Default: your agent's, and ~/.ssh/id_*.")
@click.option("--accept-new", is_flag=True, help="Take down host keys that were never seen.")
@click.option("--remote-python", default=None, help="The interpreter on the hosts; default: the path of this one.")
@click.option("--log-directory", help="A folder on the hosts for their output.")
@click.option("--credential", type=click.Path(dir_okay=False), help="The cluster's credential; default: your own.")
def main(hosts: tuple[str, ...], hostfile: str | None, **options: Any) -> None:
    """Start a scheduler and workers on HOSTs over SSH; Ctrl-C ends them all."""
    from distributed_core.ssh import SSHCluster, SSHOptions, read_hostfile

    code = EXIT_FAILED
    lock = threading.Lock()

    def say(title: str, line: str) -> None:
        with lock:
            click.echo(f"[ {title} ] : {line}")

    cluster = None
    try:
        everyone = [*hosts, *(read_hostfile(hostfile) if hostfile else [])]
        if not everyone:
            context = click.get_current_context()
            click.echo(context.get_help())
            context.exit(EXIT_USAGE)
        chosen = SSHOptions(
            username=options["ssh_username"],
            port=options["ssh_port"],
            private_key=options["ssh_private_key"],
            accept_new=options["accept_new"],
            remote_python=options["remote_python"] or sys.executable,
            credential=options["credential"],
            scheduler_port=options["scheduler_port"],
            nthreads=options["nthreads"],
            nprocs=options["nprocs"],
            memory_limit=options["memory_limit"],
            log_directory=options["log_directory"],
        )
        cluster = SSHCluster(everyone, chosen, say, options["scheduler"])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # SIGINT too: a shell that starts commands in the background lets them ignore it.
            signal.signal(number, _interrupt)
        cluster.start()
        up = len(cluster.hosts) - len(cluster.failed)
        say(
            "dcluster",
            f"scheduler at {cluster.address}, workers on {up} of {len(cluster.hosts)} hosts; Ctrl-C ends them",
        )
        code = cluster.wait()
    except KeyboardInterrupt:
        code = 0
    except UsageError as error:
        complain(error)
        code = EXIT_USAGE
    except EngineError as error:
        complain(error)
    if cluster is not None:
        with contextlib.suppress(KeyboardInterrupt):
            cluster.stop()
    end(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
