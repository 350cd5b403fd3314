"""A small subset of AWS's prices: AWS Price List Query API Reference, "GetProducts"."""

from __future__ import annotations

import json
from typing import Any

from moto_fixtures.request import ApiRefusal

#: Dollars an hour for Linux on demand in the North of Virginia, rounded; other regions cost a tenth more here.
HOURLY_USD = {
    "t3.micro": "0.0104",
    "t3.medium": "0.0416",
    "t3.large": "0.0832",
    "m5.large": "0.0960",
    "m5.xlarge": "0.1920",
    "m5.2xlarge": "0.3840",
    "c5.large": "0.0850",
    "c5.xlarge": "0.1700",
    "r5.large": "0.1260",
    "m6g.large": "0.0770",
    "c6g.large": "0.0680",
    "m7i.large": "0.1008",
}
_HOME = "us-east-1"


def products(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to GetProducts: all products that pass every filter.  Raises ApiRefusal for another service."""
    if question.get("ServiceCode") != "AmazonEC2":
        raise ApiRefusal("InvalidParameterException", "The test cloud has prices of AmazonEC2 only.")
    filters = question.get("Filters", [])
    wanted = {each["Field"]: each["Value"] for each in filters if each.get("Type") == "TERM_MATCH"}
    region = wanted.pop("regionCode", _HOME)
    found = []
    for instance_type, price in HOURLY_USD.items():
        attributes = _attributes(instance_type, region)
        if all(attributes.get(field) == value for field, value in wanted.items()):
            found.append(json.dumps(_product(attributes, price if region == _HOME else f"{float(price) * 1.1:.4f}")))
    return {"FormatVersion": "aws_v1", "PriceList": found[: question.get("MaxResults", 100)]}


def _attributes(instance_type: str, region: str) -> dict[str, str]:
    return {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "servicecode": "AmazonEC2",
    }


def _product(attributes: dict[str, str], price: str) -> dict[str, Any]:
    sku = attributes["instanceType"].upper().replace(".", "").ljust(16, "0")
    dimension = {"unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": f"{price}000000"}}
    term = {"sku": sku, "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension}, "termAttributes": {}}
    return {
        "product": {"productFamily": "Compute Instance", "sku": sku, "attributes": attributes},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": term}},
    }
