"""What the nodes install: wheels that hold what the checkout holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dec2 import package
from dec2.errors import WrongUsage

ROOT = Path(package.__file__).resolve().parent.parent

# Wheels are built.
pytestmark = pytest.mark.slow


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return package.own_wheel()


def test_the_wheel_holds_every_module_and_template(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for name in ("distributed_core", "dec2"):
        assert {str(path.relative_to(ROOT)) for path in (ROOT / name).rglob("*.py")} <= held
    assert {f"dec2/templates/{path.name}" for path in (ROOT / "templates").glob("*.*") if path.is_file()} <= held
    assert not [name for name in held if name.startswith(("tests", "moto_fixtures", "templates"))]


def test_the_wheel_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """From the wheel alone: the templates are found, and the engine's commands start."""
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    script = (
        "import dec2.cloud_init as c, distributed_core.cli.dworker, dec2; print(c.__file__); "
        "print(len(c.source('node.yaml')), len(c.source('bootstrap.sh')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    where, sizes = done.stdout.splitlines()
    assert where == str(target / "dec2" / "cloud_init.py")
    assert sizes == " ".join(
        str(len((ROOT / "templates" / name).read_text())) for name in ("node.yaml", "bootstrap.sh")
    )


def test_the_same_content_is_built_once_and_gives_the_same_bytes(wheel: Path, cache: Path) -> None:
    again = package.own_wheel()
    assert again != wheel
    assert again.read_bytes() == wheel.read_bytes()
    stamp = again.stat().st_mtime_ns
    assert package.own_wheel().stat().st_mtime_ns == stamp
    assert [each.name for each in (cache / "dec2" / "wheels").iterdir()] == [again.parent.name]


def test_other_content_is_another_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("distributed_core", "dec2", "templates"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, checkout / name)
    before = package._content(checkout)
    assert before == package._content(ROOT)
    (checkout / "templates" / "bootstrap.sh").write_text("#!/bin/sh\n")
    after = package._content(checkout)
    assert after != before
    (checkout / "dec2" / "__pycache__").mkdir()
    (checkout / "dec2" / "__pycache__" / "x.pyc").touch()
    assert package._content(checkout) == after


def test_the_manifest_is_what_sha256sum_reads(cache: Path, tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / "other-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (house / "dec2-9.9-py3-none-any.whl").write_bytes(b"not this one")
    (house / "notes.txt").touch()
    bundle = package.bundle(str(house))
    own = package.own_wheel().name
    names = sorted(bundle.files)
    assert names == sorted([own, "other-1.0-py3-none-any.whl", package.pip_wheel().name])
    assert bundle.sha256 == hashlib.sha256(bundle.manifest.encode()).hexdigest()
    flat = tmp_path / "flat"
    flat.mkdir()
    for name, path in bundle.files.items():
        shutil.copy(path, flat / name)
    check = ["sha256sum", "-c", "--quiet"]
    subprocess.run(check, input=bundle.manifest, text=True, check=True, cwd=flat)
    (flat / own).write_bytes(b"changed")
    changed = subprocess.run(check, input=bundle.manifest, text=True, check=False, cwd=flat, capture_output=True)
    assert changed.returncode == 1


def test_the_wheelhouse_may_bring_its_own_pip(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "pip-99.9-py3-none-any.whl").write_bytes(b"newer")
    assert [name for name in package.bundle(str(tmp_path)).files if name.startswith("pip-")] == [
        "pip-99.9-py3-none-any.whl"
    ]


@pytest.mark.slow
def test_pip_runs_from_its_wheel_in_an_environment_without_pip(tmp_path: Path) -> None:
    """As on a node whose Python has no ensurepip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    argv = [python, f"{package.pip_wheel()}/pip", "--disable-pip-version-check", "list", "--format", "freeze"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_an_empty_wheelhouse_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="holds no wheels; fill it with"):
        package.bundle(str(tmp_path))


def test_without_a_checkout_or_pip_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package, "__file__", str(tmp_path / "site" / "dec2" / "package.py"))
    with pytest.raises(WrongUsage, match="not installed from a checkout"):
        package.own_wheel()
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(package.sysconfig, "get_config_var", lambda name: str(tmp_path))
    with pytest.raises(WrongUsage, match="no wheel of pip"):
        package.pip_wheel()
