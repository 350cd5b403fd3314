"""The declared options of clusters, as options of commands."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import click

from dec2.options import Option
from dec2.spec import OPTIONS

_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT"}

Command = Callable[..., Any]


def configured(command: Command) -> Command:
    """Add the options that say which configuration counts."""
    command = click.option("--profile", metavar="NAME", help="A profile of the configuration file.")(command)
    return click.option(
        "--config", metavar="FILE", help="The configuration file; default: ./dec2.yaml, or your own one."
    )(command)


def described(*, without: Collection[str] = (), only: Collection[str] | None = None) -> Callable[[Command], Command]:
    """Add the options of a cluster, by their fields; their values come as they were written, or as None."""

    def add(command: Command) -> Command:
        for option in reversed(OPTIONS):
            if option.field not in without and (only is None or option.field in only):
                command = _as_click(option)(command)
        return command

    return add


def _as_click(option: Option) -> Callable[[Command], Command]:
    default = "" if option.default is None else f"  [default: {option.shown(option.default)}]"
    if option.kind == "bool":
        return click.option(f"{option.flag}/--no-{option.key}", option.field, default=None, help=option.help + default)
    # The value is read where that of a file is read, so that both give the same error.
    return click.option(option.flag, option.field, metavar=_metavar(option), help=option.help + default)


def _metavar(option: Option) -> str:
    if option.choices:
        return f"[{'|'.join(option.choices)}]"
    if option.path:
        return "PATH"
    return "DURATION" if option.unit == "s" else option.unit or _METAVARS[option.kind]
