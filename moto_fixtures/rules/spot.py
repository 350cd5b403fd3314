"""Spot instances and their requests."""

from __future__ import annotations

import hashlib
from xml.sax.saxutils import escape

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal, answer

#: What a spot request is called once its instance has ended, by the reason.  Amazon EC2 User Guide,
#: "Get the status of a Spot Instance request".
_ENDED = {"Server.SpotInstanceTermination": "instance-terminated-no-capacity"}


def is_spot(call: ApiCall) -> bool:
    """Whether a launch asks for spot instances.

    Amazon EC2 API Reference, "InstanceMarketOptionsRequest": MarketType.
    """
    return call.get("InstanceMarketOptions.MarketType") == "spot"


def options_agree(call: ApiCall, region: MotoRegion) -> ApiCall:
    """A one-time request ends with its instance; only a persistent one may stop or hibernate it.

    Amazon EC2 API Reference, "SpotMarketOptions": SpotInstanceType, InstanceInterruptionBehavior.
    """
    prefix = "InstanceMarketOptions.SpotOptions"
    kind = call.get(f"{prefix}.SpotInstanceType") or "one-time"
    interruption = call.get(f"{prefix}.InstanceInterruptionBehavior") or "terminate"
    if is_spot(call) and kind == "one-time" and interruption != "terminate":
        raise ApiRefusal(
            "InvalidParameterCombination",
            f"The instance interruption behavior {interruption} is not supported for one-time Spot requests.",
        )
    return call


class SpotLedger:
    """The request of each spot instance: its id, its kind, and what became of it."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}  # instance id to one-time or persistent

    def note(self, call: ApiCall, instance_ids: list[str]) -> None:
        """Instances that a spot launch made."""
        kind = call.get("InstanceMarketOptions.SpotOptions.SpotInstanceType") or "one-time"
        for instance_id in instance_ids:
            self._kinds[instance_id] = kind

    def cannot_stop(self, call: ApiCall) -> None:
        """The instance of a one-time request cannot be stopped.  Raises ApiRefusal.

        Amazon EC2 API Reference, "StopInstances"; Amazon EC2 User Guide, "Manage your Spot Instances".
        """
        for instance_id in call.numbered("InstanceId"):
            if self._kinds.get(instance_id) == "one-time":
                raise ApiRefusal(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{instance_id}' because it is associated with a one-time Spot"
                    " Instance request. You can only stop Spot Instances associated with persistent Spot Instance"
                    " requests.",
                )

    def with_requests(self, body: bytes) -> bytes:
        """An answer about instances, with the request of each spot instance, which moto leaves out.

        Amazon EC2 API Reference, "Instance": SpotInstanceRequestId.
        """
        for instance_id in self._kinds:
            mark = f"<instanceId>{instance_id}</instanceId>".encode()
            said = f"<spotInstanceRequestId>{request_id(instance_id)}</spotInstanceRequestId>".encode()
            body = body.replace(mark, mark + said)
        return body

    def describe(self, call: ApiCall, region: MotoRegion) -> bytes:
        """The answer to DescribeSpotInstanceRequests: Amazon EC2 API Reference, the page of that name."""
        wanted = set(call.numbered("SpotInstanceRequestId"))
        known = {request_id(one): one for one in self._kinds if region.instance(one) is not None}
        for name in wanted - set(known):
            raise ApiRefusal(
                "InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{name}' does not exist"
            )
        items = [self._item(one, region) for name, one in known.items() if not wanted or name in wanted]
        return answer(call.action, f"<spotInstanceRequestSet>{''.join(items)}</spotInstanceRequestSet>")

    def _item(self, instance_id: str, region: MotoRegion) -> str:
        instance = region.instance(instance_id)
        state, code = "active", "fulfilled"
        if region.state(instance_id) in ("shutting-down", "terminated"):
            reason = getattr(getattr(instance, "state_reason", None), "code", "")
            state, code = "closed", _ENDED.get(reason, "instance-terminated-by-user")
        return (
            f"<item><spotInstanceRequestId>{request_id(instance_id)}</spotInstanceRequestId>"
            f"<instanceId>{instance_id}</instanceId><state>{state}</state><status><code>{code}</code></status>"
            f"<type>{escape(self._kinds[instance_id])}</type></item>"
        )


def request_id(instance_id: str) -> str:
    """The id of the spot request that an instance came from."""
    return f"sir-{hashlib.sha256(instance_id.encode()).hexdigest()[:8]}"
