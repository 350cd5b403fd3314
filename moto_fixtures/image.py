"""The base image: a Debian root file system from which every machine starts, built once per recipe.

It lies in `<cache>/images/<hash of the recipe>/root`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from moto_fixtures import host
from moto_fixtures.cache import made_once
from moto_fixtures.errors import ImageBuildFailed

#: Debian 12, whose Python is 3.11.
SUITE = "bookworm"

#: The user of Debian's own images on EC2.
USERNAME = "admin"

PACKAGES = (
    "ca-certificates",
    "cloud-init",
    "curl",
    "dbus",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "libnss-systemd",  # without it a unit with DynamicUser=yes has no home directory
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-venv",
    "sudo",
    "systemd-sysv",
)

#: Timers that would only cost processor time in a machine that lives for minutes.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "man-db.timer",
)

CLOUD_CONFIG = f"""\
# The user-data comes from a seed on the disk, because a machine of the test cloud has no metadata service.
datasource_list: [ NoCloud, None ]
# The address is set before the machine boots.
network: {{config: disabled}}
# Any other locale would have to be generated, and its absence makes cloud-init report an error.
locale: C.UTF-8
manage_etc_hosts: true
apt: {{preserve_sources_list: true}}
system_info:
  default_user:
    name: {USERNAME}
    gecos: Debian
    lock_passwd: true
    groups: [adm, sudo]
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
"""

#: Raised when the steps in `_furnish` change in a way that the other parts of the recipe do not show.
REVISION = 2


def recipe_hash() -> str:
    """The name of the recipe: 16 hexadecimal digits that change with every change of it."""
    recipe = [SUITE, PACKAGES, MASKED_UNITS, CLOUD_CONFIG, REVISION, host.architecture()]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def built() -> Path | None:
    """The root file system of the present recipe; None if it has not been built."""
    root = _place() / "root"
    return root if root.is_dir() else None


def build() -> Path:
    """The root file system of the present recipe; builds it first if need be, which takes about a minute.

    Needs the network of the host, so it must run before the namespace is entered.  Raises ImageBuildFailed.
    """
    return made_once(_place(), _make) / "root"


def _place() -> Path:
    return host.cache_folder() / "images" / recipe_hash()


def _make(folder: Path) -> None:
    _bootstrap(folder / "root")
    _furnish(folder / "root")


def _bootstrap(root: Path) -> None:
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
    run = subprocess.run([*command, SUITE, str(root)], capture_output=True, text=True)
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        raise ImageBuildFailed(
            f"mmdebstrap could not build the base image ({last}): check that apt-get works on this host and try again."
        )


def _furnish(root: Path) -> None:
    """Take away what must differ from machine to machine, and put in what the test cloud needs."""
    (root / "etc/machine-id").write_text("")
    for name in ("etc/hostname", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)
    # The build copied the resolver of the host, which no machine may ask.
    (root / "etc/resolv.conf").write_text("# The test cloud has no resolver.\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for unit in MASKED_UNITS:
        mask = root / "etc/systemd/system" / unit
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    (root / "etc/cloud/cloud.cfg.d/90_testcloud.cfg").write_text(CLOUD_CONFIG)
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
