"""What an installation holds: everything of the tree, found without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dec2 import package

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("distributed_core", "dec2")
COMMANDS = ("dscheduler", "dworker", "dcluster", "dec2")

#: Imports every module that an installation has, from its folder alone.
IMPORT_ALL = """
import importlib, pkgutil, sys
target, names = sys.argv[1], sys.argv[2:]
count = 0
for name in names:
    found = importlib.import_module(name)
    assert found.__file__.startswith(target), found.__file__
    for each in pkgutil.walk_packages(found.__path__, name + "."):
        if not each.name.endswith("__main__"):
            made = importlib.import_module(each.name)
            assert made.__file__.startswith(target), made.__file__
            count += 1
print(count)
"""


def settings() -> dict[str, Any]:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(told["tool"]["setuptools"])


def folders() -> set[str]:
    """Return the packages of the tree: folders that hold modules."""
    return {".".join(path.parent.relative_to(ROOT).parts) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def test_every_folder_with_modules_is_a_package_that_is_named() -> None:
    elsewhere = settings()["package-dir"]
    assert set(settings()["packages"]) - set(elsewhere) == folders()
    assert [each for each in folders() if not (ROOT / each.replace(".", "/") / "__init__.py").is_file()] == []


def test_every_other_file_is_named_too() -> None:
    """Files that are no modules are taken along only where the settings say so."""
    data = {
        place: [
            path.name for path in (ROOT / place).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
        for place in PACKAGES
    }
    assert data == {name: [] for name in PACKAGES}
    patterns = settings()["package-data"]["dec2.templates"]
    templates = [path for path in (ROOT / "templates").iterdir() if path.is_file() and path.suffix != ".py"]
    assert templates
    assert [path.name for path in templates if not any(path.match(each) for each in patterns)] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return package.own_wheel()


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, and nothing else."""
    made = tmp_path_factory.mktemp("installed") / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(made)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return made


def run_there(target: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "100"}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, cwd=target.parent, env=environment, stdin=subprocess.DEVNULL
    )


@pytest.mark.slow
def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    held = {each for each in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in each}
    tree = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    templates = {
        f"dec2/templates/{path.name}"
        for path in (ROOT / "templates").iterdir()
        if path.suffix in (".py", ".yaml", ".sh")
    }
    assert held == tree | templates


@pytest.mark.slow
def test_every_module_can_be_imported_from_an_installation(target: Path) -> None:
    done = run_there(target, [sys.executable, "-c", IMPORT_ALL, str(target), *PACKAGES])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_start_from_an_installation(target: Path, command: str) -> None:
    script = target / "bin" / command
    done = run_there(target, [sys.executable, str(script), "--help"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {command}")
    assert done.stderr == ""
