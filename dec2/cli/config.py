"""`dec2 config`: the options that count, and where each came from."""

from __future__ import annotations

import json
from typing import Any

import click

from dec2.cli.complaints import complains
from dec2.cli.options import configured, described
from dec2.cli.showing import print_table
from dec2.config import resolved
from dec2.options import example
from dec2.spec import OPTIONS


@click.command()
@described()
@configured
@click.option("--example", "as_example", is_flag=True, help="Print an annotated dec2.yaml with every option.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@complains
def config(config: str | None, profile: str | None, as_example: bool, as_json: bool, **given: Any) -> None:
    """Show the value of every option that `dec2 up` with the same options would use, and where it came from."""
    if as_example:
        click.echo(example(OPTIONS), nl=False)
        return
    settings = resolved(given, file=config, profile=profile)
    each = settings.by_field.values()
    if as_json:
        values = {one.option.key: {"value": one.value, "origin": one.origin} for one in each}
        click.echo(json.dumps({"file": settings.file, "profile": settings.profile, "options": values}))
        return
    click.echo(f"file: {settings.file or 'none'}, profile: {settings.profile or 'none'}")
    shown = [(one.option.key, "" if one.value is None else one.option.shown(one.value), one.origin) for one in each]
    print_table(("option", "value", "from"), shown)
