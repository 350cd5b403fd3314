"""Client tokens: the same call again does nothing and gets the same answer.

Amazon EC2 Developer Guide, "Ensuring idempotency in Amazon EC2 API requests".
"""

from __future__ import annotations

from typing import Any

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal

TOKEN_CHARACTERS_MAX = 64


class TokenLedger:
    """What was answered to each client token: the same call again gets the same answer and does nothing."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str], tuple[tuple[tuple[str, str], ...], Any, frozenset[str]]] = {}

    def replay(self, call: ApiCall, region: MotoRegion) -> Any | None:
        """The answer that was given to this token; None if it is new.

        Raises ApiRefusal if the token came with other parameters, or if all that it launched is terminated.
        """
        token = self._token(call)
        if token is None:
            return None
        if len(token[2]) > TOKEN_CHARACTERS_MAX or not token[2].isascii():
            raise ApiRefusal(
                "InvalidParameterValue", f"ClientToken has more than {TOKEN_CHARACTERS_MAX} ASCII characters"
            )
        if token not in self._answers:
            return None
        pairs, given, launched = self._answers[token]
        if pairs != _meaning(call):
            raise ApiRefusal(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        if launched and all(region.state(one) in (None, "terminated") for one in launched):
            raise ApiRefusal(
                "IdempotentInstanceTerminated", "The client token belongs to a request whose instances are terminated."
            )
        return given

    def remember(self, call: ApiCall, given: Any, launched: frozenset[str]) -> None:
        """Keep the answer of a call that succeeded."""
        token = self._token(call)
        if token is not None and not call.truth("DryRun"):
            self._answers[token] = (_meaning(call), given, launched)

    def _token(self, call: ApiCall) -> tuple[str, str, str] | None:
        token = call.get("ClientToken")
        return (call.region, call.action, token) if token else None


def _meaning(call: ApiCall) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in call.pairs if key != "DryRun"))
