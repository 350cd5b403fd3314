"""Token buckets for calls and for resources.

Amazon EC2 Developer Guide, "Request throttling for the Amazon EC2 API".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.launch import counts


@dataclass(frozen=True)
class Rate:
    """The size of a bucket, and how many tokens come back to it in a second."""

    size: float
    refill_per_s: float


#: Buckets of calls: by the name of the call, else by its kind.
CALLS = {
    "looking": Rate(100, 20),
    "looking at all": Rate(50, 10),
    "changing": Rate(50, 5),
    "RunInstances": Rate(5, 2),
    "StartInstances": Rate(5, 2),
    "TerminateInstances": Rate(100, 5),
    "CreateTags": Rate(100, 10),
    "DeleteTags": Rate(100, 10),
}
#: Buckets of resources: each instance of a call takes a token.
RESOURCES = {
    "RunInstances": Rate(1000, 2),
    "StartInstances": Rate(1000, 2),
    "StopInstances": Rate(1000, 20),
    "TerminateInstances": Rate(1000, 20),
}


class RateLimits:
    """The buckets of an account; asleep until `on` is set.

    calls, resources: the rates, to be changed at will.  clock: seconds, as `time.monotonic` gives them.
    """

    def __init__(self) -> None:
        self.on = False
        self.calls = dict(CALLS)
        self.resources = dict(RESOURCES)
        self.clock: Callable[[], float] = time.monotonic
        self._levels: dict[tuple[str, str, str], tuple[float, float]] = {}  # tokens, and when they were counted

    def take(self, call: ApiCall) -> None:
        """Take the tokens of a call.  Raises ApiRefusal with RequestLimitExceeded if there are not enough."""
        if not self.on:
            return
        rate = self.calls.get(call.action) or self.calls[_kind(call)]
        self._take((call.region, "calls", call.action), rate, 1)
        if call.action in self.resources:
            wanted = counts(call)[1] if call.action == "RunInstances" else len(call.numbered("InstanceId"))
            self._take((call.region, "resources", call.action), self.resources[call.action], wanted)

    def _take(self, bucket: tuple[str, str, str], rate: Rate, wanted: int) -> None:
        now = self.clock()
        level, since = self._levels.get(bucket, (rate.size, now))
        level = min(rate.size, level + (now - since) * rate.refill_per_s)
        enough = level >= wanted
        self._levels[bucket] = (level - wanted if enough else level, now)
        if not enough:
            raise ApiRefusal("RequestLimitExceeded", "Request limit exceeded.", 503)


def _kind(call: ApiCall) -> str:
    if not call.action.startswith(("Describe", "Get", "List", "Search")):
        return "changing"
    narrowed = call.get("MaxResults") or any(".1" in key for key, _ in call.pairs)
    return "looking" if narrowed else "looking at all"
