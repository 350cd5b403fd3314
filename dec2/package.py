"""What the nodes install: dec2's own wheel, built from a checkout that was never published, a wheelhouse, and pip.

pip comes along because Debian's images have a Python without it, and nodes may have no index to get it from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dec2.errors import WrongUsage

_SOURCES = ("distributed_core", "dec2", "templates")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
MANIFEST = "MANIFEST"
#: 1980, the first year that a zip file can name.
_EPOCH = "315532800"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Wheels by file name, and the list of their digests as `sha256sum -c` reads it."""

    files: dict[str, Path]
    manifest: str

    @property
    def sha256(self) -> str:
        """The digest of the manifest: it stands for every byte of the wheels."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()


def bundle(wheelhouse: str | None) -> Bundle:
    """Return the wheels for the nodes.

    Parameters
    ----------
    wheelhouse
        A folder of wheels for nodes without a package index, or None.

    Raises
    ------
    WrongUsage
        The wheelhouse has no wheels, dec2's wheel cannot be built, or this Python has no wheel of pip.
    """
    files = {}
    if wheelhouse is not None:
        files = {
            path.name: path for path in sorted(Path(wheelhouse).glob("*.whl")) if not path.name.startswith("dec2-")
        }
        if not files:
            raise WrongUsage(
                f"--wheelhouse {wheelhouse} holds no wheels; fill it with: pip download -d {wheelhouse} ..."
            )
    own = [own_wheel()]
    if not any(name.startswith("pip-") for name in files):
        own.append(pip_wheel())
    files.update((path.name, path) for path in own)
    lines = [f"{_sha256(path)}  {name}" for name, path in sorted(files.items())]
    return Bundle(files, "\n".join(lines) + "\n")


def pip_wheel() -> Path:
    """Return the wheel of pip that every Python brings for its virtual environments.

    Raises
    ------
    WrongUsage
        This one does not.
    """
    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR")]
    found = importlib.util.find_spec("ensurepip")
    if found is not None and found.origin is not None:
        folders.append(str(Path(found.origin).parent / "_bundled"))
    wheels = [path for folder in folders if folder for path in Path(folder).glob("pip-*.whl")]
    if not wheels:
        raise WrongUsage("this Python has no wheel of pip for the nodes; put one into --wheelhouse: pip download pip")
    return max(wheels, key=lambda path: path.stat().st_mtime)


def own_wheel() -> Path:
    """Return the wheel of this very dec2, built once for each content of the checkout.

    Raises
    ------
    WrongUsage
        There is no checkout to build from, or the build failed.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        raise WrongUsage(
            "this dec2 was not installed from a checkout (pip install -e .); nodes get their wheel from one"
        )
    folder = _cache() / _content(root)
    built = sorted(folder.glob("dec2-*.whl"))
    if built:
        return built[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-") as temporary:
        copy = Path(temporary, "source")
        copy.mkdir()
        # A copy: building writes beside the sources.
        for name in _SOURCES:
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            if (root / name).is_file():
                shutil.copy2(root / name, copy / name)
        out = Path(temporary, "out")
        argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
        if _has_setuptools():
            argv.insert(4, "--no-build-isolation")
        # The same content gives the same bytes, on whatever machine: a repeated launch is then the same request.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise WrongUsage(f"the wheel of this checkout cannot be built: {done.stderr.strip()[-300:]}")
        try:
            os.replace(out, folder)
        except OSError:
            # Somebody else was faster with the same content.
            if not list(folder.glob("dec2-*.whl")):
                raise
    return sorted(folder.glob("dec2-*.whl"))[0]


def _has_setuptools() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("setuptools").partition(".")[0]) >= 77 and importlib.util.find_spec("setuptools") is not None
    except (PackageNotFoundError, ValueError):
        return False


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "dec2" / "wheels"


def _content(root: Path) -> str:
    digest = hashlib.sha256()
    files = [path for name in _SOURCES for path in (root / name).rglob("*") if path.suffix in (".py", ".yaml", ".sh")]
    for path in sorted([*files, *(root / name for name in _FILES)]):
        if path.is_file():
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
