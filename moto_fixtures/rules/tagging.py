"""Limits of tags: Amazon EC2 User Guide, "Tag your Amazon EC2 resources", section on restrictions."""

from __future__ import annotations

from moto_fixtures.account import MotoRegion
from moto_fixtures.request import ApiCall, ApiRefusal

TAGS_MAX = 50
KEY_CHARACTERS_MAX = 128
VALUE_CHARACTERS_MAX = 256
RESERVED = "aws:"


def tags_fit(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Lengths of keys and values, no key of AWS's own, no key twice, 50 tags; at creation and in CreateTags.

    Amazon EC2 API Reference, "CreateTags" and "TagSpecification"; "Error codes": TagLimitExceeded.
    """
    prefixes = [f"TagSpecification.{index}.Tag" for index in call.indexes("TagSpecification")]
    for prefix in ["Tag", *prefixes]:
        tags = _tags(call, prefix)
        if len({key for key, _ in tags}) != len(tags):
            raise ApiRefusal("InvalidParameterValue", "Duplicate tag keys specified.")
        for key, value in tags:
            _check(key, value)
        if len(tags) > TAGS_MAX:
            raise _too_many()
    if call.action == "CreateTags":
        wanted = {key for key, _ in _tags(call, "Tag")}
        for resource in call.numbered("ResourceId"):
            if len(wanted | set(region.tags_of(resource))) > TAGS_MAX:
                raise _too_many()
    return call


def own_tags_go(call: ApiCall, region: MotoRegion) -> ApiCall:
    """Keys of AWS's own cannot be taken away.

    Amazon EC2 API Reference, "DeleteTags".
    """
    for key, _ in _tags(call, "Tag"):
        if key.lower().startswith(RESERVED):
            raise ApiRefusal("InvalidParameterValue", f"Value ( {key} ) for parameter key is invalid.")
    return call


def _tags(call: ApiCall, prefix: str) -> list[tuple[str, str]]:
    return [
        (call.get(f"{prefix}.{number}.Key") or "", call.get(f"{prefix}.{number}.Value") or "")
        for number in call.indexes(prefix)
    ]


def _check(key: str, value: str) -> None:
    if key.lower().startswith(RESERVED):
        text = f"Value ( {key} ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved."
        raise ApiRefusal("InvalidParameterValue", text)
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX:
        raise ApiRefusal(
            "InvalidParameterValue",
            f"Tag key must have 1 to {KEY_CHARACTERS_MAX} characters",
        )
    if len(value) > VALUE_CHARACTERS_MAX:
        raise ApiRefusal(
            "InvalidParameterValue", f"Tag value exceeds the maximum length of {VALUE_CHARACTERS_MAX} characters"
        )


def _too_many() -> ApiRefusal:
    return ApiRefusal("TagLimitExceeded", f"More than {TAGS_MAX} tags specified for one resource.")
