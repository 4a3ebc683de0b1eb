"""Which requests a service answers: hosts, the token, and pages of other origins.

A page of any site can make the browser of this machine send requests to a loopback
address, and a name that is resolved again (DNS rebinding) can make them look like those
of the same origin. So the name in Host must be one of the service's, requests that
another origin's page sent are refused, and nothing allows their reading (CORS).
"""

import dataclasses
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokret.errors import UserError
from tokret.search.service.problems import Problem

COOKIE = "tokret_token"
SHORTEST = 16  # characters of a token
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = frozenset({"/healthz", "/login"})  # without a token; and /static
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: "
        "data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None) -> str:
    """Returns the token that requests need; "" for none.

    Raises:
      UserError: if the host needs one and there is none, or it is too short.
    """
    if token:
        if len(token) < SHORTEST or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UserError(
                f"TOKRET_TOKEN must have at least {SHORTEST} printable ASCII characters"
            )
        return token
    if not is_loopback(host):
        raise UserError(
            f"host={host} is reached from other machines; set TOKRET_TOKEN in the "
            f"environment to a secret of at least {SHORTEST} characters"
        )
    return ""


@dataclasses.dataclass(frozen=True)
class Access:
    """Which requests are answered.

    Attributes:
      hosts: names in Host, without a port; those of the loopback are allowed too.
      proxied: names that a proxy has, whose pages may be of https.
      any_address: whether any IP address is allowed, where all of the machine's are
        bound. It is not a name that could be resolved again.
      token: the secret that requests need; "" for none.
    """

    hosts: Collection[str] = ()
    proxied: Collection[str] = ()
    any_address: bool = False
    token: str = dataclasses.field(default="", repr=False)

    @property
    def cookie(self) -> str:
        """What the page's cookie has for the token, which it does not reveal."""
        return hmac.new(self.token.encode(), b"tokret page", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def check(self, request: Request) -> None:
        """Raises a Problem for a request that is not to be answered."""
        self._check_host(request)
        self._check_origin(request)
        path = request.url.path
        if not (path in OPEN or path.startswith("/static/") or self._knows(request)):
            raise Problem(401, "a token is needed (Authorization: Bearer TOKEN)")

    def _check_host(self, request: Request) -> None:
        host = _host_of(request.headers.get("host", ""))
        if host in LOOPBACK or host in self.hosts or host in self.proxied:
            return
        if self.any_address and _is_address(host):
            return
        raise Problem(
            403,
            "the request's Host is not a name of this service; tokret serve takes "
            "further ones with --names",
        )

    def _check_origin(self, request: Request) -> None:
        """Refuses what a browser sends for a page of another origin.

        Other programs send neither header. A link to the page may be anywhere.
        """
        site = request.headers.get("sec-fetch-site", "none")
        opens = (
            request.method == "GET"
            and request.headers.get("sec-fetch-mode") == "navigate"
            and request.url.path == "/"
        )
        if site not in ("none", "same-origin") and not opens:
            raise Problem(403, "the request is of another site's page")
        host = request.headers.get("host", "")
        own = {f"http://{host}"}
        if _host_of(host) in self.proxied:
            own.add(f"https://{host}")
        if request.headers.get("origin", f"http://{host}") not in own:
            raise Problem(403, "the request is of another origin's page")

    def _knows(self, request: Request) -> bool:
        if not self.token:
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given.strip())
        cookie = request.cookies.get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


def _host_of(header: str) -> str:
    """The host of HOST:PORT, where HOST may be [ADDRESS]; in lower case."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d+)?", header.lower())
    return (match[1] or match[2]) if match else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses requests before anything reads them, and adds the headers of answers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Wraps an application."""
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._access.check(Request(scope))
        except Problem as problem:
            if problem.status == 401 and scope["path"] == "/":
                scope = {**scope, "path": "/login", "raw_path": b"/login"}
            else:
                await problem.response()(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)
