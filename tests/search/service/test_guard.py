"""Other hosts' names, other origins' pages and requests without the token."""

import pytest

from tests.search.service.conftest import HOST
from tests.search.service.test_searching import refused
from tokret.errors import UserError
from tokret.search.service.app import ROUTES
from tokret.search.service.guard import COOKIE, Access, check_token
from tokret.search.service.server import Address

TOKEN = "a secret of tests".replace(" ", "-")
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
PROTECTED = [
    (method, route.path.replace("{id}", "0123456789abcdef"))
    for route in ROUTES
    for method in sorted(route.methods - {"HEAD"})
    if route.path not in ("/", "/login", "/healthz", "/static/{name}")
]


@pytest.fixture
def locked(serve):
    with serve(access=Access({"testserver"}, token=TOKEN)) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_the_token_is_needed(locked, method, path):
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"Cookie": f"{COOKIE}=\u00e9".encode()},
    ):
        answer = locked.request(method, path, headers=headers)
        assert refused(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.request(method, path, headers=KNOWN).status_code in (200, 404, 415)


def test_health_and_the_login_need_no_token(locked):
    assert locked.get("/healthz").status_code == 200
    assert locked.get("/static/page.css").status_code == 200
    for path in ("/", "/login"):
        page = locked.get(path)
        assert page.status_code == 401 and 'type="password"' in page.text


def test_the_cookie_of_the_login_opens_the_page(locked):
    wrong = locked.post("/login", files={"token": (None, "wrong")})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    right = locked.post(
        "/login", files={"token": (None, TOKEN)}, follow_redirects=False
    )
    assert right.status_code == 303
    cookie = right.headers["set-cookie"]
    assert TOKEN not in cookie
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert locked.get("/").status_code == 200
    assert locked.get("/photos").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("192.168.1.5:8000", 403),
        ("", 403),
    ],
)
def test_the_hosts_of_a_loopback(client, host, status):
    assert client.get("/photos", headers={"Host": host}).status_code == status


def test_of_all_addresses_any_number_is_a_name():
    access = Address("0.0.0.0", 0).access(TOKEN)
    assert access.any_address
    assert not Address("127.0.0.1", 0).access("").any_address
    for host, allowed in {"10.0.0.7:80": True, "evil.example": False}.items():
        request = make_request(host)
        if allowed:
            access.check(request)
        else:
            with pytest.raises(Exception, match="Host"):
                access.check(request)


def make_request(host):
    from starlette.requests import Request

    headers = [(b"host", host.encode()), (b"authorization", f"bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/photos", "query_string": b""}
    return Request(scope | {"headers": headers, "scheme": "http", "server": None})


CROSS = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://testserver"},
    {"Origin": "http://testserver:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", CROSS)
def test_pages_of_other_origins_are_refused(client, search, headers):
    for method, path in [*PROTECTED, ("OPTIONS", "/search"), ("POST", "/login")]:
        answer = client.request(method, path, headers=headers)
        assert refused(answer, 403, "page")
        assert not [n for n in answer.headers if n.startswith("access-control")]


def test_a_proxy_may_have_pages_of_https(serve):
    access = Access({"testserver"}, {"photos.example"})
    with serve(access=access) as client:
        for host, origin, status in (
            ("photos.example", "https://photos.example", 200),
            ("photos.example", "http://photos.example", 200),
            ("photos.example", "https://evil.example", 403),
            ("testserver", "https://testserver", 403),
        ):
            headers = {"Host": host, "Origin": origin}
            assert client.get("/photos", headers=headers).status_code == status


def test_the_page_itself_may_be_linked_to(client):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    assert client.get("/photos", headers=link).status_code == 403
    own = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert client.get("/photos", headers=own).status_code == 200


@pytest.mark.parametrize("path", ["/", "/photos", "/static/main.js", "/nothing"])
def test_headers(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


def test_other_hosts_need_a_token():
    assert check_token("127.0.0.1", None) == ""
    assert check_token("localhost", "") == ""
    assert check_token("::1", None) == ""
    assert check_token("0.0.0.0", TOKEN) == TOKEN
    for host in ("0.0.0.0", "::", "192.168.1.5", "photos.example"):
        with pytest.raises(UserError, match="host=.* set TOKRET_TOKEN"):
            check_token(host, None)
    for token in ("short", "with a space in it", "with a line\nin it......"):
        with pytest.raises(UserError, match="at least 16"):
            check_token("127.0.0.1", token)


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/../__init__.py",
        "/static/%2e%2e/answers.py",
        "/static/..%2fanswers.py",
        "/photos/..%2f..%2fetc%2fpasswd/image",
        "/photos/%00/image",
        "/photos//image",
        "/photos/",
    ],
)
def test_addresses_lead_nowhere_else(client, path):
    answer = client.get(path)
    assert refused(answer, 404)
    assert "Traceback" not in answer.text and "/" not in answer.json()["error"]


def test_methods_that_are_not_allowed_are_counted_together(client):
    for path in ("/healthz", "/search", "/static/page.css"):
        assert client.request("ANYTHING", path).status_code == 405
    assert "ANYTHING" not in client.get("/metrics").text


def test_the_login_takes_no_request_from_others(serve):
    form = {"token": (None, "x" * 16)}
    with serve(access=Access({HOST}, token="t" * 16), requests=0) as client:
        assert client.post("/login", files=form).status_code == 401
        large = {"token": (None, "x" * 20_000)}
        assert client.post("/login", files=large).status_code == 413
