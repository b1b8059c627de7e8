"""Whom the places are believed to be."""

import ssl


def trusting(ca: str) -> ssl.SSLContext:
    """Returns a context that checks certificates and names.

    Args:
        ca: PEM file of an authority beside those of the system; empty: none.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca:
        context.load_verify_locations(ca)
    return context
