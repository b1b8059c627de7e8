"""From what a caller asks to a job for the child process: the operator's rules are applied, the secrets read."""

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.sources import addresses
from services.registry.sources.addresses import (
    Address,
    AddressRefused,
    HttpsAddress,
    HubAddress,
    PackageAddress,
    S3Address,
)
from services.registry.sources.allowances import Allowances, matches
from services.registry.sources.protocol import Job
from services.registry.sources.wanted import Ask


def job_of(allowed: Allowances, ask: Ask) -> tuple[Address, Job]:
    """Returns the address in parts and the job, without its folder.

    Raises:
        ServiceError: `URL_NOT_ALLOWED`, `INVALID_FIELD` for a connection that is not there.
    """
    try:
        address = addresses.parse(ask.uri)
        makers: dict[type, Callable[..., Job]] = {
            HttpsAddress: _https,
            S3Address: _s3,
            HubAddress: _hub,
            PackageAddress: _package,
        }
        return address, replace(makers[type(address)](allowed, ask, address), ca=allowed.ca)
    except AddressRefused as refusal:
        raise ServiceError(
            Reason.URL_NOT_ALLOWED, str(refusal), fields=[FieldViolation("location.uri", str(refusal))]
        ) from None


def _https(allowed: Allowances, ask: Ask, address: HttpsAddress) -> Job:
    _no_connection(ask, "an https address")
    if not allowed.https.hosts:
        raise AddressRefused("no https host is allowed here; the operator lists them in the file of sources")
    if not allowed.https.allows(address):
        raise AddressRefused(f"the host {address.authority} is not on the operator's list of hosts")
    if ask.wanted.kind == "model":
        raise AddressRefused(
            "a model has several files: give s3://bucket/prefix, hf://owner/name or package://name/path"
        )
    secrets = (address.query,) if address.query else ()
    return Job(folder="", wanted=ask.wanted, https=(address, allowed.https), secrets=secrets)


def _s3(allowed: Allowances, ask: Ask, address: S3Address) -> Job:
    name = ask.connection or "default"
    connection = allowed.s3.get(name)
    if connection is None or not matches(connection.projects, ask.project):
        _unknown_connection(name)
    if not matches(connection.buckets, address.bucket):
        raise AddressRefused(f"the bucket {address.bucket!r} is not one that the connection {name!r} may read")
    options: dict[str, object] = {"endpoint": connection.endpoint, "region": connection.region}
    secrets: tuple[str, ...] = ()
    if connection.access_key is not None and connection.secret_key is not None:
        secrets = (connection.access_key.read(), connection.secret_key.read())
        options["credentials"] = list(secrets)
    return Job(folder="", wanted=ask.wanted, s3=(address, options), secrets=secrets)


def _hub(allowed: Allowances, ask: Ask, address: HubAddress) -> Job:
    if not allowed.hub.endpoint:
        raise AddressRefused("the operator has switched the hub off")
    kind = ask.wanted.kind
    if address.kind and address.kind != kind:
        raise AddressRefused(f"the address is one of a {address.kind} of the hub, but a {kind} is imported")
    token = ""
    if ask.connection:
        reference = allowed.hub.tokens.get(ask.connection)
        if reference is None or not matches(reference.projects, ask.project):
            _unknown_connection(ask.connection)
        token = reference.read()
    options = {"endpoint": allowed.hub.endpoint, "hosts": list(allowed.hub.hosts), "token": token}
    place = replace(address, kind=kind)
    return Job(folder="", wanted=ask.wanted, hub=(place, options), secrets=(token,) if token else ())


def _package(allowed: Allowances, ask: Ask, address: PackageAddress) -> Job:
    _no_connection(ask, "a package")
    if address.distribution not in allowed.packages:
        raise AddressRefused(
            f"the distribution {address.distribution!r} is not on the operator's list; import it from your own machine"
        )
    return Job(folder="", wanted=ask.wanted, package=address)


def _no_connection(ask: Ask, what: str) -> None:
    if ask.connection:
        raise invalid_fields([FieldViolation("location.connection", f"is set, but {what} takes none; leave it out")])


def _unknown_connection(name: str) -> NoReturn:
    problem = f"is {name[:80]!r}, which is no connection that this project may use; ask the operator for its name"
    raise invalid_fields([FieldViolation("location.connection", problem)])
