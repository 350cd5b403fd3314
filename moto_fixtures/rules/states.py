"""What can be done to an instance in which state: Amazon EC2 User Guide, "Amazon EC2 instance state changes"."""

from __future__ import annotations

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal


def can_start(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only a stopped instance starts; a running one stays as it is.

    Amazon EC2 API Reference, "StartInstances"; "Error codes": IncorrectInstanceState.
    """
    return _in_state(call, region, ("stopped", "running", "pending"), "started")


def can_stop(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only an instance that runs can be stopped; a stopped one stays as it is.

    Amazon EC2 API Reference, "StopInstances"; "Error codes": IncorrectInstanceState.
    """
    return _in_state(call, region, ("running", "pending", "stopping", "stopped"), "stopped")


def can_reboot(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Only an instance that runs can be rebooted.

    Amazon EC2 API Reference, "RebootInstances"; "Error codes": IncorrectInstanceState.
    """
    return _in_state(call, region, ("running", "pending"), "rebooted")


def _in_state(call: ApiCall, region: MotoRegion, states: tuple[str, ...], verb: str) -> ApiCall:
    for instance_id in call.numbered("InstanceId"):
        state = region.state(instance_id)
        if state is not None and state not in states:
            raise ApiRefusal(
                "IncorrectInstanceState",
                f"The instance '{instance_id}' is not in a state from which it can be {verb}. (it is {state})",
            )
    return call
