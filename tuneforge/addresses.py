"""Addresses, `host:port`, and lists of them: `host1:7102,host2:7102` are the places where one service may be found."""

import ipaddress


def split_address(address: str) -> tuple[str, int] | None:
    """Returns host (an IPv6 one without brackets) and port of `host:port`; None when it has another form."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not host or any(each.isspace() or each in "/," for each in host):
        return None
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Returns whether a host is reached from this machine only; a name other than `localhost` counts as foreign."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_addresses(text: str) -> tuple[str, ...]:
    """Returns the addresses of a list; one address is a list of one.

    Raises:
        ValueError: Something is no address or stands twice; says all of it, each with its value.
    """
    parts = tuple(part.strip() for part in text.split(","))
    problems = {
        f"{part!r} is not of the form host:port" if part else f"{text!r} has an empty part"
        for part in parts
        if not (split_address(part) or ("", 0))[1]
    }
    problems |= {f"{part!r} stands twice in {text!r}" for part in parts if part and parts.count(part) > 1}
    if problems:
        raise ValueError("; ".join(sorted(problems)))
    return parts
