"""VM sizes: cores, prices and quota."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from tests.emulators.azureml.web import AzureError, Call, Response


@dataclass(frozen=True)
class Size:
    name: str
    family: str
    cores: int
    memory_gb: float
    gpus: int
    price: float
    product: str


SIZES = {
    size.name: size
    for size in (
        Size("Standard_DS2_v2", "standardDSv2Family", 2, 7, 0, 0.146, "DSv2 Series"),
        Size("Standard_DS3_v2", "standardDSv2Family", 4, 14, 0, 0.293, "DSv2 Series"),
        Size("Standard_F2s_v2", "standardFSv2Family", 2, 4, 0, 0.0846, "FSv2 Series"),
        Size("Standard_F4s_v2", "standardFSv2Family", 4, 8, 0, 0.169, "FSv2 Series"),
        Size("Standard_E2s_v3", "standardESv3Family", 2, 16, 0, 0.126, "ESv3 Series"),
        Size("Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family", 4, 28, 1, 0.526, "NCasT4_v3 Series"),
        Size("Standard_NC6s_v3", "standardNCSv3Family", 6, 112, 1, 3.06, "NCSv3 Series"),
        Size("Standard_D2as_v4", "standardDASv4Family", 2, 8, 0, 0.096, "Dasv4 Series"),
    )
}


def find_size(name: str) -> Size:
    """Look up a VM size, case-insensitively."""
    for size in SIZES.values():
        if size.name.lower() == name.lower():
            return size
    raise AzureError(400, "BadArgument", f"The specified VM size {name} is not supported in region eastus.")


def vm_sizes(location: str) -> Response:
    return Response(200, {"value": [_vm_size(size) for size in SIZES.values()]})


def _vm_size(size: Size) -> dict[str, Any]:
    values = [
        {"retailPrice": size.price, "osType": "Linux", "vmTier": "Standard"},
        {"retailPrice": size.price / 5, "osType": "Linux", "vmTier": "LowPriority"},
        {"retailPrice": size.price * 1.8, "osType": "Windows", "vmTier": "Standard"},
    ]
    return {
        "name": size.name,
        "family": size.family,
        "vCPUs": size.cores,
        "gpus": size.gpus,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 28672,
        "memoryGB": float(size.memory_gb),
        "lowPriorityCapable": True,
        "premiumIO": True,
        "estimatedVMPrices": {"billingCurrency": "USD", "unitOfMeasure": "OneHour", "values": values},
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
    }


def check_quota(limits: dict[str, int], used: dict[str, int], size: Size, count: int, scope: str) -> None:
    """Refuse a request that exceeds the quota.

    Args:
        limits: Cores by VM family, by size, or under ``"total"``.
        used: Cores in use by VM family.
        size: Requested VM size.
        count: Number of VMs.
        scope: Subscription ID.
    """
    needed = size.cores * count
    for key, limit in limits.items():
        if key.lower() not in {"total", size.family.lower(), size.name.lower()}:
            continue
        current = sum(used.values()) if key == "total" else used.get(size.family, 0)
        if current + needed > limit:
            raise AzureError(
                400,
                "OutOfQuota",
                f"Not enough quota available for {size.name} in SubscriptionId {scope}. "
                f"Current usage/limit: {current}/{limit}. Additional needed: {needed} "
                "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-outofquota",
            )


def usages(limits: dict[str, int], used: dict[str, int], prefix: str, location: str) -> Response:
    families = sorted({size.family for size in SIZES.values()})
    rows = [("totalDedicatedCores", "Total Cluster Dedicated Regional vCPUs", sum(used.values()), "total")]
    rows += [(family, f"{family} vCPUs", used.get(family, 0), family) for family in families]
    value = [
        {
            "id": f"{prefix}/locations/{location}/usages/{name}",
            "type": "Microsoft.MachineLearningServices/vmFamily/dedicatedCores/usages",
            "amlWorkspaceLocation": location,
            "unit": "Count",
            "currentValue": current,
            "limit": limits.get(key, limits.get("total", 100)),
            "name": {"value": name, "localizedValue": text},
        }
        for name, text, current, key in rows
    ]
    return Response(200, {"value": value})


def prices(call: Call) -> Response:
    """Retail Prices API; filters are ``field eq 'value'``, combined with ``and`` and ``or``."""
    if call.request.path.rstrip("/") != "/api/retail/prices":
        return Response(404, {"error": {"code": "NotFound", "message": "no such page"}})
    rule = urllib.parse.unquote_plus(call.query.get("$filter", ""))
    currency = call.query.get("currencyCode", "USD").strip("'")
    items = [item for item in _price_items(currency) if _matches(item, rule)]
    skip = int(call.query.get("$skip", 0))
    page = items[skip : skip + 100]
    more = len(items) > skip + 100
    query = f"$filter={urllib.parse.quote(rule)}&$skip={skip + 100}"
    url = f"https://prices.azure.com:443/api/retail/prices?{query}"
    document = {
        "BillingCurrency": currency,
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": page,
        "NextPageLink": url if more else None,
        "Count": len(page),
    }
    return Response(200, document)


def _price_items(currency: str) -> list[dict[str, Any]]:
    variants = [
        ("", "", "Consumption", 1.0),
        (" Spot", "", "Consumption", 0.18),
        (" Low Priority", "", "Consumption", 0.2),
        ("", " Windows", "Consumption", 1.8),
        ("", "", "Reservation", 5300.0),
        ("", "", "DevTestConsumption", 1.0),
    ]
    items = []
    for region, factor in (("eastus", 1.0), ("westeurope", 1.2)):
        for size in SIZES.values():
            label = size.name.removeprefix("Standard_").replace("_", " ")
            for offer, system, kind, share in variants:
                price = round(size.price * factor * share, 6)
                items.append(
                    {
                        "currencyCode": currency,
                        "tierMinimumUnits": 0.0,
                        "retailPrice": price,
                        "unitPrice": price,
                        "armRegionName": region,
                        "location": {"eastus": "US East", "westeurope": "EU West"}[region],
                        "effectiveStartDate": "2024-01-01T00:00:00Z",
                        "meterName": f"{label}{offer}",
                        "productName": f"Virtual Machines {size.product}{system}",
                        "skuName": f"{label}{offer}",
                        "serviceName": "Virtual Machines",
                        "serviceFamily": "Compute",
                        "unitOfMeasure": "1 Hour",
                        "type": kind,
                        "isPrimaryMeterRegion": True,
                        "armSkuName": size.name,
                    }
                    | ({"reservationTerm": "3 Years"} if kind == "Reservation" else {})
                )
    return items


def _matches(item: dict[str, Any], rule: str) -> bool:
    def holds(part: str) -> bool:
        found = re.fullmatch(r"\s*\(*\s*(\w+)\s+eq\s+'([^']*)'\s*\)*\s*", part)
        if not found:
            return not part.strip()
        name = "type" if found[1] == "priceType" else found[1]
        return bool(item.get(name) == found[2])

    parts = re.split(r"\s+and\s+", rule, flags=re.I)
    return all(any(holds(part) for part in re.split(r"\s+or\s+", either, flags=re.I)) for either in parts)
