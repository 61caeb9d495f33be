"""Who may ask the local server: a page that it served itself, with the token of the address that the user opened.

Names that resolve to this machine are how a foreign page would reach it (DNS rebinding): the name asked for must be an
address, or one that is known. A foreign page's own requests carry its origin. Every answer forbids the page to load
anything from elsewhere.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OPEN = "/api/"  # addresses that need the token; the page's own files hold no secret


@dataclass(frozen=True)
class Guard:
    """A wrapper of an ASGI application that refuses strangers.

    Attributes:
        app: what is guarded. token: that every request to /api/ must bear, ``Authorization: Bearer TOKEN``.
        names: of hosts that may be asked for beside addresses. everywhere: whether addresses of other interfaces than
            the loopback may be; else 127.0.0.1 and ::1 alone.
    """

    app: ASGIApp
    token: str
    names: Collection[str] = ("localhost",)
    everywhere: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers, scope["path"])
        if refusal:
            await _refuse(send, *refusal)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_raw(HEADERS)]
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _refusal(self, headers: Mapping[str, str], path: str) -> tuple[int, str] | None:
        """Status and reason, if a request is refused."""
        host = headers.get("host", "")
        if not self._known(host):
            return 421, "this server is not of that name"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "another page may not ask"
        # A link from another page to this one shows nothing without the token.
        followed = headers.get("sec-fetch-mode") == "navigate" and not path.startswith(OPEN)
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not followed:
            return 403, "another page may not ask"
        if path.startswith(OPEN):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, "the token is wrong: open the address that `vcorr ui` printed"
        return None

    def _known(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") and ":" in host else host
        name = name.removeprefix("[").removesuffix("]").lower()
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in {known.lower() for known in self.names}
        return self.everywhere or address.is_loopback


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **HEADERS}
    await send({"type": "http.response.start", "status": status, "headers": _raw(headers)})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
