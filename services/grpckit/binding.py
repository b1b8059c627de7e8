"""Where a service may listen, and with which credentials: safe by default, one clear line when it cannot.

Loopback needs nothing. Any other address needs TLS and tokens, or the service does not start.
"""

import errno
import os
import socket

import grpc

from services.grpckit.auth import Authenticator, LocalAuthenticator, TokenAuthenticator
from services.grpckit.folder_lock import StartRefused
from services.grpckit.settings import ServerSettings
from tuneforge.addresses import is_loopback, split_address


def check_exposure(settings: ServerSettings) -> None:
    """Refuses settings that would let strangers in.

    Raises:
        StartRefused: An address is not loopback and TLS or tokens are missing, or TLS is half configured.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing = "TUNEFORGE_TLS_KEY" if settings.tls_key is None else "TUNEFORGE_TLS_CERT"
        raise StartRefused(f"TLS needs a certificate and its key: set {missing} too")
    missing_names = [] if settings.tls_cert else ["TUNEFORGE_TLS_CERT", "TUNEFORGE_TLS_KEY"]
    missing_names += [] if settings.tokens_file else ["TUNEFORGE_TOKENS_FILE"]
    for address in filter(None, (settings.listen, settings.metrics_listen)):
        host, _ = parts(address)
        if missing_names and not is_loopback(host):
            raise StartRefused(
                f"refusing to listen on {address}: it is not a loopback address, and without TLS and tokens anyone who "
                f"reaches it could use the service; set {', '.join(missing_names)}, or listen on 127.0.0.1"
            )


def parts(address: str) -> tuple[str, int]:
    """Returns host and port.

    Raises:
        StartRefused: The address is not of the form host:port.
    """
    split = split_address(address)
    if split is None:
        raise StartRefused(f"the address {address!r} is not of the form host:port")
    return split


def check_free(address: str) -> None:
    """Refuses an address that cannot be bound.

    gRPC would say so too, but in its own words and several lines.

    Raises:
        StartRefused: Another process listens there, or the address is not one of this machine.
    """
    host, port = parts(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            probe.bind(target)
            probe.listen(1)
    except OSError as error:
        raise refused_address(address, error) from None


def refused_address(address: str, error: OSError) -> StartRefused:
    """Returns the one line for an address that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return StartRefused(
            f"{address} is in use by another process; stop that process, or choose another port (0: the system chooses)"
        )
    return StartRefused(f"cannot listen on {address}: {error.strerror or error}; choose another address")


def bind(server: grpc.aio.Server, settings: ServerSettings) -> str:
    """Binds the gRPC address, with TLS when it is configured.

    Returns:
        `host:port` that is bound.

    Raises:
        StartRefused: It cannot be bound, or the certificate cannot be used.
    """
    host, port = parts(settings.listen)
    if port:
        check_free(settings.listen)
    try:
        if settings.tls_cert and settings.tls_key:
            bound = server.add_secure_port(settings.listen, _credentials(settings))
        else:
            bound = server.add_insecure_port(settings.listen)
    except RuntimeError:
        raise refused_address(settings.listen, OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))) from None
    return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials:
    assert settings.tls_cert is not None
    assert settings.tls_key is not None
    import ssl

    try:
        # gRPC takes any bytes and then fails each handshake; OpenSSL tells at once.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
        pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
    except (OSError, ValueError) as error:
        raise StartRefused(
            f"the certificate {settings.tls_cert} with the key {settings.tls_key} cannot be used: {error}"
        ) from None
    return grpc.ssl_server_credentials([pair])


def authenticator_for(settings: ServerSettings) -> Authenticator:
    """Returns how callers are recognised: by the tokens file, or everyone as `local`.

    Raises:
        StartRefused: The tokens file cannot be read or is malformed.
    """
    return TokenAuthenticator(settings.tokens_file) if settings.tokens_file else LocalAuthenticator()
