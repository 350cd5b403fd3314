"""What the test cloud does to moto's own objects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from moto.ec2.models.instances import Instance

import moto_fixtures
from moto_fixtures import TestCloud
from moto_fixtures.account import PublicAddresses, check_moto
from moto_fixtures.errors import MotoChanged


def test_a_moto_without_a_name_that_is_relied_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Instance, "teardown_defaults")
    with pytest.raises(MotoChanged, match=r"Instance\.teardown_defaults: install moto"):
        check_moto()


def test_addresses_are_given_out_once_and_come_back() -> None:
    addresses = PublicAddresses()
    first, second = addresses.take(), addresses.take()
    assert first != second
    addresses.keep_only({second})
    taken = {addresses.take() for _ in range(600)}  # beyond the first of the two ranges
    assert len(taken) == 600
    assert not taken & {first, second}


def test_the_last_addresses_are_those_that_came_back() -> None:
    addresses = PublicAddresses()
    everything = [addresses.take() for _ in range(254 + (1 << 17) - 2)]
    with pytest.raises(RuntimeError, match="no public address left"):
        addresses.take()
    addresses.keep_only(set(everything[1:]))
    assert addresses.take() == everything[0]


def test_new_groups_of_an_instance_replace_those_of_its_interface(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    old, new = (ec2.create_security_group(GroupName=name, Description="d")["GroupId"] for name in ("old", "new"))
    run = ec2.run_instances(
        ImageId=light_cloud.image_id, InstanceType="m5.large", MinCount=1, MaxCount=1, SecurityGroupIds=[old]
    )
    one = run["Instances"][0]["InstanceId"]
    ec2.modify_instance_attribute(InstanceId=one, Groups=[new])
    (interface,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert [group["GroupId"] for group in interface["Groups"]] == [new]
    ec2.delete_security_group(GroupId=old)


def test_a_fault_of_the_test_cloud_itself_is_answered_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("on purpose")

    with TestCloud(machines=False) as cloud:
        monkeypatch.setattr(cloud.lifecycle, "reconcile", broken)
        with pytest.raises(Exception, match=r"InternalError.*ZeroDivisionError: on purpose"):
            cloud.client().create_security_group(GroupName="g", Description="d")
        assert [type(failure) for failure in cloud.failures()] == [ZeroDivisionError]


def test_the_block_of_the_readme_runs_as_it_stands() -> None:
    text = (Path(moto_fixtures.__file__).parent / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
