"""Wheels for machines that have no route to a package index."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from moto_fixtures import host
from moto_fixtures.cache import made_once
from moto_fixtures.errors import WheelhouseFailed

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

#: The Python of the base image.
PYTHON_VERSION = "3.11"


def wheelhouse(requirements: Iterable[str]) -> Path:
    """A folder with wheels of the requirements and of all that they need, for the Python of the machines.

    requirements: as pip takes them, for example `["msgpack>=1.0.7"]`.
    The folder is kept in the cache by the hash of the requirements.  A new one needs the network of the host, so it
    must be made before the namespace is entered (`python -m moto_fixtures wheels ...`).  Raises WheelhouseFailed.
    """
    wanted = sorted(requirements)
    return made_once(path_of(wanted), lambda folder: _download(wanted, folder))


def project_requirements(pyproject: Path = PYPROJECT) -> list[str]:
    """What a project needs when it runs, as its pyproject.toml says; by default, that of this checkout."""
    needed: list[str] = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    return needed


def path_of(requirements: Iterable[str]) -> Path:
    """Where the wheels of these requirements are, or will be."""
    recipe = [sorted(requirements), PYTHON_VERSION, platform.machine()]
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return host.cache_folder() / "wheels" / digest


def _download(requirements: list[str], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON_VERSION:
        command += ["--python-version", PYTHON_VERSION, "--only-binary", ":all:"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WheelhouseFailed(
            f"pip could not collect the wheels ({words}): check that pip install works on this host."
        )
    sources = [file.name for file in folder.iterdir() if file.suffix != ".whl"]
    if sources:
        raise WheelhouseFailed(
            f"there is no wheel of {', '.join(sources)}, and machines have no compiler: ask for a version with one."
        )
