"""A repository of the hub: its revision is fixed to a commit first, then each file comes from that commit."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there, but not in its __all__
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from services.registry.sources.addresses import AddressRefused, HubAddress
from services.registry.sources.allowances import any_host
from services.registry.sources.faults import Code, SourceFault, for_status
from services.registry.sources.parts import CHUNK_BYTES, Arrived, Part
from services.registry.sources.places import Listing
from services.registry.sources.wanted import Entry

_TIMEOUT_S = 30.0
"""Without a byte, in seconds."""


class _Guard(httpx2.BaseTransport):
    """Lets requests through to the hub and to the hosts that it may send downloads to; others are never connected."""

    def __init__(self, endpoint: str, hosts: tuple[str, ...], context: ssl.SSLContext) -> None:
        self._origin = httpx2.URL(endpoint)
        self._hosts = hosts
        self._inner = httpx2.HTTPTransport(verify=context, retries=1, trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request, unless its host is not allowed."""
        url = request.url
        is_hub = (url.scheme, url.host, url.port) == (self._origin.scheme, self._origin.host, self._origin.port)
        if not is_hub and (url.scheme != "https" or not any_host(self._hosts, url.host, url.port or 443)):
            raise AddressRefused(f"the hub sends the download to {url.host}, which is not on the operator's list")
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Closes the connections."""
        self._inner.close()


class HubPlace:
    """One repository.

    Args:
        address: Which.
        kind: `model` or `dataset`.
        endpoint: `https://host` of the hub.
        context: Whom the servers are believed to be.
        hosts: Where it may send a download to.
        token: Of the connection; empty: none.
    """

    def __init__(
        self,
        address: HubAddress,
        *,
        kind: str,
        endpoint: str,
        context: ssl.SSLContext,
        hosts: tuple[str, ...] = (),
        token: str = "",
    ) -> None:
        self._address = address
        self._kind = kind
        self._endpoint = endpoint
        # False: not even a token that lies around on this machine.
        self._token: str | bool = token or False
        self._commit = ""
        set_client_factory(
            lambda: httpx2.Client(
                transport=_Guard(endpoint, hosts, context), follow_redirects=True, timeout=_TIMEOUT_S, trust_env=False
            )
        )

    def look(self) -> Listing:
        """Fixes the revision and returns the files of its commit."""
        api = HfApi(endpoint=self._endpoint, token=self._token)
        with self._told():
            info: Any = api.repo_info(
                self._address.repository,
                revision=self._address.revision or None,
                repo_type=self._kind,
                files_metadata=True,
                timeout=_TIMEOUT_S,
            )
        if not info.sha:
            raise SourceFault(Code.UNAVAILABLE, f"the hub names no commit of {self._address.shown}")
        self._commit = info.sha
        entries = []
        for file in info.siblings or ():
            digest = file.lfs.sha256 if file.lfs else ""
            tag = digest or file.blob_id or ""
            entries.append(
                Entry(
                    path=file.rfilename,
                    key=file.rfilename,
                    size_bytes=file.size or 0,
                    tag=f"{self._commit}:{tag}" if tag else "",
                    sha256=digest or "",
                )
            )
        return Listing(self._commit, entries)

    def fetch(self, part: Part, tell: Callable[[int], None]) -> Arrived:
        """Brings one file, from where an earlier try stopped."""
        held = part.held_bytes
        if held and held == part.entry.size_bytes:
            return part.fill((), held, tell)
        url = hf_hub_url(
            self._address.repository,
            part.entry.key,
            repo_type=self._kind,
            revision=self._commit,
            endpoint=self._endpoint,
        )
        with self._told():
            location = get_hf_file_metadata(url, token=self._token, endpoint=self._endpoint).location
            headers = build_hf_headers(token=self._token)
            headers["Accept-Encoding"] = "identity"
            if httpx2.URL(location).netloc != httpx2.URL(self._endpoint).netloc:
                headers.pop("authorization", None)
            if held:
                headers["Range"] = f"bytes={held}-"
            with get_session().stream("GET", location, headers=headers) as response:
                hf_raise_for_status(response)
                offset = held if response.status_code == 206 else 0
                return part.fill(response.iter_bytes(CHUNK_BYTES), offset, tell)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the client raises into a fault, in our own words."""
        what = f"{self._kind} {self._address.shown}"
        try:
            yield
        except GatedRepoError:
            raise SourceFault(
                Code.DENIED,
                f"{what} is gated: accept its conditions at the hub, and name a connection that has a token of who did",
            ) from None
        except RepositoryNotFoundError:
            hint = "" if self._token else "; for a private one, name a connection that has a token"
            raise SourceFault(Code.NOT_FOUND, f"{what} is not there{hint}") from None
        except RevisionNotFoundError:
            raise SourceFault(Code.NOT_FOUND, f"{what}: there is no such branch, tag or commit") from None
        except EntryNotFoundError:
            raise SourceFault(Code.NOT_FOUND, f"{what} lost a file while it was fetched") from None
        except HFValidationError:
            raise SourceFault(Code.NOT_ALLOWED, f"{what} is no name that the hub takes") from None
        except HfHubHTTPError as error:
            raise for_status(error.response.status_code, what) from None
        except httpx2.HTTPError as error:
            raise SourceFault(Code.UNAVAILABLE, f"the hub does not answer: {type(error).__name__}") from None
