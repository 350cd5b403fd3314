"""The form of requests, permissions, dry runs and rates."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request

import botocore.session
import pytest

from moto_fixtures import TestCloud
from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.rates import Rate, RateLimits
from moto_fixtures.rules.requests import as_parameters, check_request, takes_dry_run
from tests.moto_fixtures.test_strict import launch, refused


def asked(cloud: TestCloud, **pairs: str) -> tuple[int, str]:
    """Send a request that no library of AWS has made; the status and the body."""
    form = urllib.parse.urlencode({"Version": "2016-11-15", **pairs}).encode()
    scope = "AWS4-HMAC-SHA256 Credential=testcloud/20250101/us-east-1/ec2/aws4_request"
    try:
        with urllib.request.urlopen(urllib.request.Request(cloud.url, form, {"Authorization": scope})) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ({"Action": "DescribeInstances", "InstanceIds.1": "i-0"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "Filter.1.Names": "x"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "Filter.one.Name": "x"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "InstanceId": "i-0"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "DryRun": "perhaps"}, "InvalidParameterValue"),
        ({"Action": "TerminateInstances"}, "MissingParameter"),
        ({"Action": "LaunchRockets"}, "InvalidAction"),
    ],
)
def test_what_botocore_could_not_say_is_refused(light_cloud: TestCloud, pairs: dict[str, str], code: str) -> None:
    status, body = asked(light_cloud, **pairs)
    assert status == 400
    assert f"<Code>{code}</Code>" in body


def test_a_request_by_hand_that_is_right_is_answered(light_cloud: TestCloud) -> None:
    named = {"Filter.1.Name": "key-name", "Filter.1.Value.1": "x"}
    status, body = asked(light_cloud, Action="DescribeInstances", MaxResults="5", **named)
    assert status == 200
    assert "DescribeInstancesResponse" in body


def test_what_botocore_says_is_read_back() -> None:
    model = botocore.session.get_session().get_service_model("ec2")
    wanted = {
        "ImageId": "ami-0",
        "MinCount": 1,
        "MaxCount": 12,
        "DryRun": False,
        "UserData": "eHg=",
        "SecurityGroupIds": [f"sg-{number}" for number in range(11)],
        "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["a", "b"]}],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": ""}]}],
    }
    serializer = botocore.serialize.create_serializer("ec2")
    body = serializer.serialize_to_request(wanted, model.operation_model("RunInstances"))["body"]
    pairs = tuple((key, str(value)) for key, value in body.items() if key not in ("Action", "Version"))
    call = ApiCall(1, "ec2", "us-east-1", "RunInstances", "", pairs)
    check_request(call)
    assert as_parameters(call) == wanted


# -- permissions and dry runs


def test_a_missing_permission_is_refused_and_can_be_decoded(light_cloud: TestCloud) -> None:
    light_cloud.permissions.deny("ec2:RunInstances")
    with refused("UnauthorizedOperation") as caught:
        launch(light_cloud)
    text = caught.value.response["Error"]["Message"]
    assert "is not authorized to perform: ec2:RunInstances" in text
    message = text.rpartition(": ")[2]
    answer = light_cloud.client("sts").decode_authorization_message(EncodedMessage=message)
    said = json.loads(answer["DecodedMessage"])
    assert (said["explicitDeny"], said["context"]["action"]) == (True, "ec2:RunInstances")
    with refused("InvalidAuthorizationMessageException"):
        light_cloud.client("sts").decode_authorization_message(EncodedMessage="nonsense")


def test_tags_at_creation_and_roles_need_permissions_of_their_own(light_cloud: TestCloud) -> None:
    light_cloud.permissions.allow_only("ec2:RunInstances")
    launch(light_cloud)
    with refused("UnauthorizedOperation") as caught:
        launch(light_cloud, TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "k", "Value": "v"}]}])
    assert "ec2:CreateTags" in caught.value.response["Error"]["Message"]
    with refused("UnauthorizedOperation") as caught:
        launch(light_cloud, IamInstanceProfile={"Name": "p"})
    assert "iam:PassRole" in caught.value.response["Error"]["Message"]
    with refused("UnauthorizedOperation"):
        light_cloud.client().describe_instances()


def test_a_dry_run_does_nothing_and_says_whether_it_could(light_cloud: TestCloud) -> None:
    ec2 = light_cloud.client()
    (one,) = launch(light_cloud)
    light_cloud.settle()
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    ids = {"InstanceIds": [one["InstanceId"]], "DryRun": True}
    tag = {"Resources": [group], "Tags": [{"Key": "k", "Value": "v"}], "DryRun": True}
    before = light_cloud.leftovers()
    for call, wanted in [
        (ec2.stop_instances, ids),
        (ec2.terminate_instances, ids),
        (ec2.reboot_instances, ids),
        (ec2.create_tags, tag),
        (ec2.delete_security_group, {"GroupId": group, "DryRun": True}),
        (ec2.create_security_group, {"GroupName": "h", "Description": "d", "DryRun": True}),
        (ec2.authorize_security_group_ingress, {"GroupId": group, "IpPermissions": [], "DryRun": True}),
        (ec2.create_key_pair, {"KeyName": "k", "DryRun": True}),
    ]:
        with refused("DryRunOperation") as caught:
            call(**wanted)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert light_cloud.leftovers() == before
    assert light_cloud.state(one["InstanceId"]) == "running"
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0].get("Tags", []) == []
    light_cloud.permissions.deny("ec2:TerminateInstances")
    with refused("UnauthorizedOperation"):
        ec2.terminate_instances(**ids)
    with refused("DryRunOperation"):
        ec2.describe_instances(DryRun=True)


def test_every_call_that_changes_a_cluster_has_a_dry_run() -> None:
    for action in ("RunInstances", "TerminateInstances", "CreateTags", "AuthorizeSecurityGroupIngress"):
        assert takes_dry_run(action)
    assert not takes_dry_run("DescribeHosts")


# -- rates


def call_of(action: str, **pairs: str) -> ApiCall:
    return ApiCall(1, "ec2", "us-east-1", action, "", tuple(pairs.items()))


class HandClock:
    """A clock that a test turns."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_empties_and_fills() -> None:
    limits, clock = RateLimits(), HandClock()
    limits.on, limits.clock = True, clock
    one = call_of("RunInstances", MinCount="1", MaxCount="1")
    for _ in range(5):
        limits.take(one)
    with pytest.raises(ApiRefusal, match="RequestLimitExceeded"):
        limits.take(one)
    clock.now_s = 0.5
    limits.take(one)
    with pytest.raises(ApiRefusal, match="RequestLimitExceeded"):
        limits.take(one)
    limits.take(call_of("DescribeInstances"))  # another bucket


def test_resources_have_buckets_too() -> None:
    limits, clock = RateLimits(), HandClock()
    limits.on, limits.clock = True, clock
    limits.take(call_of("RunInstances", MinCount="1", MaxCount="1000"))
    with pytest.raises(ApiRefusal, match="RequestLimitExceeded"):
        limits.take(call_of("RunInstances", MinCount="1", MaxCount="1"))
    clock.now_s = 0.5
    limits.take(call_of("RunInstances", MinCount="1", MaxCount="1"))


def test_a_look_at_everything_costs_more_of_its_bucket() -> None:
    limits = RateLimits()
    limits.on, limits.clock = True, HandClock()
    taken = 0
    with pytest.raises(ApiRefusal):
        while taken < 101:
            limits.take(call_of("DescribeVolumes", MaxResults="5"))
            taken += 1
    assert taken == 100
    taken = 0
    with pytest.raises(ApiRefusal):
        while taken < 101:
            limits.take(call_of("DescribeSubnets"))
            taken += 1
    assert taken == 50


def test_the_api_throttles_when_told(light_cloud: TestCloud) -> None:
    light_cloud.rates.clock = HandClock()
    light_cloud.rates.calls["DescribeInstances"] = Rate(2, 1)
    ec2 = light_cloud.client()
    for _ in range(3):
        ec2.describe_instances()
    light_cloud.rates.on = True
    for _ in range(2):
        ec2.describe_instances()
    with refused("RequestLimitExceeded") as caught:
        ec2.describe_instances()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
