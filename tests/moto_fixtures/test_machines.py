"""Instances that boot: every test talks to real machines."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import psutil
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moto_fixtures import TestCloud
from moto_fixtures.machine import NspawnMachine

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(180)]

SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}


class Pair:
    """Two machines in one group, with a host key of our own."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self.ec2 = cloud.client()
        self.group = self.ec2.create_security_group(GroupName="pair", Description="d")["GroupId"]
        self.allow({**SSH, "IpRanges": [{"CidrIp": f"{cloud.caller_address}/32"}]})
        self.allow({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]})
        host_key = Ed25519PrivateKey.generate()
        secret = host_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ).decode()
        public = host_key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.host_key = paramiko.PKey.from_type_string("ssh-ed25519", base64.b64decode(public.split()[1]))
        self.user_data = "\n".join(
            [
                "#cloud-config",
                "write_files:",
                "- path: /etc/hello",
                "  content: hello from user-data",
                "runcmd:",
                "- [systemd-run, --unit=web, --collect, python3, -m, http.server, '8786']",
                "ssh_keys:",
                "  ed25519_private: |",
                *(f"    {line}" for line in secret.splitlines()),
                f"  ed25519_public: {public.decode()}",
                "",
            ]
        )
        self.ids = [one["InstanceId"] for one in self.launch(2)]
        for instance_id in self.ids:
            self.ready(instance_id)

    def launch(self, count: int, **more: Any) -> list[dict[str, Any]]:
        answer = self.ec2.run_instances(
            ImageId=self.cloud.image_id,
            InstanceType="m5.large",
            MinCount=count,
            MaxCount=count,
            KeyName=self.cloud.key_name,
            SecurityGroupIds=[self.group],
            UserData=self.user_data,
            **more,
        )
        instances: list[dict[str, Any]] = answer["Instances"]
        return instances

    def ready(self, instance_id: str) -> NspawnMachine:
        """Wait until cloud-init is through."""
        self.cloud.wait_state(instance_id, "running", 30)
        machine = self.cloud.machine(instance_id)
        assert machine.wait_cloud_init() == "status: done"
        return machine

    def allow(self, *rules: dict[str, Any]) -> None:
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=list(rules))

    def forbid(self, *rules: dict[str, Any]) -> None:
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=list(rules))

    def seen(self, instance_id: str) -> dict[str, Any]:
        answer = self.ec2.describe_instances(InstanceIds=[instance_id])
        instance: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
        return instance

    def public_ip(self, instance_id: str) -> str:
        return str(self.seen(instance_id)["PublicIpAddress"])

    @contextlib.contextmanager
    def login(self, instance_id: str) -> Iterator[Callable[[str], str]]:
        """Log in with the key pair, if the machine presents the host key of the user-data."""
        address = self.public_ip(instance_id)
        with paramiko.SSHClient() as client:
            client.get_host_keys().add(address, "ssh-ed25519", self.host_key)
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            key = paramiko.Ed25519Key.from_private_key_file(str(self.cloud.key_file))
            options = {"allow_agent": False, "look_for_keys": False, "timeout": 10}
            client.connect(address, username=self.cloud.username, pkey=key, **options)

            def run(command: str) -> str:
                _, output, errors = client.exec_command(command, timeout=60)
                text = output.read().decode()
                code = output.channel.recv_exit_status()
                assert code == 0, f"{command}: exit code {code}: {errors.read().decode()}"
                return text

            yield run


@pytest.fixture(scope="module")
def pair(cloud: TestCloud) -> Pair:
    return Pair(cloud)


def test_user_data_and_key_pair_and_host_key_are_applied(pair: Pair) -> None:
    for instance_id in pair.ids:
        with pair.login(instance_id) as run:
            assert run("cat /etc/hello") == "hello from user-data"
            assert run("id -un").strip() == "admin"
            assert run("sudo -n id -u").strip() == "0"
            assert run("cloud-init query instance_id").strip() == instance_id
            assert run("python3 --version").startswith("Python 3.11")
            assert run("systemctl is-system-running --wait").strip() == "running"
            private = pair.seen(instance_id)["PrivateIpAddress"]
            assert private in run("ip -4 -oneline addr show eth0")
            assert run("hostname").strip() == f"ip-{private.replace('.', '-')}"


def test_machines_have_no_way_out(pair: Pair) -> None:
    machine = pair.cloud.machine(pair.ids[0])
    for address in ("192.0.2.1", "169.254.169.254", "10.0.0.1"):
        script = f"import socket; socket.create_connection(('{address}', 80), 5)"
        with pytest.raises(Exception, match=r"unreachable|refused|No route"):
            machine.run("python3", "-c", script)


def test_security_groups_are_enforced_and_follow_each_call(pair: Pair) -> None:
    address = pair.public_ip(pair.ids[0])
    web = {"IpProtocol": "tcp", "FromPort": 8786, "ToPort": 8786}
    rule = {**web, "IpRanges": [{"CidrIp": f"{pair.cloud.caller_address}/32"}]}
    with pytest.raises(TimeoutError):
        socket.create_connection((address, 8786), timeout=1)
    pair.allow(rule)
    socket.create_connection((address, 8786), timeout=5).close()
    pair.forbid(rule)
    with pytest.raises(TimeoutError):
        socket.create_connection((address, 8786), timeout=1)
    pair.allow({**web, "IpRanges": [{"CidrIp": "203.0.113.77/32"}]})  # somebody else's address
    with pytest.raises(TimeoutError):
        socket.create_connection((address, 8786), timeout=1)


def test_members_of_a_group_reach_each_other_and_the_caller_has_no_private_way(pair: Pair) -> None:
    one, other = pair.ids
    private = pair.seen(other)["PrivateIpAddress"]
    with pair.login(one) as run:
        assert "Directory listing" in run(f"curl -sS --max-time 5 http://{private}:8786/")
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection((private, 22), timeout=5)


def test_the_public_address_of_a_peer_is_translated(pair: Pair) -> None:
    one, other = pair.ids
    rule = {"IpProtocol": "tcp", "FromPort": 8786, "ToPort": 8786}
    rule["IpRanges"] = [{"CidrIp": f"{pair.public_ip(one)}/32"}]  # type: ignore[assignment]
    ask = f"curl -sS --max-time 2 http://{pair.public_ip(other)}:8786/"
    with pair.login(one) as run:
        with pytest.raises(AssertionError, match="timed out"):
            run(ask)  # the group names its members by their private addresses, as on EC2
        pair.allow(rule)
        assert "Directory listing" in run(ask)
    pair.forbid(rule)


def test_the_console_is_served(pair: Pair) -> None:
    output = pair.ec2.get_console_output(InstanceId=pair.ids[0])["Output"]
    assert "Cloud-init v." in output
    assert output in pair.cloud.console(pair.ids[0])


def test_a_reboot_by_the_api_keeps_the_machine(pair: Pair) -> None:
    machine = pair.cloud.machine(pair.ids[1])
    boots = machine.boots
    before = machine.run("stat", "--format=%Z", "/proc/1")
    pair.ec2.reboot_instances(InstanceIds=[pair.ids[1]])
    machine.wait_boots(boots + 1)
    assert pair.cloud.state(pair.ids[1]) == "running"
    pair.ready(pair.ids[1])
    assert machine.run("stat", "--format=%Z", "/proc/1") != before
    with pair.login(pair.ids[1]) as run:
        assert run("cat /etc/hello") == "hello from user-data"


def test_a_frozen_machine_takes_connections_and_says_nothing(pair: Pair) -> None:
    machine = pair.cloud.machine(pair.ids[0])
    machine.freeze()
    try:
        with socket.create_connection((pair.public_ip(pair.ids[0]), 22), timeout=2) as connection:
            with pytest.raises(TimeoutError):
                connection.recv(3)
            machine.thaw()
            connection.settimeout(20)
            assert connection.recv(3) == b"SSH"
    finally:
        machine.thaw()


def test_a_process_that_takes_too_much_memory_is_killed_and_the_machine_lives(pair: Pair) -> None:
    machine = pair.cloud.machine(pair.ids[0])
    with pair.login(pair.ids[0]) as run:
        assert run("python3 -c 'bytearray(3 << 29)'; echo $?").strip() == "137"
    assert machine.run("systemctl", "is-active", "ssh").strip() == "active"


def test_stop_and_start_keep_disk_and_private_address(pair: Pair) -> None:
    one = pair.ids[0]
    before = pair.seen(one)
    with pair.login(one) as run:
        run("echo kept | sudo tee /root/kept && sudo rm /etc/hello")
    pair.ec2.stop_instances(InstanceIds=[one])
    assert pair.cloud.state(one) == "stopping"
    pair.cloud.wait_state(one, "stopped", 30)
    assert "PublicIpAddress" not in pair.seen(one)
    pair.ec2.start_instances(InstanceIds=[one])
    machine = pair.ready(one)
    after = pair.seen(one)
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    assert machine.run("cat", "/root/kept") == "kept\n"
    with pair.login(one) as run:  # the host key stayed, and so did what was done to the disk
        assert run("test ! -e /etc/hello && echo gone").strip() == "gone"


def test_a_power_off_inside_terminates(pair: Pair) -> None:
    (launched,) = pair.launch(1, InstanceInitiatedShutdownBehavior="terminate")
    one = launched["InstanceId"]
    pair.ready(one)
    with pair.login(one) as run:
        run("sudo systemd-run --collect systemctl poweroff")
    pair.cloud.wait_state(one, "terminated", 30)
    assert pair.seen(one)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert nothing_of(pair.cloud, one)


def test_a_power_off_inside_stops_if_that_is_the_behaviour(pair: Pair) -> None:
    (launched,) = pair.launch(1, InstanceInitiatedShutdownBehavior="stop")
    one = launched["InstanceId"]
    pair.ready(one).shut_down()
    pair.cloud.wait_state(one, "stopped", 30)
    assert pair.cloud.machine(one).disk.is_dir()
    pair.ec2.terminate_instances(InstanceIds=[one])
    assert pair.cloud.state(one) == "terminated"
    assert nothing_of(pair.cloud, one)


def test_a_machine_can_be_terminated_while_it_boots(pair: Pair) -> None:
    (launched,) = pair.launch(1)
    pair.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    pair.cloud.wait_state(launched["InstanceId"], "terminated", 60)
    assert nothing_of(pair.cloud, launched["InstanceId"])


def test_a_crashed_machine_stays_running_until_it_is_terminated(pair: Pair) -> None:
    one = pair.launch(1)[0]["InstanceId"]
    machine = pair.ready(one)
    machine.crash()
    machine.join()
    assert pair.cloud.state(one) == "running"
    pair.ec2.terminate_instances(InstanceIds=[one])
    assert pair.cloud.state(one) == "terminated"


def test_the_group_goes_after_the_last_machine_and_nothing_is_left(pair: Pair) -> None:
    with pytest.raises(ClientError, match="DependencyViolation"):
        pair.ec2.delete_security_group(GroupId=pair.group)
    pair.ec2.terminate_instances(InstanceIds=pair.ids)
    for instance_id in pair.ids:
        pair.cloud.wait_state(instance_id, "terminated", 60)
    pair.ec2.delete_security_group(GroupId=pair.group)
    assert pair.cloud.leftovers() == {}
    for instance_id in pair.ids:
        assert nothing_of(pair.cloud, instance_id)
        assert "Cloud-init v." in pair.cloud.console(instance_id)  # EC2 shows it for a while
    assert pair.cloud.failures() == []


def nothing_of(cloud: TestCloud, instance_id: str) -> bool:
    """Whether a machine has left neither process, namespace, mount, interface nor cgroup."""
    processes = [p for p in psutil.process_iter(["cmdline"]) if instance_id in " ".join(p.info["cmdline"] or [])]
    assert processes == []
    assert instance_id not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
    assert instance_id not in Path("/proc/mounts").read_text()
    assert instance_id not in cloud.machines
    groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(instance_id[-8:])]
    assert groups == []
    return True
