"""The EC2 API: the one door to boto3. Every error leaves here as one sentence of ours."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from dec2 import tags
from dec2.errors import LaunchFailed, NotGone, ProviderError, WrongUsage

DEBIAN_OWNER = "136693071363"
DEBIAN_USER = "admin"
_FIRST_POLL_S = 0.2
_POLL_MAX_S = 5.0
#: EC2 shows what was made only after a while; longer than this is no delay but absence.
VISIBLE_WITHIN_S = 60.0
_SENTENCES = {
    "AuthFailure": "AWS does not accept your credentials; run: aws configure",
    "UnauthorizedOperation": "your AWS user may not do this; ask for the permission that is named",
    "InvalidKeyPair.NotFound": "there is no such key pair in this region; aws ec2 describe-key-pairs lists yours",
    "InvalidAMIID.NotFound": "there is no such image in this region; leave --ami out for Debian 12",
    "InvalidInstanceType": "there is no such instance type; choose another --type",
    "InvalidSubnetID.NotFound": "there is no such subnet in this region; aws ec2 describe-subnets lists yours",
    "InsufficientInstanceCapacity": "AWS has no such instances left in this zone; try another --type or --subnet",
    "VcpuLimitExceeded": "your account's vCPU quota is used up; ask AWS for more, or take fewer or smaller instances",
    "InstanceLimitExceeded": "your account's instance quota is used up; ask AWS for more, or take fewer instances",
    "RequestLimitExceeded": "AWS throttles your account; try again in a minute",
    "VPCIdNotSpecified": "this region has no default VPC; name a subnet with --subnet",
}


@contextlib.contextmanager
def mapped(what: str, error_type: type[ProviderError] = ProviderError) -> Iterator[None]:
    """Turn what boto3 raises into one sentence: what was tried, what AWS says, what to do."""
    try:
        yield
    except NoCredentialsError:
        raise WrongUsage("there are no AWS credentials on this machine; run: aws configure") from None
    except NoRegionError:
        raise WrongUsage("no AWS region is set; add --region, or run: aws configure") from None
    except ClientError as error:
        code, text = code_of(error), error.response["Error"].get("Message", "")
        hint = _SENTENCES.get(code) or _SENTENCES.get(code.partition(".")[0])
        raise error_type(f"{what}: {code}: {text}" + (f" ({hint})" if hint else "")) from error
    except BotoCoreError as error:
        raise error_type(f"{what}: {error}; check the network and the region") from None


def is_set_up() -> bool:
    """Whether this machine has credentials and a region."""
    session = boto3.session.Session()
    return session.region_name is not None and session.get_credentials() is not None


def code_of(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


class EC2Api:
    """The few calls that dec2 makes. Retries and throttling are botocore's."""

    def __init__(self, region: str | None) -> None:
        with mapped("setting up EC2"):
            session = boto3.session.Session(region_name=region)
            config = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
            self.client: Any = session.client("ec2", config=config)
            self.region = str(self.client.meta.region_name)

    # --- looking ------------------------------------------------------------------------------

    def instances(self, *filters: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all instances that the filters let through, in any state."""
        with mapped("looking for instances"):
            pages = self.client.get_paginator("describe_instances").paginate(Filters=list(filters))
            return [one for page in pages for each in page["Reservations"] for one in each["Instances"]]

    def groups(self, *filters: dict[str, Any]) -> list[dict[str, Any]]:
        with mapped("looking for security groups"):
            return list(self.client.describe_security_groups(Filters=list(filters))["SecurityGroups"])

    def volumes(self, cluster: str) -> list[str]:
        with mapped("looking for volumes"):
            found = self.client.describe_volumes(Filters=[by_cluster(cluster)])["Volumes"]
            return [each["VolumeId"] for each in found if each["State"] not in ("deleting", "deleted")]

    def interfaces(self, cluster: str) -> list[str]:
        with mapped("looking for network interfaces"):
            found = self.client.describe_network_interfaces(Filters=[by_cluster(cluster)])["NetworkInterfaces"]
            return [each["NetworkInterfaceId"] for each in found]

    def key_pair(self, name: str) -> str:
        """Return the public key of a key pair.

        Raises
        ------
        WrongUsage
            There is none of that name in the region.
        """
        try:
            found = self.client.describe_key_pairs(KeyNames=[name], IncludePublicKey=True)["KeyPairs"]
            return str(found[0]["PublicKey"])
        except ClientError as error:
            if code_of(error) != "InvalidKeyPair.NotFound":
                with mapped("looking for the key pair"):
                    raise
        except BotoCoreError:
            with mapped("looking for the key pair"):
                raise
        raise WrongUsage(
            f"there is no key pair {name} in {self.region}; aws ec2 describe-key-pairs lists yours"
        ) from None

    def image(self, ami: str | None, architecture: str) -> dict[str, Any]:
        """Return the image: the named one, or the newest Debian 12."""
        with mapped("looking for the image"):
            if ami is not None:
                found = self.client.describe_images(ImageIds=[ami])["Images"]
            else:
                label = "amd64" if architecture == "x86_64" else "arm64"
                wanted = [
                    {"Name": "name", "Values": [f"debian-12-{label}-*"]},
                    {"Name": "architecture", "Values": [architecture]},
                    {"Name": "state", "Values": ["available"]},
                ]
                found = self.client.describe_images(Owners=[DEBIAN_OWNER], Filters=wanted)["Images"]
        if not found:
            raise WrongUsage(f"there is no image {ami or 'of Debian 12'} in {self.region}; name one with --ami")
        images: list[dict[str, Any]] = list(found)
        return max(images, key=lambda image: str(image.get("CreationDate", "")))

    def architecture(self, instance_type: str) -> str:
        """Return `x86_64` or `arm64`.

        Raises
        ------
        WrongUsage
            There is no such type in the region.
        """
        try:
            found = self.client.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
        except ClientError as error:
            if not code_of(error).startswith("InvalidInstanceType"):
                with mapped("looking for the instance type"):
                    raise
            found = []
        if not found:
            raise WrongUsage(f"there is no instance type {instance_type} in {self.region}; choose another --type")
        names = found[0]["ProcessorInfo"]["SupportedArchitectures"]
        return "arm64" if "arm64" in names else "x86_64"

    def subnet(self, subnet: str) -> dict[str, Any]:
        with mapped(f"looking for the subnet {subnet}"):
            return dict(self.client.describe_subnets(SubnetIds=[subnet])["Subnets"][0])

    def user_data(self, instance: str) -> str | None:
        """Return the user-data that an instance was started with."""
        with mapped("reading the user-data"):
            answer = self.client.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        value = answer.get("UserData", {}).get("Value")
        return base64.b64decode(value).decode() if value else None

    # --- making -------------------------------------------------------------------------------

    def create_group(self, name: str, vpc: str | None, group_tags: list[dict[str, str]]) -> dict[str, Any]:
        """Make the security group, or adopt the one of that name: who comes second uses the first one's."""
        request: dict[str, Any] = {
            "GroupName": f"dec2-{name}",
            "Description": f"The dec2 cluster {name}",
            "TagSpecifications": [{"ResourceType": "security-group", "Tags": group_tags}],
        }
        if vpc is not None:
            request["VpcId"] = vpc
        try:
            made = self.client.create_security_group(**request)
            return {"GroupId": made["GroupId"], "IpPermissions": [], "Tags": group_tags}
        except ClientError as error:
            if code_of(error) != "InvalidGroup.Duplicate":
                with mapped("making the security group"):
                    raise
        named = {"Name": "group-name", "Values": [f"dec2-{name}"]}
        text = f"the security group dec2-{name} exists and is not shown; run dec2 up again in a minute"
        found = polled(lambda: self.groups(named) or None, VISIBLE_WITHIN_S, text, ProviderError)
        if tags.as_dict(found[0].get("Tags")).get(tags.CLUSTER) != name:
            raise ProviderError(f"a security group dec2-{name} exists and is not dec2's; choose another --name")
        return dict(found[0])

    def open_group(self, group: dict[str, Any], cidr: str) -> None:
        """Let `cidr` in on port 22, and the members of the group to each other; what is there already stays."""
        permissions = group.get("IpPermissions", [])
        wanted: list[dict[str, Any]] = []
        if not any(pair["GroupId"] == group["GroupId"] for each in permissions for pair in each["UserIdGroupPairs"]):
            wanted.append({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]})
        ssh = [each for each in permissions if each.get("FromPort") == 22 and each.get("ToPort") == 22]
        if not any(one["CidrIp"] == cidr for each in ssh for one in each["IpRanges"]):
            ranges = [{"CidrIp": cidr, "Description": "SSH from who started it"}]
            wanted.append({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": ranges})
        if not wanted:
            return
        with mapped("opening the security group"):
            try:
                request = {"GroupId": group["GroupId"], "IpPermissions": wanted}
                _once_visible(self.client.authorize_security_group_ingress, "InvalidGroup.NotFound", request)
            except ClientError as error:
                if code_of(error) != "InvalidPermission.Duplicate":
                    raise

    def run(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Launch; the request brings a client token, so that it can be repeated."""
        with mapped("launching instances", LaunchFailed):
            return list(_once_visible(self.client.run_instances, "InvalidGroup.NotFound", request)["Instances"])

    def tag(self, resource: str, named: dict[str, str]) -> None:
        with mapped(f"tagging {resource}"):
            request = {"Resources": [resource], "Tags": tags.as_list(named)}
            _once_visible(self.client.create_tags, "InvalidInstanceID.NotFound", request)

    # --- ending -------------------------------------------------------------------------------

    def terminate(self, ids: list[str], cluster: str) -> None:
        """End instances of a cluster, and return when they have ended."""
        with mapped("ending instances"):
            _once_visible(self.client.terminate_instances, "InvalidInstanceID.NotFound", {"InstanceIds": ids})
        text = "instances do not end; look at them in the console"
        polled(lambda: self._all_terminated(ids, cluster), 600, text, NotGone)

    def _all_terminated(self, ids: list[str], cluster: str) -> bool | None:
        # By the tag and not by the ids: EC2 takes 200 values in a filter.
        states = {each["InstanceId"]: each["State"]["Name"] for each in self.instances(by_cluster(cluster))}
        return True if all(states.get(each) == "terminated" for each in ids) else None

    def delete_group(self, group: str, cluster: str) -> None:
        """Delete the security group. That AWS does it proves that no interface, hence no instance, is in it.

        What is still in use has an instance that was not shown before: it is ended now.
        """

        def attempt() -> bool | None:
            with mapped("deleting the security group"):
                try:
                    self.client.delete_security_group(GroupId=group)
                except ClientError as error:
                    if code_of(error) == "InvalidGroup.NotFound":
                        return True
                    if code_of(error) != "DependencyViolation":
                        raise
                    self._end_late_ones(cluster)
                    return None
            return True

        polled(attempt, 300, f"the security group {group} is still in use; run dec2 destroy again", NotGone)

    def _end_late_ones(self, cluster: str) -> None:
        found = self.instances(by_cluster(cluster))
        late = [each["InstanceId"] for each in found if each["State"]["Name"] not in ("shutting-down", "terminated")]
        if late:
            self.client.terminate_instances(InstanceIds=late)


def _once_visible(call: Callable[..., Any], code: str, request: dict[str, Any]) -> Any:
    """Make a call about something that EC2 may not know of yet: try again while it says `code`."""

    def attempt() -> Any:
        try:
            return call(**request)
        except ClientError as error:
            if code_of(error) != code or time.monotonic() >= deadline:
                raise
            return None

    deadline = time.monotonic() + VISIBLE_WITHIN_S
    return polled(attempt, 2 * VISIBLE_WITHIN_S, code, ProviderError)


def polled(attempt: Callable[[], Any], timeout_s: float, late: str, error_type: type[ProviderError]) -> Any:
    """Call `attempt` until it gives something, ever more slowly.

    Raises
    ------
    ProviderError
        The one of `error_type`, with the text `late`: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_POLL_S
    while True:
        value = attempt()
        if value is not None:
            return value
        if time.monotonic() >= deadline:
            raise error_type(late)
        time.sleep(pause_s)
        pause_s = min(_POLL_MAX_S, pause_s * 1.4)


def by_cluster(cluster: str) -> dict[str, Any]:
    """Return the filter for what belongs to a cluster."""
    return {"Name": f"tag:{tags.CLUSTER}", "Values": [cluster]}
