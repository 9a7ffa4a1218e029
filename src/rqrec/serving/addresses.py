"""Addresses in the options of the service, checked when it starts: one that is written otherwise never matches."""

import re
from ipaddress import ip_address, ip_network

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
NAME = re.compile(r"[a-z0-9._-]*[a-z0-9_-]")


def check_origin(origin: str) -> None:
    """Raise ValueError unless this is an origin as browsers send it, or `*` for all."""
    if origin != "*" and not ORIGIN.fullmatch(origin):
        raise ValueError(
            f"An element of allow_origins is {origin!r}, but must be an origin as browsers send it: scheme and host "
            f"in lower case, without a path, such as https://shop.example or http://localhost:3000; * allows all."
        )


def check_host(host: str) -> None:
    """Raise ValueError unless this is a host name in lower case, or an IP address, without a port."""
    if not NAME.fullmatch(host) and not _is_address(host):
        raise ValueError(
            f"An element of allow_hosts is {host!r}, but must be a host name in lower case or an IP address, without "
            f"scheme, port and brackets, such as shop.example or ::1."
        )


def check_proxy(proxy: str) -> None:
    """Raise ValueError unless this is an IP address or a network."""
    try:
        ip_network(proxy)
    except ValueError as error:
        raise ValueError(
            f"An element of trusted_proxies is {proxy!r}, but must be an IP address or a network, such as 10.0.0.5 "
            f"or 10.0.0.0/8 ({error})."
        ) from error


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False
