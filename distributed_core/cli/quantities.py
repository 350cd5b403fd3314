"""Options that are quantities, read by `distributed_core.quantities`; what cannot be read is wrong usage."""

from __future__ import annotations

from typing import Any

import click

from distributed_core.errors import UsageError
from distributed_core.quantities import parse_duration, parse_environment, parse_memory, parse_resources


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or text such as `30s`, `5m`, `1h30m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except UsageError as error:
            self.fail(str(error))


class MemorySize(click.ParamType):  # type: ignore[type-arg]
    """Bytes, with a unit (`4GB`, `512MiB`), a fraction of what there is (`0.5`), `auto`, or 0 for no limit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_memory(value)
        except UsageError as error:
            self.fail(str(error))
        return str(value)


class Resources(click.ParamType):  # type: ignore[type-arg]
    """Amounts by name: `GPU=2 MEM=100e9`."""

    name = "resources"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        try:
            return value if isinstance(value, dict) else parse_resources(value)
        except UsageError as error:
            self.fail(str(error))


class EnvironmentVariable(click.ParamType):  # type: ignore[type-arg]
    """An environment variable: NAME=VALUE."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_environment([value])
        except UsageError as error:
            self.fail(str(error))
        return str(value)
