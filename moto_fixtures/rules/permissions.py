"""Who may do what, and dry runs."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass, field

from moto_fixtures.request import ApiCall, ApiRefusal
from moto_fixtures.rules.requests import takes_dry_run


@dataclass
class PermissionTable:
    """What the caller may do; all, unless a test says otherwise.

    allowed: the only calls that are allowed, as `ec2:RunInstances`; None for all.  denied: calls that are not.
    """

    allowed: set[str] | None = None
    denied: set[str] = field(default_factory=set)

    def deny(self, *actions: str) -> None:
        """Take permissions away, each as `ec2:RunInstances`."""
        self.denied.update(actions)

    def allow_only(self, *actions: str) -> None:
        """Take all other permissions away."""
        self.allowed = set(actions)

    def check(self, call: ApiCall, account_id: str) -> None:
        """Refuse a call that lacks a permission.  Raises ApiRefusal.

        Amazon EC2 API Reference, "Error codes": UnauthorizedOperation; AWS STS API Reference,
        "DecodeAuthorizationMessage", for the message that is encoded in it.
        """
        for action in needed(call):
            if action in self.denied or (self.allowed is not None and action not in self.allowed):
                why = "an explicit deny" if action in self.denied else "no identity-based policy allows it"
                arn = f"arn:aws:iam::{account_id}:user/testcloud"
                facts = {"allowed": False, "explicitDeny": action in self.denied, "context": {"action": action}}
                raise ApiRefusal(
                    "UnauthorizedOperation",
                    f"You are not authorized to perform this operation. User: {arn} is not authorized to perform:"
                    f" {action} because of: {why}. Encoded authorization failure message: {encoded(facts)}",
                    403,
                )


def needed(call: ApiCall) -> list[str]:
    """The permissions that a call needs.

    Amazon EC2 User Guide, "Grant permission to tag Amazon EC2 resources during creation", and "Grant permissions to
    pass an IAM role to an instance".
    """
    actions = [f"{call.service}:{call.action}"]
    if call.indexes("TagSpecification"):
        actions.append("ec2:CreateTags")
    if any(key.startswith("IamInstanceProfile.") for key, _ in call.pairs):
        actions.append("iam:PassRole")
    return actions


def answer_dry_run(call: ApiCall) -> None:
    """A call that is allowed and a dry run is refused with DryRunOperation, and nothing is done.

    Amazon EC2 API Reference, "Common query parameters": DryRun; "Error codes": DryRunOperation.
    """
    if call.truth("DryRun") and takes_dry_run(call.action):
        raise ApiRefusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def encoded(facts: object) -> str:
    """A message that only DecodeAuthorizationMessage reads."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(facts).encode())).decode()


def decoded(message: str) -> str:
    """What `encoded` hid.  Raises ApiRefusal for another text."""
    try:
        return zlib.decompress(base64.urlsafe_b64decode(message)).decode()
    except (ValueError, zlib.error):
        raise ApiRefusal("InvalidAuthorizationMessageException", "The message is not an authorization message.")
