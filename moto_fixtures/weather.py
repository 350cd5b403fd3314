"""Faults on demand: errors, throttling, lost answers, slow answers, and a caller that is killed at an exact call.

A test orders faults on `cloud.faults`; the server asks for the verdict of each call.  Counts begin at the order: k = 1
is the first call after it.  Calls of all services count.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from moto_fixtures.request import ApiCall, ApiRefusal


class Stroke(Enum):
    """What happens to the caller instead of an answer."""

    NONE = "none"
    CUT = "cut"  #: the connection is closed
    KILL = "kill"  #: the calling process gets SIGKILL, and the connection is closed


@dataclass(frozen=True)
class Verdict:
    """What the weather does to one call.

    refusal: an error in place of the call.
    before: a stroke before the call is carried out, which is then not carried out.
    after: a stroke after it was carried out.
    delay_s: how long the call waits before anything happens to it.
    """

    refusal: ApiRefusal | None = None
    before: Stroke = Stroke.NONE
    after: Stroke = Stroke.NONE
    delay_s: float = 0.0


@dataclass
class Fault:
    """One order: for which calls, how often, and what."""

    verdict: Verdict
    action: str = "*"
    skip: int = 0
    times: int | None = 1
    when: Callable[[ApiCall], bool] | None = None
    struck: int = field(default=0, init=False)

    def strikes(self, call: ApiCall, taken: bool) -> bool:
        """Whether this call is hit.  A call that another order has `taken` still counts for `skip`."""
        if self.action not in ("*", call.action) or (self.when is not None and not self.when(call)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if taken or (self.times is not None and self.struck >= self.times):
            return False
        self.struck += 1
        return True


class Weather:
    """The faults that are ordered for a cloud.  Every method may be called at any time from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def error(
        self,
        action: str,
        code: str,
        *,
        message: str = "ordered by the test",
        status: int = 400,
        times: int | None = 1,
        skip: int = 0,
        when: Callable[[ApiCall], bool] | None = None,
    ) -> Fault:
        """Answer calls of `action` (`*` for all) with an error and do not carry them out.

        times: how many calls; None for all.  skip: how many calls pass first.  when: only calls for which it is true.
        """
        refusal = ApiRefusal(code, message, status)
        return self._order(Fault(Verdict(refusal=refusal), action=action, times=times, skip=skip, when=when))

    def throttle(self, action: str = "*", times: int = 2, skip: int = 0) -> Fault:
        """A burst of RequestLimitExceeded (503), which botocore tries again."""
        text = "Request limit exceeded."
        return self.error(action, "RequestLimitExceeded", message=text, status=503, times=times, skip=skip)

    def deny(self, action: str) -> Fault:
        """UnauthorizedOperation for every call of `action`, as a missing permission gives it."""
        text = f"You are not authorized to perform this operation. (ec2:{action})"
        return self.error(action, "UnauthorizedOperation", message=text, status=403, times=None)

    def lose_reply(self, action: str = "*", skip: int = 0, times: int = 1) -> Fault:
        """Carry the call out and close the connection without an answer."""
        return self._order(Fault(Verdict(after=Stroke.CUT), action=action, skip=skip, times=times))

    def lose_request(self, action: str = "*", skip: int = 0, times: int = 1) -> Fault:
        """Close the connection without carrying the call out."""
        return self._order(Fault(Verdict(before=Stroke.CUT), action=action, skip=skip, times=times))

    def slow(self, action: str, delay_s: float, times: int | None = 1) -> Fault:
        """Let calls of `action` wait before they are carried out."""
        return self._order(Fault(Verdict(delay_s=delay_s), action=action, times=times))

    def kill_before(self, k: int, action: str = "*") -> Fault:
        """SIGKILL to the caller at its k-th call (of `action`) from now, which is not carried out.

        If the caller is the process of the cloud itself, every connection is cut from that call on, until `clear`.
        """
        return self._order(Fault(Verdict(before=Stroke.KILL), action=action, skip=k - 1))

    def kill_after(self, k: int, action: str = "*") -> Fault:
        """SIGKILL to the caller at its k-th call (of `action`) from now, which is carried out; its answer is lost."""
        return self._order(Fault(Verdict(after=Stroke.KILL), action=action, skip=k - 1))

    def by_chance(
        self, seed: int | str, *, throttle: float = 0.0, lose_request: float = 0.0, lose_reply: float = 0.0
    ) -> list[Fault]:
        """Faults by chance, the same for the same seed and the same numbers of calls.  Each is a share of 1."""
        throttled = ApiRefusal("RequestLimitExceeded", "Request limit exceeded.", 503)
        kinds = [
            (Verdict(refusal=throttled), throttle),
            (Verdict(before=Stroke.CUT), lose_request),
            (Verdict(after=Stroke.CUT), lose_reply),
        ]
        faults, low = [], 0.0
        for verdict, share in kinds:
            faults.append(self._order(Fault(verdict, times=None, when=_drawn(seed, low, low + share))))
            low += share
        return faults

    def cut_off(self, after: int = 0) -> Fault:
        """Let `after` calls pass and close all connections from then on, until `clear`."""
        return self._order(Fault(Verdict(before=Stroke.CUT), skip=after, times=None))

    def clear(self) -> None:
        """Fair weather: forget all orders."""
        with self._lock:
            self._faults.clear()

    def unused(self) -> list[Fault]:
        """Orders that have not hit any call yet, so that a test can see that its fault really came."""
        with self._lock:
            return [fault for fault in self._faults if fault.struck == 0]

    def verdict(self, call: ApiCall) -> Verdict:
        """What happens to this call: the oldest order that hits it decides; the others only count it."""
        decided: Verdict | None = None
        with self._lock:
            for fault in self._faults:
                if fault.strikes(call, taken=decided is not None):
                    decided = fault.verdict
        return decided or Verdict()

    def _order(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault


def _drawn(seed: int | str, low: float, high: float) -> Callable[[ApiCall], bool]:
    def hit(call: ApiCall) -> bool:
        return low <= random.Random(f"{seed} {call.number}").random() < high

    return hit
