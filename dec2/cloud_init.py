"""Render the cloud-init templates, and read the result back.

Templates are `string.Template` with one kind of value: JSON, which is YAML too, so that no content can break out of its
place. A variable that is missing, or given and not used, is an error.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from dec2.errors import WrongUsage

USER_DATA_BYTES_MAX = 16384
_MARKER = re.compile(r"@([a-z_0-9]+)@")
_VARIABLE = re.compile(r"\$(?:(\$)|\{([a-z_]+)\}|([a-z_]+))")
#: Where things lie on a node.
HOME = "/opt/dec2"
PYTHON = f"{HOME}/venv/bin/python"
CREDENTIAL = "/etc/dec2/credential.pem"
SCHEDULER_FILE = "/home/dec2/scheduler.json"
WHEELS = f"{HOME}/wheels"
INSTALLED = f"{HOME}/installed"
WHEEL_PORT = 8788


@dataclass(frozen=True, slots=True)
class Boot:
    """What one node is to do from its first boot on.

    Attributes
    ----------
    commands
        The engine's parts by unit name, `dscheduler` and `dworker`; NAME stands for the node's own name.
    wheel_source
        The address of the scheduler's node, from which a worker fetches the wheels; None on that node itself.
    manifest_sha256
        The digest of the list of wheels: what does not match it is not installed.
    """

    host_key: str
    host_key_public: str
    commands: Mapping[str, tuple[str, ...]]
    wheel_source: str | None
    manifest_sha256: str
    requirements: tuple[str, ...]
    index_url: str | None
    offline: bool
    lifetime_minutes: int = 12 * 60
    bootstrap_minutes: int = 30


def user_data(boot: Boot) -> str:
    """Return the user-data for a node.

    Raises
    ------
    WrongUsage
        It is longer than EC2 takes.
    """
    index = ["--no-index"] if boot.offline else (["--index-url", boot.index_url] if boot.index_url else [])
    text = render(
        "node.yaml",
        {
            "host_key": boot.host_key,
            "host_key_public": boot.host_key_public,
            "bootstrap": _script(
                "bootstrap.sh",
                wheel_source=boot.wheel_source or "",
                wheel_port=str(WHEEL_PORT),
                manifest_sha256=boot.manifest_sha256,
                requirements=shlex.join(boot.requirements),
                index_options=shlex.join(index),
                engine_units=" ".join(boot.commands),
            ),
            "engine": "".join(_case(unit, command) for unit, command in boot.commands.items()),
            "lifetime_minutes": boot.lifetime_minutes,
            "bootstrap_minutes": boot.bootstrap_minutes,
        },
    )
    if len(text.encode()) > USER_DATA_BYTES_MAX:
        size = len(text.encode())
        raise WrongUsage(
            f"the user-data has {size} bytes and EC2 takes {USER_DATA_BYTES_MAX}; shorten the requirements"
        )
    return text


def _case(unit: str, command: tuple[str, ...]) -> str:
    # NAME is a shell variable there; everything else is quoted.
    words = " ".join('"$NAME"' if word == "NAME" else shlex.quote(word) for word in command)
    return f"  {unit}) exec {words} ;;\n"


def _script(name: str, **variables: str) -> str:
    text = source(name)
    used = set(_MARKER.findall(text))
    if used != variables.keys():
        raise KeyError(f"{name} and its variables differ in {', '.join(sorted(used ^ variables.keys()))}")
    # In one go: what a value holds is never taken for a marker.
    return _MARKER.sub(lambda match: variables[match[1]], text)


def render(name: str, variables: Mapping[str, Any]) -> str:
    """Return a template with its variables as JSON.

    Raises
    ------
    KeyError
        A variable is missing, or not used.
    """
    text = source(name)
    used = {match[2] or match[3] for match in _VARIABLE.finditer(text) if not match[1]}
    unknown = variables.keys() - used
    if unknown:
        raise KeyError(f"the template {name} does not use {', '.join(sorted(unknown))}")
    rendered = Template(text).substitute({key: json.dumps(value) for key, value in variables.items()})
    if not isinstance(yaml.safe_load(rendered), dict):
        raise KeyError(f"the template {name} does not give a mapping")
    return rendered


def parse(text: str) -> dict[str, Any]:
    """Return user-data as data: what cloud-init will see. What is not YAML is nothing to it."""
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return dict(loaded) if isinstance(loaded, dict) else {}


def host_key_in(text: str) -> tuple[str, str] | None:
    """Return the private and public host key that user-data brings, if any."""
    keys = parse(text).get("ssh_keys") or {}
    try:
        return str(keys["ed25519_private"]), str(keys["ed25519_public"])
    except (KeyError, TypeError):
        return None


def source(name: str) -> str:
    """Return a template as it is: beside the package in a checkout, inside it when installed."""
    checkout = Path(__file__).resolve().parent.parent / "templates" / name
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    return importlib.resources.files("dec2.templates").joinpath(name).read_text(encoding="utf-8")
