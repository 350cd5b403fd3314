"""The command `dec2`."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from dec2 import apply
from dec2.cluster import connected
from dec2.engines import named
from dec2.errors import Dec2Error, NoSuchCluster, NotRegistered, WrongUsage
from dec2.inventory import Inventory, node_name
from dec2.progress import Phases
from dec2.providers import opened
from dec2.providers.base import Provider
from dec2.spec import ENGINES, PROVIDERS, ClusterSpec, check_name

NAME = "dec2"


def complains(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn our errors into one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except NotRegistered as error:
            click.echo(f"dec2: {error}", err=True)
            for name, tail in error.missing.items():
                click.echo(f"--- {name}\n{tail}", err=True)
            sys.exit(error.exit_code)
        except Dec2Error as error:
            click.echo(f"dec2: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("dec2: interrupted; what was made is still there: dec2 list shows it", err=True)
            sys.exit(130)

    return run


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where a cluster is."""
    command = click.option("--region", help="The AWS region; default: your AWS configuration's.")(command)
    return click.option(
        "--provider", type=click.Choice(PROVIDERS), help="Default: wherever a cluster of that name is."
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dec2", prog_name="dec2")
def main() -> None:
    """Bring a cluster up in one command, use it, and destroy it so that nothing is left."""


@main.command()
@click.option("--count", type=int, default=None, help="Instances, the scheduler's among them.  [default: 4]")
@click.option("--workers", type=click.IntRange(1), help="Instead of --count: workers; one more instance schedules.")
@click.option("--keyname", help="The name of your EC2 key pair.")
@click.option("--keypair", type=click.Path(dir_okay=False), help="The file with its private key.")
@click.option("--provider", type=click.Choice(PROVIDERS), default="ec2", show_default=True)
@click.option("--engine", type=click.Choice(ENGINES), default="core", show_default=True)
@click.option("--name", default=NAME, show_default=True, help="The cluster's name.")
@click.option("--region", help="The AWS region; default: your AWS configuration's.")
@click.option("--type", "type_", default="m7i.large", show_default=True, help="The instance type.")
@click.option("--scheduler-type", help="An instance type of its own for the scheduler.")
@click.option("--ami", help="The image; default: the newest Debian 12.")
@click.option("--username", help="The image's user; default: that of the default image.")
@click.option("--subnet", help="The subnet; default: one of the default VPC.")
@click.option("--volume-size", type=click.IntRange(8), default=20, show_default=True, help="Root volume, in GB.")
@click.option("--nthreads", type=click.IntRange(0), default=0, help="Threads per worker process; default: the cores.")
@click.option("--nprocs", type=click.IntRange(1), default=1, show_default=True, help="Worker processes per node.")
@click.option("--memory-limit", default="auto", show_default=True, help="Per worker process.")
@click.option("--wheelhouse", type=click.Path(exists=True, file_okay=False), help="Wheels for nodes without an index.")
@click.option("--index-url", help="The package index that the nodes use.")
@click.option(
    "--timeout", type=click.FloatRange(1), default=600, show_default=True, help="Seconds until all registered."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@complains
def up(count: int | None, workers: int | None, yes: bool, as_json: bool, **options: Any) -> None:
    """Bring a cluster up, and return once the scheduler says that all workers are registered."""
    if count is not None and workers is not None:
        raise WrongUsage("--count and --workers say the same in two ways; give one of them")
    options["type"] = options.pop("type_")
    options["volume_size_gb"] = options.pop("volume_size")
    options["timeout_s"] = options.pop("timeout")
    spec = ClusterSpec(count=count if count is not None else workers + 1 if workers else 4, **options)
    click.echo(spec.sentence(), err=as_json)
    if not yes and spec.provider != "local" and sys.stdin.isatty():
        click.confirm("Bring it up?", abort=True, err=as_json)
    provider = opened(spec.provider, spec.region)
    try:
        with Phases(Console(stderr=as_json)) as phases:
            report = apply.bring_up(spec, provider, named(spec.engine), phases)
    except Dec2Error as error:
        if as_json:
            missing = error.missing if isinstance(error, NotRegistered) else {}
            click.echo(json.dumps({"name": spec.name, "error": str(error), "missing": missing}))
        raise
    if as_json:
        click.echo(json.dumps({**_plain(report.inventory), "registered": report.registered, "seconds": report.seconds}))
        return
    total = sum(report.seconds.values())
    click.echo(f"{len(report.registered)} of {len(report.registered)} workers registered after {total:.1f} s")
    suffix = "" if spec.name == NAME else f" --name {spec.name}"
    click.echo(f"  use it      dec2 run{suffix} SCRIPT.py")
    click.echo(f"  end it      dec2 destroy {spec.name}")


@main.command()
@click.argument("name", required=False)
@where
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@complains
def destroy(name: str | None, provider: str | None, region: str | None, yes: bool) -> None:
    """End a cluster, and prove that nothing of it is left. Without NAME: the only one."""
    if name is None:
        name, chosen = _only(provider, region)
    else:
        chosen = _home_of(name, provider, region)
    inventory = chosen.observe(name)
    if not inventory.exists:
        click.echo(f"{name}: nothing there")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise WrongUsage(f"destroy asks before it ends {name}, and there is no terminal; add -y")
        click.confirm(f"Destroy {name} ({len(inventory.present)} instances on {inventory.provider})?", abort=True)
    apply.tear_down(name, chosen, lambda text: click.echo(f"{name}: {text}"))
    click.echo(f"{name}: destroyed, nothing is left")


@main.command("list")
@where
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@complains
def list_(provider: str | None, region: str | None, as_json: bool) -> None:
    """List the clusters."""
    found = [inventory for each in _providers(provider, region) for inventory in each.clusters()]
    if as_json:
        click.echo(json.dumps([_plain(inventory) for inventory in found]))
        return
    if not found:
        click.echo("no clusters")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "provider", "engine", "instances", "state"):
        table.add_column(title)
    for inventory in found:
        row = (
            inventory.name,
            inventory.provider,
            inventory.engine or "?",
            str(len(inventory.present)),
            _state(inventory),
        )
        table.add_row(*row)
    Console().print(table)


@main.command()
@click.argument("name", required=False)
@where
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@complains
def status(name: str | None, provider: str | None, region: str | None, as_json: bool) -> None:
    """Show the nodes of a cluster, and which workers the scheduler knows."""
    name, chosen = (name, _home_of(name, provider, region)) if name else _only(provider, region)
    inventory = chosen.observe(name)
    if not inventory.exists:
        raise NoSuchCluster(f"there is no cluster {name}; dec2 list shows what there is")
    registered = chosen.registered(inventory, named(inventory.engine or "core")) if inventory.scheduler else None
    if as_json:
        click.echo(json.dumps({**_plain(inventory), "registered": registered}))
        return
    click.echo(f"{name} on {inventory.provider}, engine {inventory.engine or '?'}, {_state(inventory)}")
    table = Table(box=None, pad_edge=False)
    for title in ("node", "role", "state", "id", "address", "registered"):
        table.add_column(title)
    for node in inventory.present:
        own = node_name(name, node.index)
        known = any(node.registers_as in (each, each.rpartition("-")[0]) for each in registered or ())
        role = "scheduler, worker" if node.both else node.role
        mark = ("yes" if known else "no") if node.role == "worker" or node.both else ""
        address = node.public_address or node.private_address or ""
        table.add_row(own, role, node.state, node.id, address, mark)
    Console().print(table)
    if gone := _gone(inventory):
        click.echo(f"gone: {', '.join(gone)}")
    if registered is None:
        click.echo("the scheduler does not answer", err=True)
        sys.exit(1)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("node", type=click.IntRange(0), default=0)
@click.option("--name", default=None, help="The cluster; default: the only one.")
@where
@complains
def ssh(node: int, name: str | None, provider: str | None, region: str | None) -> NoReturn:
    """Open a shell on a node: 0 is the scheduler's, 1, 2, ... are workers."""
    name, chosen = (name, _home_of(name, provider, region)) if name else _only(provider, region)
    inventory = chosen.observe(name)
    found = next((each for each in inventory.present if each.index == node and each.alive), None)
    if found is None:
        have = ", ".join(str(each.index) for each in inventory.present if each.alive) or "none"
        raise WrongUsage(f"{name} has no node {node}; it has {have}")
    argv = chosen.shell(inventory, found)
    sys.stdout.flush()
    os.execvp(argv[0], argv)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--name", default=None, help="The cluster; default: the only one.")
@where
@complains
def run(script: str, args: tuple[str, ...], name: str | None, provider: str | None, region: str | None) -> None:
    """Run SCRIPT with a client of the cluster: `distributed_core.get_client()` finds it there."""
    name, chosen = (name, _home_of(name, provider, region)) if name else _only(provider, region)
    inventory = chosen.observe(name)
    with _client(inventory, chosen):
        sys.argv = [script, *args]
        sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
        runpy.run_path(script, run_name="__main__")


@contextlib.contextmanager
def _client(inventory: Inventory, provider: Provider) -> Iterator[Any]:
    with contextlib.ExitStack() as kept:
        client = connected(kept, inventory, provider, named(inventory.engine or "core"))
        kept.callback(client.close)
        yield client


def _providers(provider: str | None, region: str | None) -> list[Provider]:
    """Return the named provider, or all that are set up on this machine."""
    if provider is not None:
        return [opened(provider, region)]
    found = [opened("local")]
    if region is not None or _aws_is_set_up():
        found.append(opened("ec2", region))
    return found


def _aws_is_set_up() -> bool:
    import boto3

    session = boto3.session.Session()
    return session.region_name is not None and session.get_credentials() is not None


def _home_of(name: str, provider: str | None, region: str | None) -> Provider:
    """Return the provider on which a cluster of that name is; the first one if it is nowhere."""
    check_name(name)
    candidates = _providers(provider, region)
    if len(candidates) == 1:
        return candidates[0]
    homes = [each for each in candidates if each.observe(name).exists]
    if len(homes) > 1:
        raise WrongUsage(f"there is a cluster {name} on {' and on '.join(each.name for each in homes)}; add --provider")
    return homes[0] if homes else candidates[0]


def _only(provider: str | None, region: str | None) -> tuple[str, Provider]:
    """Return the only cluster there is."""
    found = [(inventory.name, each) for each in _providers(provider, region) for inventory in each.clusters()]
    if not found:
        raise NoSuchCluster("there is no cluster; dec2 up makes one")
    if len(found) > 1:
        names = ", ".join(f"{name} ({each.name})" for name, each in found)
        raise WrongUsage(f"there are several clusters, name one: {names}")
    return found[0]


def _state(inventory: Inventory) -> str:
    if inventory.scheduler is not None:
        return "up"
    if any(node.state in ("stopping", "stopped") for node in inventory.present):
        return "stopped"
    return "half-made or half-destroyed; dec2 up or dec2 destroy mends it"


def _gone(inventory: Inventory) -> list[str]:
    """Return the names of the nodes that were lost or ended, as far as the provider still knows them."""
    return [node_name(inventory.name, node.index) for node in inventory.lost]


def _plain(inventory: Inventory) -> dict[str, Any]:
    return {
        "name": inventory.name,
        "provider": inventory.provider,
        "engine": inventory.engine,
        "state": _state(inventory),
        "nodes": [
            {
                "id": node.id,
                "role": node.role,
                "index": node.index,
                "state": node.state,
                "private_address": node.private_address,
                "public_address": node.public_address,
            }
            for node in inventory.present
        ],
        "gone": _gone(inventory),
    }
