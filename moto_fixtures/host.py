"""What this computer must offer before machines can run on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

#: What `apt-get install --no-install-recommends` has to bring on a Debian or Ubuntu host.
DEBIAN_PACKAGES = (
    "mmdebstrap",
    "debian-archive-keyring",
    "systemd-container",
    "iproute2",
    "nftables",
    "util-linux",
    "mount",
    "openssh-client",
)

#: Each command that the test cloud calls, with the package that brings it.
COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
}

#: The namespaces of a test cloud.  One process owns them, and they end with it.
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")


def architecture() -> str:
    """The name that EC2 gives to the processor of this computer: `x86_64` or `arm64`."""
    machine = platform.machine()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)


def missing() -> str | None:
    """What this computer lacks for running machines, as one sentence; None if it lacks nothing."""
    if sys.platform != "linux":
        return f"machines need Linux, and this is {sys.platform}: run the tests of the cloud on a Linux host."
    if os.geteuid() != 0:
        return "machines need root (namespaces, mounts and cgroups): run the command again with sudo."
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    if absent:
        packages = " ".join(sorted({COMMANDS[command] for command in absent}))
        return (
            f"the host lacks {', '.join(absent)}: run apt-get install --no-install-recommends {packages}"
            " (or what your distribution calls it)."
        )
    if not _kernel_knows("overlay"):
        return "the kernel of this host has no overlay file system: load the module overlay (modprobe overlay)."
    if not Path("/sys/fs/cgroup").is_dir() or not os.access("/sys/fs/cgroup", os.W_OK):
        return "the cgroup file system of this host is not writable: start the container with its own cgroup namespace."
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    if probe.returncode != 0:
        why = probe.stderr.strip() or f"exit code {probe.returncode}"
        return f"this host does not allow new namespaces ({why}): give the container the capability SYS_ADMIN."
    return None


def _kernel_knows(file_system: str) -> bool:
    def listed() -> bool:
        known = Path("/proc/filesystems").read_text()
        return any(line.split()[-1] == file_system for line in known.splitlines() if line.strip())

    if listed():
        return True
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", file_system], capture_output=True)
    return listed()


def cache_folder() -> Path:
    """Where the base image and wheels are kept: `$DEC2_TESTCLOUD_CACHE`, else `.cache/` of the checkout, else XDG's."""
    named = os.environ.get("DEC2_TESTCLOUD_CACHE")
    if named:
        return Path(named).resolve()
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / ".cache" / "testcloud"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "dec2-testcloud"
