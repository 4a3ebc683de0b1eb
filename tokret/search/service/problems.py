"""Refusals: each is a status of HTTP and one clear line, as JSON."""

import msgspec
from starlette.responses import Response

from tokret.names import one_line


class Problem(Exception):
    """A request that is refused."""

    def __init__(
        self, status: int, error: str, field: str = "", retry_after: int = 0
    ) -> None:
        """Takes the status, the line, the form's field, and seconds to wait."""
        super().__init__(error)
        self.status, self.error, self.field = status, one_line(error), field
        self.retry_after = retry_after

    def response(self) -> Response:
        """As JSON: {"error": ..., "field": ...}."""
        headers = {}
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {"error": self.error} | ({"field": self.field} if self.field else {})
        return json_response(body, self.status, headers)


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Encodes structs and plain values."""
    return Response(
        msgspec.json.encode(value),
        status,
        {"Cache-Control": "no-store"} | (headers or {}),
        "application/json",
    )
