"""`dec2 up`: a cluster is there, and its workers are registered."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console

from dec2 import apply, providers
from dec2.cli.complaints import complains
from dec2.cli.options import configured, described
from dec2.cli.showing import plain
from dec2.config import resolved
from dec2.engines import named
from dec2.errors import Dec2Error, NotRegistered, WrongUsage
from dec2.progress import Phases
from dec2.spec import DEFAULT_NAME, ClusterSpec


@click.command()
@described()
@click.option("--workers", type=click.IntRange(1), help="Instead of --count: workers; one more instance schedules.")
@configured
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@complains
def up(config: str | None, profile: str | None, workers: int | None, yes: bool, as_json: bool, **given: Any) -> None:
    """Bring a cluster up, and return once the scheduler says that all workers are registered."""
    if workers is not None:
        if given["count"] is not None:
            raise WrongUsage("--count and --workers say the same in two ways; give one of them")
        given["count"] = (workers + 1, "--workers")
    spec = resolved(given, file=config, profile=profile).spec()
    click.echo(spec.sentence(), err=as_json)
    if not yes and spec.provider != "local" and sys.stdin.isatty():
        click.confirm("Bring it up?", abort=True, err=as_json)
    try:
        report = _brought_up(spec, Console(stderr=as_json))
    except Dec2Error as error:
        if as_json:
            missing = error.missing if isinstance(error, NotRegistered) else {}
            click.echo(json.dumps({"name": spec.name, "error": str(error), "missing": missing}))
        raise
    if as_json:
        click.echo(json.dumps({**plain(report.inventory), "registered": report.registered, "seconds": report.seconds}))
        return
    total = sum(report.seconds.values())
    click.echo(f"{len(report.registered)} of {len(report.registered)} workers registered after {total:.1f} s")
    suffix = "" if spec.name == DEFAULT_NAME else f" --name {spec.name}"
    click.echo(f"  use it      dec2 run{suffix} SCRIPT.py")
    click.echo(f"  end it      dec2 destroy {spec.name}")


def _brought_up(spec: ClusterSpec, console: Console) -> apply.UpReport:
    provider = providers.opened(spec.provider, spec.region)
    with Phases(console) as phases:
        return apply.bring_up(spec, provider, named(spec.engine), phases)
