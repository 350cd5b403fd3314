"""The states of instances, on paper."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from moto_fixtures import TestCloud


def launch(cloud: TestCloud, **more: Any) -> str:
    answer = cloud.client().run_instances(
        ImageId=cloud.image_id, InstanceType="m5.large", MinCount=1, MaxCount=1, KeyName=cloud.key_name, **more
    )
    return str(answer["Instances"][0]["InstanceId"])


def look(cloud: TestCloud, instance_id: str) -> dict[str, Any]:
    answer = cloud.client().describe_instances(InstanceIds=[instance_id])
    instance: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
    return instance


def test_an_instance_is_pending_for_one_look() -> None:
    with TestCloud(machines=False, settles=1) as cloud:
        one = launch(cloud)
        assert [look(cloud, one)["State"]["Name"] for _ in range(2)] == ["pending", "running"]


def test_a_function_says_when_an_instance_has_arrived() -> None:
    ready: set[str] = set()
    with TestCloud(machines=False, settles=ready.__contains__) as cloud:
        one = launch(cloud)
        assert [look(cloud, one)["State"]["Name"] for _ in range(3)] == ["pending"] * 3
        ready.add(one)
        assert look(cloud, one)["State"]["Name"] == "running"


def test_stop_and_start_keep_the_private_address_and_change_the_public_one(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    one = launch(light_cloud)
    light_cloud.settle()
    before = look(light_cloud, one)
    ec2.stop_instances(InstanceIds=[one])
    assert light_cloud.state(one) == "stopping"
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[one])
    light_cloud.settle()
    stopped = look(light_cloud, one)
    assert stopped["State"]["Name"] == "stopped"
    assert "PublicIpAddress" not in stopped
    ec2.start_instances(InstanceIds=[one])
    light_cloud.settle()
    after = look(light_cloud, one)
    assert after["State"]["Name"] == "running"
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]


@pytest.mark.parametrize(("behaviour", "state"), [("terminate", "terminated"), ("stop", "stopped")])
def test_a_power_off_inside_follows_the_behaviour(light_cloud: TestCloud, behaviour: str, state: str) -> None:
    one = launch(light_cloud, InstanceInitiatedShutdownBehavior=behaviour)
    light_cloud.settle()
    light_cloud.paper(one).shut_down()
    seen = look(light_cloud, one)
    assert seen["State"]["Name"] == state
    assert seen["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert ("volumes" in light_cloud.leftovers()) == (state == "stopped")


def test_a_crashed_machine_is_still_called_running_and_can_be_terminated(light_cloud: TestCloud) -> None:
    one = launch(light_cloud)
    light_cloud.settle()
    light_cloud.paper(one).crash()
    assert look(light_cloud, one)["State"]["Name"] == "running"
    light_cloud.client().terminate_instances(InstanceIds=[one])
    assert light_cloud.state(one) == "terminated"
    assert light_cloud.leftovers() == {}


def test_a_spot_instance_can_be_reclaimed(light_cloud: TestCloud) -> None:
    one = launch(light_cloud, InstanceMarketOptions={"MarketType": "spot"})
    light_cloud.settle()
    light_cloud.reclaim(one)
    assert light_cloud.state(one) == "shutting-down"
    light_cloud.settle()
    assert look(light_cloud, one)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_a_stopped_instance_can_be_terminated(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    one = launch(light_cloud)
    light_cloud.settle()
    ec2.stop_instances(InstanceIds=[one])
    light_cloud.settle()
    ec2.terminate_instances(InstanceIds=[one])
    assert light_cloud.state(one) == "terminated"
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[one])


def test_the_machine_gets_user_data_and_key(light_cloud: TestCloud) -> None:
    one = launch(light_cloud, UserData="#cloud-config\n# ä\n")
    order = light_cloud.paper(one).order
    assert order.user_data == "#cloud-config\n# ä\n".encode()
    assert order.public_key is not None
    assert order.public_key.startswith("ssh-ed25519 ")
    assert order.memory_bytes_max == 1 << 30


def test_the_console_of_an_unknown_instance_is_refused(light_cloud: TestCloud) -> None:
    one = launch(light_cloud)
    light_cloud.paper(one).console = b"hello\n"
    ec2 = light_cloud.client()
    assert ec2.get_console_output(InstanceId=one)["Output"] == "hello\n"
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.get_console_output(InstanceId="i-11111111111111111")


def test_an_instance_that_is_waited_for_in_vain_is_named_with_its_state(light_cloud: TestCloud) -> None:
    one = launch(light_cloud)
    with pytest.raises(TimeoutError, match=f"{one} is pending"):
        light_cloud.wait_state(one, "running", timeout_s=0)
