"""The network of the machines: one bridge in a namespace without an uplink.

    the caller (tests, dec2, ssh)   203.0.113.10, on `lo`: somewhere on the internet
    machines                        172.31.x.y on the bridge, and a public address 198.51.100.z in front of each

A public address is translated on its way to the machine, as at EC2: no machine has it on an interface.  The caller
reaches public addresses only; a private one refuses it, because a caller on the internet has no way to it either.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from types import TracebackType

from moto_fixtures.account import PRIVATE_NETWORK, PUBLIC_NETWORKS
from moto_fixtures.errors import MachineFailed, NotIsolated

BRIDGE = "br0"
GATEWAY = "172.31.0.1"
#: A documentation address that stands for the caller's own one.
CALLER = "203.0.113.10"

#: Where nspawn keeps sockets and locks; a private tmpfs while a cloud is open.
NSPAWN_FOLDER = "/run/systemd/nspawn"
#: Set by `isolation` in the processes inside of a throw-away namespace.
MARKER = "DEC2_TESTCLOUD_ISOLATED"

# Devices that a kernel makes in every new namespace.  None of them leads anywhere.
_IDLE_DEVICE = re.compile(r"(lo|ifb\d+|dummy\d+|bond\d+|teql\d+|tunl0|sit0|gre0|gretap0|erspan0|ip_vti0|ip6\w+0)$")

_TRANSLATION = f"""\
table ip testcloud {{
  map inward {{ type ipv4_addr : ipv4_addr; }}
  map outward {{ type ipv4_addr : ipv4_addr; }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    dnat to ip daddr map @inward
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    dnat to ip daddr map @inward
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ct status dnat snat to ip saddr map @outward
  }}
  chain caller {{
    type filter hook output priority 0; policy accept;
    ip daddr {PRIVATE_NETWORK} ip daddr != {GATEWAY} ct direction original ct status & dnat != dnat reject
  }}
}}
"""


def assert_isolated() -> None:
    """Raise NotIsolated unless this process is in a throw-away namespace with no device that leads out."""
    devices = [device["ifname"] for device in json.loads(run_tool("ip", "-j", "link"))]
    foreign = [name for name in devices if not _IDLE_DEVICE.match(name)]
    if foreign or os.environ.get(MARKER) != "1":
        why = f"has the network devices {', '.join(foreign)}" if foreign else "is not a throw-away one"
        raise NotIsolated(
            f"the machines of the test cloud do not start in this namespace, because it {why}:"
            " run the command inside of `python -m moto_fixtures isolate -- COMMAND`."
        )


def run_tool(*command: str, text: str | None = None) -> str:
    """The output of a command of the host.  Raises MachineFailed with its last words."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MachineFailed(f"the host refused `{' '.join(command)}` ({words}): check what the kernel allows here.")
    return done.stdout


class IsolatedRegion:
    """The bridge, the routes and the address translation; as a context manager."""

    def __enter__(self) -> IsolatedRegion:
        """Build the network.  Raises NotIsolated and MachineFailed."""
        assert_isolated()
        for folder in ("/run/netns", NSPAWN_FOLDER):
            Path(folder).mkdir(parents=True, exist_ok=True)
            run_tool("mount", "-t", "tmpfs", "tmpfs", folder)
        run_tool("mount", "--make-shared", "/run/netns")
        for command in self._commands():
            run_tool("ip", *command.split())
        _set_kernel("net/ipv4/ip_forward", "1")
        for name in ("all", "default", BRIDGE):
            _set_kernel(f"net/ipv4/conf/{name}/send_redirects", "0")
        run_tool("nft", "-f", "-", text=_TRANSLATION)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the network down, so that another cloud can begin in the same namespace."""
        run_tool("nft", "delete", "table", "ip", "testcloud")
        run_tool("ip", "link", "del", BRIDGE)
        run_tool("ip", "addr", "del", f"{CALLER}/32", "dev", "lo")
        run_tool("ip", "route", "del", "unreachable", "default", "metric", "4000")
        for folder in (NSPAWN_FOLDER, "/run/netns"):
            run_tool("umount", "--lazy", folder)

    def _commands(self) -> list[str]:
        return [
            "link set lo up",
            f"addr add {CALLER}/32 dev lo",
            f"link add {BRIDGE} type bridge",
            f"addr add {GATEWAY}/{PRIVATE_NETWORK.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            *(f"route add {network} dev {BRIDGE} src {CALLER}" for network in PUBLIC_NETWORKS),
            "route add unreachable default metric 4000",  # so that a wrong address fails at once
        ]

    def publish(self, private_ip: str, public_ip: str) -> None:
        """Put a public address in front of a private one."""
        run_tool("nft", "add", "element", "ip", "testcloud", "inward", f"{{ {public_ip} : {private_ip} }}")
        run_tool("nft", "add", "element", "ip", "testcloud", "outward", f"{{ {private_ip} : {public_ip} }}")

    def withdraw(self, private_ip: str, public_ip: str) -> None:
        """Take a public address away again."""
        run_tool("nft", "delete", "element", "ip", "testcloud", "inward", f"{{ {public_ip} }}")
        run_tool("nft", "delete", "element", "ip", "testcloud", "outward", f"{{ {private_ip} }}")

    def plug(self, namespace: str, device: str, private_ip: str, mac: str) -> None:
        """Make a network namespace with one interface on the bridge.

        device: the bridge's end of the cable, at most 15 characters.
        mac: stays the same over stop and start, else neighbours hold on to a stale one.
        """
        run_tool("ip", "netns", "add", namespace)
        run_tool("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run_tool("ip", "link", "set", device, "master", BRIDGE, "up")
        for command in (
            "link set lo up",
            f"link set eth0 address {mac}",
            f"addr add {private_ip}/{PRIVATE_NETWORK.prefixlen} dev eth0",
            "link set eth0 up",
            f"route add default via {GATEWAY}",
            "route add unreachable 169.254.0.0/16",
        ):
            run_tool("ip", "-n", namespace, *command.split())
        # An address that an earlier machine had is another card's now; the old entry would live on for half a minute.
        run_tool("ip", "neigh", "flush", "to", private_ip, "dev", BRIDGE)

    def unplug(self, namespace: str) -> None:
        """Remove a namespace; its cable goes with it."""
        run_tool("ip", "netns", "del", namespace)

    def enforce(self, namespace: str, rules: str) -> None:
        """Replace the packet filter of a machine.  rules: text for nft."""
        run_tool("ip", "netns", "exec", namespace, "nft", "-f", "-", text=rules)


def _set_kernel(name: str, value: str) -> None:
    (Path("/proc/sys") / name).write_text(value)
