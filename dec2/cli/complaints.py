"""How a command fails: one line on stderr, and the exit code of the error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from dec2.errors import Dec2Error, NotRegistered


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
