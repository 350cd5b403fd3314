"""The form of a call, read by the description that botocore has of it: what EC2 does not know is refused.

Amazon EC2 API Reference, "Query requests" and "Error codes": UnknownParameter, MissingParameter, InvalidAction.
"""

from __future__ import annotations

import base64
import binascii
import functools
from datetime import datetime
from typing import Any

from botocore.exceptions import UnknownServiceError
from botocore.model import OperationNotFoundError
from botocore.session import get_session
from botocore.validate import ParamValidator

from moto_fixtures.request import ApiCall, ApiRefusal

_BOOLEANS = {"true": True, "false": False}


def check_request(call: ApiCall) -> None:
    """Refuse a call of EC2 that botocore could not have made.  Raises ApiRefusal."""
    shape = _input_shape("ec2", call.action)
    if shape is not None:
        _validate(as_parameters(call), shape)
    elif call.pairs:
        raise ApiRefusal("UnknownParameter", f"The parameter {call.pairs[0][0]} is not recognized")


def check_json(service: str, action: str, content: dict[str, Any]) -> None:
    """The same for a call of a service that speaks JSON, as far as botocore knows it."""
    try:
        shape = _input_shape(service, action)
    except UnknownServiceError:
        return
    if shape is not None:
        _validate(content, shape)


def takes_dry_run(action: str) -> bool:
    """Whether a call of EC2 has the parameter DryRun."""
    shape = _input_shape("ec2", action)
    return shape is not None and "DryRun" in shape.members


def as_parameters(call: ApiCall) -> dict[str, Any]:
    """The parameters of a call of EC2 as boto3 takes them.  Raises ApiRefusal for what cannot be read."""
    shape = _input_shape("ec2", call.action)
    tree: dict[str, Any] = {}
    for key, value in call.pairs:
        *way, last = key.split(".")
        here = tree
        for part in way:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise _unknown(key)
        here[last] = value
    return {} if shape is None else dict(_structure(shape, tree, ""))


@functools.cache
def _input_shape(service: str, action: str) -> Any:
    try:
        return get_session().get_service_model(service).operation_model(action).input_shape
    except OperationNotFoundError:
        raise ApiRefusal("InvalidAction", f"The action {action} is not valid for this web service.")


def _validate(parameters: dict[str, Any], shape: Any) -> None:
    report = ParamValidator().validate(parameters, shape)
    if report.has_errors():
        text = report.generate_report()
        code = "MissingParameter" if "Missing required" in text else "InvalidParameterValue"
        raise ApiRefusal("UnknownParameter" if "Unknown parameter" in text else code, text)


def _read(shape: Any, node: Any, path: str) -> Any:
    if shape.type_name == "structure":
        return _structure(shape, node, path)
    if shape.type_name == "list":
        if not isinstance(node, dict) or not all(key.isdigit() for key in node):
            raise _unknown(path)
        return [_read(shape.member, node[key], f"{path}.{key}") for key in sorted(node, key=int)]
    if not isinstance(node, str):
        raise _unknown(path)
    try:
        return _scalar(shape.type_name, node)
    except (ValueError, KeyError, binascii.Error):
        raise ApiRefusal("InvalidParameterValue", f"Value ({node}) for parameter {path} is invalid.")


def _scalar(kind: str, text: str) -> Any:
    if kind == "boolean":
        return _BOOLEANS[text.lower()]
    if kind in ("integer", "long"):
        return int(text)
    if kind in ("float", "double"):
        return float(text)
    if kind == "timestamp":
        return datetime.fromisoformat(text)
    return base64.b64decode(text, validate=True) if kind == "blob" else text


def _structure(shape: Any, node: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise _unknown(path)
    names = {_wire_name(name, member): name for name, member in shape.members.items()}
    found = {}
    for key, value in node.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in names:
            raise _unknown(where)
        found[names[key]] = _read(shape.members[names[key]], value, where)
    return found


def _wire_name(name: str, shape: Any) -> str:
    said = shape.serialization
    if "queryName" in said:
        return str(said["queryName"])
    wire = str(said.get("name", name))
    return wire[0].upper() + wire[1:]


def _unknown(path: str) -> ApiRefusal:
    return ApiRefusal("UnknownParameter", f"The parameter {path} is not recognized")
