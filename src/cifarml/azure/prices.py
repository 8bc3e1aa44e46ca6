"""Hourly VM prices from the Azure Retail Prices API."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

import requests

_LIST: Final = "https://prices.azure.com/api/retail/prices"
"""https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices"""

_TIMEOUT_S: Final = 10.0


class Price(NamedTuple):
    """Hourly price of a VM, or the reason that it is unknown.

    Attributes:
        per_hour: Price of one VM per hour; None if unknown.
        currency: Currency code, such as ``"USD"``.
        reason: Reason that the price is unknown.
    """

    per_hour: float | None
    currency: str = "USD"
    reason: str = ""

    def format(self, count: int = 1) -> str:
        """Format the price of a number of VMs."""
        if self.per_hour is None:
            return f"price not known: {self.reason}"
        return f"{count * self.per_hour:.3f} {self.currency} an hour"


@functools.cache
def find_price(size: str, region: str, *, low_priority: bool = False) -> Price:
    """Look up the pay-as-you-go price of a Linux VM.

    Args:
        size: VM size, such as ``"Standard_F2s_v2"``.
        region: Azure region, such as ``"eastus"``.
        low_priority: Price of a low-priority VM.
    """
    query = f"armRegionName eq '{region}' and armSkuName eq '{size}' and priceType eq 'Consumption'"
    try:
        response = requests.get(
            _LIST, params={"$filter": f"serviceName eq 'Virtual Machines' and {query}"}, timeout=_TIMEOUT_S
        )
        response.raise_for_status()
        items: list[dict[str, Any]] = response.json()["Items"]
        found = [item for item in items if _is_hourly_linux(item, low_priority=low_priority)]
        if not found:
            return Price(None, reason=f"the price list has no {size} in {region}")
        cheapest = min(found, key=lambda item: float(item["retailPrice"]))
        return Price(float(cheapest["retailPrice"]), str(cheapest.get("currencyCode", "USD"))[:8])
    except requests.RequestException as error:
        return Price(None, reason=f"prices.azure.com can't be reached ({type(error).__name__})")
    except (ValueError, LookupError, TypeError, AttributeError):
        return Price(None, reason="unexpected response from prices.azure.com")


def _is_hourly_linux(item: dict[str, Any], *, low_priority: bool) -> bool:
    name = f"{item['productName']} {item['skuName']}"
    if "Windows" in name or "Spot" in name or item["unitOfMeasure"] != "1 Hour":
        return False
    return ("Low Priority" in name) == low_priority and float(item["retailPrice"]) > 0
