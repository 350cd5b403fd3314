"""Hosts: a network namespace at the end of a cable, a control group, and a disk of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from moto_fixtures.cage import Cage, trees
from moto_fixtures.region import run_tool

ROOT = Path(__file__).resolve().parents[2]
#: A private tmpfs of the run lies over it.
WORLD = Path("/mnt")
BRIDGE = "br0"
NETWORK = "10.77.0"
MTU = 16_000
MEMORY_BYTES = 1 << 30
DISK_BYTES = 192 << 20
FAKETIME = "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1"

_ENTER = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1"; shift; n=$((n-1)); done; exec "$@"'


class Host:
    """One host. Its network is plugged in by `Network.plug`."""

    def __init__(self, name: str, address: str, run: str) -> None:
        self.name = name
        self.address = address
        self._group = f"chaos-{run}-{name}"
        self.cage = Cage(self._group, MEMORY_BYTES)
        self.disk = WORLD / "disks" / name
        self.disk.mkdir(parents=True)
        run_tool("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.disk))
        self.clock = WORLD / f"clock-{name}"
        self.clock.write_text("+0")
        #: Whether its wall clock can be set, and seconds that its monotonic clock is ahead.
        self.clocked = False
        self.ahead_s = 0

    def start(self, argv: list[str], log: Path, environment: dict[str, str], **pipes: int) -> subprocess.Popen[str]:
        """Start a command here; what it writes to stderr is added to the log."""
        doors = self.cage.doors()
        command = ["sh", "-c", _ENTER, "sh", str(len(doors)), *doors, "nsenter", f"--net=/run/netns/{self.name}"]
        if self.ahead_s:
            command += ["unshare", "--time", "--monotonic", str(self.ahead_s), "--boottime", str(self.ahead_s)]
        inside = {**os.environ, **environment, "TMPDIR": str(self.disk), "PYTHONPATH": str(ROOT)}
        if self.clocked:
            command += ["env", f"LD_PRELOAD={FAKETIME.format(os.uname().machine)}"]
            inside |= {
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
            }
        with log.open("ab") as file:
            return subprocess.Popen(
                [*command, *argv], cwd=self.disk, env=inside, stderr=file, text=True, start_new_session=True, **pipes
            )

    # --- what runs here ---------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Return the processes of the host."""
        file = next(iter(self.cage.doors()))
        return [int(line) for line in Path(file).read_text().split()]

    def worker_pids(self) -> list[int]:
        """Return the processes that run tasks."""
        return [pid for pid in self.pids() if "distributed_core.servers.child" in command_of(pid)]

    def kill(self, pids: list[int], number: int = signal.SIGKILL) -> int:
        """Send a signal to processes of the host; return to how many."""
        sent = 0
        for pid in pids:
            try:
                os.kill(pid, number)
                sent += 1
            except ProcessLookupError:
                pass
        return sent

    # --- memory and disk --------------------------------------------------------------------------

    @property
    def _memory(self) -> Path:
        return trees()["memory"] / self._group

    def memory_used_bytes(self) -> int:
        return int((self._memory / "memory.usage_in_bytes").read_text())

    def limit_memory(self, nbytes: int) -> None:
        """Let the host have so much; the kernel first takes back what it can."""
        (self._memory / "memory.limit_in_bytes").write_text(str(nbytes))

    def kills_for_memory(self) -> int:
        """Return how many processes the kernel has killed here for want of memory."""
        lines = (self._memory / "memory.oom_control").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def fill_disk(self) -> None:
        """Leave no byte free."""
        with open(self.disk / "full", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * (1 << 20))
            except OSError:
                pass

    def empty_disk(self) -> None:
        (self.disk / "full").unlink(missing_ok=True)

    def close(self) -> None:
        """End what runs here, and remove the control groups."""
        self.cage.thaw()
        self.kill(self.pids())
        self.cage.remove()


class Network:
    """The bridge between the hosts, without an uplink, and its packet filter."""

    def __init__(self) -> None:
        Path("/run/netns").mkdir(parents=True, exist_ok=True)
        run_tool("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        run_tool("mount", "--make-shared", "/run/netns")
        run_tool("ip", "link", "add", BRIDGE, "mtu", str(MTU), "type", "bridge")
        run_tool("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        run_tool("ip", "link", "set", BRIDGE, "up")
        run_tool("ip", "route", "add", "unreachable", "default", "metric", "4000")
        self._parted: dict[tuple[str, str], None] = {}

    def add(self, name: str) -> None:
        """Make the namespace of a host."""
        run_tool("ip", "netns", "add", name)

    def plug(self, host: Host) -> None:
        """Set both ends of its cable, which is there, into operation."""
        port = f"p-{host.name}"
        run_tool("ip", "link", "set", port, "mtu", str(MTU), "master", BRIDGE, "up")
        for command in (
            "link set lo up",
            f"link set eth0 mtu {MTU} up",
            f"addr add {host.address}/24 dev eth0",
            "route add unreachable default metric 4000",
        ):
            run_tool("ip", "-n", host.name, *command.split())

    def part(self, one: str, other: str) -> None:
        """Let no frame pass between two hosts."""
        self._parted[one, other] = None
        self._enforce()

    def join(self, one: str, other: str) -> None:
        """Let frames pass again."""
        self._parted.pop((one, other), None)
        self._enforce()

    def _enforce(self) -> None:
        pairs = [pair for one, other in self._parted for pair in ((one, other), (other, one))]
        rules = [f"    iifname p-{one} oifname p-{other} drop" for one, other in pairs]
        text = [
            "table bridge chaos",
            "delete table bridge chaos",
            "table bridge chaos {",
            "  chain between {",
            "    type filter hook forward priority 0; policy accept;",
            *rules,
            "  }",
            "}",
            "",
        ]
        run_tool("nft", "-f", "-", text="\n".join(text))

    def reset(self, host: Host) -> None:
        """End every connection of a host by a reset; both sides hear of it."""
        run_tool("ip", "netns", "exec", host.name, "ss", "-K", "-t", "state", "established")

    def connections(self, host: Host) -> list[str]:
        """Return what the host's sockets are connected to, but for those that only wait for their time to pass."""
        lines = run_tool("ip", "netns", "exec", host.name, "ss", "-H", "-t", "-a", "-n").splitlines()
        return [line for line in lines if not line.startswith("TIME-WAIT")]


def command_of(pid: int) -> str:
    """Return the command line of a process; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def engine(command: str) -> str:
    """Return the path of one of the engine's commands."""
    return str(Path(sys.executable).parent / command)
