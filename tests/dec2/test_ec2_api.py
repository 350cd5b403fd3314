"""What dec2 asks of EC2, on the strict test cloud without machines."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dec2 import apply, cloud_init
from dec2.engines import named
from dec2.errors import Dec2Error, LaunchFailed, ProviderError, WrongUsage
from dec2.spec import ClusterSpec
from moto_fixtures import TestCloud
from tests.dec2.paper import PaperNodes

LOOKING = ("DescribeKeyPairs", "DescribeInstanceTypes", "DescribeImages")


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, light_cloud: TestCloud) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DEC2_CALLER_CIDR", f"{light_cloud.caller_address}/32")


def spec(cloud: TestCloud, count: int = 3, **more: object) -> ClusterSpec:
    options = {"name": "c", "keyname": cloud.key_name, "keypair": str(cloud.key_file), "type": "m5.large"}
    return ClusterSpec(count=count, **{**options, **more})  # type: ignore[arg-type]


def up(wanted: ClusterSpec) -> apply.UpReport:
    return apply.bring_up(wanted, PaperNodes(), named(wanted.engine), lambda node, phase: None)


def destroy(name: str = "c") -> None:
    apply.tear_down(name, PaperNodes(), lambda text: None)


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.dec2.paper", *options],
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def up_options(cloud: TestCloud, count: int = 3) -> list[str]:
    key = ["--keyname", cloud.key_name, "--keypair", str(cloud.key_file)]
    return ["up", "--name", "c", "--count", str(count), "--type", "m5.large", *key]


@pytest.mark.parametrize("count", [1, 2, 16, pytest.param(500, marks=pytest.mark.slow)])
def test_the_number_of_calls_does_not_depend_on_the_count(light_cloud: TestCloud, count: int) -> None:
    up(spec(light_cloud, count))
    made = Counter(light_cloud.actions())
    # Preflight and polling apart (two looks at what there is, twice): six calls, whatever the count.
    asked = {action: times for action, times in made.items() if action not in LOOKING}
    assert asked["CreateSecurityGroup"] == 1
    assert asked["AuthorizeSecurityGroupIngress"] == 1
    assert asked["RunInstances"] == (1 if count == 1 else 2)
    assert sum(made[action] for action in LOOKING) <= 10
    assert sum(asked.values()) - 4 <= 6
    assert len(light_cloud.calls) == sum(made.values())


def test_what_is_launched(light_cloud: TestCloud) -> None:
    up(spec(light_cloud, 4, scheduler_type="m5.xlarge", volume_size_gb=33))
    first, second = [call.parameters for call in light_cloud.calls if call.action == "RunInstances"]
    for call in (first, second):
        assert call["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert call["MetadataOptions.HttpTokens"] == "required"
        assert call["MetadataOptions.HttpPutResponseHopLimit"] == "1"
        assert call["BlockDeviceMapping.1.Ebs.Encrypted"] == "true"
        assert call["BlockDeviceMapping.1.Ebs.VolumeSize"] == "33"
        assert "IamInstanceProfile.Name" not in call
        assert len(call["ClientToken"]) == 64
    assert (first["InstanceType"], second["InstanceType"]) == ("m5.xlarge", "m5.large")
    assert (first["MaxCount"], second["MinCount"], second["MaxCount"]) == ("1", "3", "3")
    ec2 = light_cloud.client("ec2")
    (group,) = [each for each in ec2.describe_security_groups()["SecurityGroups"] if each["GroupName"] == "dec2-c"]
    ssh = [rule for rule in group["IpPermissions"] if rule.get("FromPort") == 22]
    assert [[one["CidrIp"] for one in rule["IpRanges"]] for rule in ssh] == [[f"{light_cloud.caller_address}/32"]]
    rest = [rule for rule in group["IpPermissions"] if rule not in ssh]
    assert [[pair["GroupId"] for pair in rule["UserIdGroupPairs"]] for rule in rest] == [[group["GroupId"]]]
    assert all(not rule["IpRanges"] for rule in rest)


def test_user_data_holds_one_single_use_key_and_no_other_secret(light_cloud: TestCloud, tmp_path: Path) -> None:
    report = up(spec(light_cloud, 3))
    (folder,) = (tmp_path / "state" / "dec2" / "ec2").iterdir()
    credential = (folder / "credential.pem").read_text()
    assert (folder / "credential.pem").stat().st_mode & 0o077 == 0
    for node in report.inventory.nodes:
        data = light_cloud.paper(node.id).user_data
        text = data.decode() if isinstance(data, bytes) else data
        assert len(text.encode()) <= cloud_init.USER_DATA_BYTES_MAX
        assert text.count("PRIVATE KEY") == 2  # begin and end of the host key
        assert "AKIA" not in text
        for line in credential.splitlines():
            assert line.startswith("-----") or line not in text
        scheduler = report.inventory.scheduler
        assert scheduler is not None
        assert (scheduler.private_address in text) is (node.role == "worker")


@pytest.mark.slow
def test_up_twice_is_one_cluster_and_more_is_added(light_cloud: TestCloud) -> None:
    first = up(spec(light_cloud, 3))
    light_cloud.settle()
    second = up(spec(light_cloud, 3))
    assert [node.id for node in first.inventory.nodes] == [node.id for node in second.inventory.nodes]
    third = up(spec(light_cloud, 5))
    assert {node.id for node in second.inventory.nodes} < {node.id for node in third.inventory.nodes}
    assert [node.index for node in third.inventory.nodes] == [0, 1, 2, 3, 4]
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_another_machine_lists_and_destroys(
    light_cloud: TestCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    up(spec(light_cloud, 2))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    (inventory,) = PaperNodes().clusters()
    assert (inventory.name, len(inventory.nodes), inventory.engine) == ("c", 2, "core")
    # It adds a worker with the same host key, which it finds in the user-data of the scheduler.
    light_cloud.settle()
    grown = up(spec(light_cloud, 3))
    keys = {cloud_init.host_key_in(PaperNodes().api.user_data(node.id) or "") for node in grown.inventory.nodes}
    assert len(keys) == 1
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_after_any_call(light_cloud: TestCloud, tmp_path: Path) -> None:
    """kill -9 of `up` after its k-th call, for every k: the next `up` converges, and `destroy` leaves nothing."""
    k = 0
    while True:
        k += 1
        light_cloud.faults.kill_after(k)
        killed = command(*up_options(light_cloud))
        light_cloud.faults.clear()
        if killed.returncode != -signal.SIGKILL:
            break
        again = up(spec(light_cloud, 3))
        assert len([each for each in again.inventory.nodes if each.alive]) == 3
        destroy()
        assert light_cloud.leftovers() == {}
    assert killed.returncode == 0, killed.stderr
    assert k > 8
    destroy()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_destroy_killed_after_any_call(light_cloud: TestCloud) -> None:
    k = 0
    while True:
        k += 1
        up(spec(light_cloud, 3))
        light_cloud.faults.kill_after(k)
        killed = command("destroy", "c", "-y", "--provider", "ec2")
        light_cloud.faults.clear()
        destroy()
        assert light_cloud.leftovers() == {}
        if killed.returncode != -signal.SIGKILL:
            break
    assert killed.returncode == 0, killed.stderr
    assert k > 4


def test_a_lost_reply_launches_nothing_twice(light_cloud: TestCloud) -> None:
    light_cloud.faults.lose_reply("RunInstances")
    assert len(up(spec(light_cloud, 3)).inventory.nodes) == 3
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_throttling_is_waited_out(light_cloud: TestCloud) -> None:
    light_cloud.faults.throttle(times=2)
    assert len(up(spec(light_cloud, 2)).inventory.nodes) == 2


@pytest.mark.slow
def test_instances_that_ended_are_replaced_and_not_answered_again(light_cloud: TestCloud) -> None:
    first = up(spec(light_cloud, 2))
    light_cloud.settle()
    for node in first.inventory.nodes:
        light_cloud.paper(node.id).shut_down()
    light_cloud.settle()
    second = up(spec(light_cloud, 2))
    alive = {node.id for node in second.inventory.nodes if node.alive}
    assert len(alive) == 2
    assert not alive & {node.id for node in first.inventory.nodes}
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.slow
def test_no_capacity_is_one_sentence_and_leaves_no_instance(light_cloud: TestCloud) -> None:
    light_cloud.capacity.set("m5.large", "*", 1)
    with pytest.raises(LaunchFailed, match="try another --type"):
        up(spec(light_cloud, 3))
    destroy()
    assert light_cloud.leftovers() == {}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keyname": "nobody"}, "there is no key pair nobody"),
        ({"keypair": "/no/such/file"}, "is no private key that can be read"),
        ({"type": "m5.gigantic"}, "there is no instance type m5.gigantic"),
        ({"type": "m6g.large", "scheduler_type": "m5.large"}, "different architectures"),
        ({"ami": "ami-00000000000000000"}, "leave --ami out"),
    ],
)
def test_preflight_makes_nothing(light_cloud: TestCloud, options: dict[str, str], text: str) -> None:
    with pytest.raises(Dec2Error, match=text):
        up(spec(light_cloud, 2, **options))
    assert light_cloud.leftovers() == {}


def test_a_permission_that_is_missing_is_named(light_cloud: TestCloud) -> None:
    light_cloud.faults.deny("CreateSecurityGroup")
    with pytest.raises(ProviderError, match=r"UnauthorizedOperation.*ask for the permission"):
        up(spec(light_cloud, 2))


def test_without_credentials(monkeypatch: pytest.MonkeyPatch, light_cloud: TestCloud) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(WrongUsage, match="aws configure"):
        PaperNodes().observe("c")
