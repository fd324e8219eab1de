"""A ping: where it goes, what it says, and that nothing of a monitor's keeps it for long."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etl.errors import UsageError
from etl.source.ping import Ping, address, monitor_at, shortened, way_to
from tests.monitor import hangs, resets, running_monitor, says, trickles

RUN = "00000000-0000-4000-8000-000000000001"
# Of the real bound a test sees only that there is one.
SHORT = 0.4


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def trouble(url: str, *sign: str, seconds: float = 10, **more: str):
    return Ping(url, *sign, seconds=seconds, **more).trouble()


# ── Where it goes ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "sign", "target"),
    [
        ("https://hc-ping.com/u-1", "start", "/u-1/start?rid=R"),
        ("https://hc-ping.com/u-1", "", "/u-1?rid=R"),
        ("https://hc-ping.com/u-1/", "3", "/u-1/3?rid=R"),
        ("https://hc-ping.com/u-1//", "", "/u-1?rid=R"),
        ("https://h.example/push/t?msg=a%26b&x", "143", "/push/t/143?msg=a%26b&x&rid=R"),
        ("https://h.example/api/push/t/?status=up", "", "/api/push/t?status=up&rid=R"),
        ("https://h.example", "", "/?rid=R"),
        ("https://h.example/", "start", "/start?rid=R"),
        ("https://h.example/x?", "1", "/x/1?rid=R"),
        ("https://h.example/a%2Fb%20c", "start", "/a%2Fb%20c/start?rid=R"),
    ],
)  # fmt: skip
def test_the_sign_goes_behind_the_path_and_the_run_behind_the_query(url, sign, target):
    whole = address(url, sign, "R")
    assert whole.raw_path.decode() == target
    assert str(whole).startswith(url[:12])


def test_without_a_run_there_is_no_rid():
    assert str(address("https://h.example/x", "2")) == "https://h.example/x/2"
    assert str(address("https://h.example/x?status=up")) == "https://h.example/x?status=up"


def test_of_the_url_only_scheme_and_host_are_told(monkeypatch):
    url = "https://me:pass@h.example:8443/secret?key=secret"
    assert monitor_at(url) == way_to(url) == "https://h.example:8443"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass@proxy.example:3128")
    assert way_to(url) == "https://h.example:8443 through proxy.example:3128"
    for url in ("https://h.example/secret" + "x" * 70_000, "https://xn--0.example/secret"):
        with pytest.raises(UsageError) as caught:
            way_to(url)
        assert str(caught.value) == "no URL that can be asked; check notify.ping_url"


# ── What it says ─────────────────────────────────────────────────────────────────────────────────


def test_it_is_a_post_with_plain_text():
    with running_monitor() as monitor:
        assert trouble(f"{monitor.url}/u-1", "3", run_id=RUN, text="sync partial\né") is None
    (heard,) = monitor.heard
    assert (heard.method, heard.target) == ("POST", f"/u-1/3?rid={RUN}")
    assert heard.body == "sync partial\né"
    assert heard.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert heard.headers["User-Agent"].startswith("persona-etl/")


def test_a_user_and_password_in_the_url_are_sent_as_such():
    with running_monitor() as monitor:
        assert trouble(f"http://me:p%40ss@127.0.0.1:{monitor.port}/u-1") is None
    assert monitor.heard[0].headers["Authorization"] == "Basic bWU6cEBzcw=="


def test_of_a_long_text_the_beginning_is_sent_in_whole_characters():
    assert shortened("short") == b"short"
    for before in range(4):
        sent = shortened("x" * before + "𝄞" * 10_000)
        assert 10_000 - 4 < len(sent) <= 10_000
        assert set(sent.decode()) <= {"x", "𝄞"}
    assert shortened("\ud800") == rb"\ud800"


# ── What the monitor makes of it ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "told", "is_passing"),
    [
        (says(500), "the monitor answers 500", True),
        (says(429), "the monitor answers 429", True),
        (says(404), "the monitor answers 404; check notify.ping_url", False),
        (says(200, b"OK (not found)"), "the monitor has no such check; check notify.ping_url", 0),
        (says(200, b"OK (rate limited)"), "the monitor takes no more pings for now", 1),
    ],
)  # fmt: skip
def test_what_does_not_count_is_told(answer, told, is_passing):
    with running_monitor(answer) as monitor:
        found = trouble(f"{monitor.url}/u-1")
    assert (found.told, found.is_passing) == (told, is_passing)
    assert len(monitor.heard) == 1


@pytest.mark.parametrize("answer", [says(201, b""), says(204, b""), says(200, b"x" * 5_000_000)])
def test_any_success_counts_and_of_a_long_answer_little_is_read(answer):
    with running_monitor(answer) as monitor:
        assert trouble(f"{monitor.url}/u-1") is None


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(status):
    with running_monitor() as other, running_monitor() as monitor:
        monitor.answers = [says(status, Location=f"{other.url}/u-1")]
        found = trouble(f"{monitor.url}/u-1", text="what a run says")
    told = f"{status}, a redirect, which is not followed; check notify.ping_url"
    assert (found.told, found.is_passing) == (told, False)
    assert other.heard == []


# ── A monitor that fails ─────────────────────────────────────────────────────────────────────────


def test_a_connection_that_breaks_is_tried_once_more():
    with running_monitor(resets, says(200)) as monitor:
        assert trouble(f"{monitor.url}/u-1", seconds=2) is None
    assert monitor.targets == ["/u-1"] * 2


def test_and_only_once():
    with running_monitor(resets) as monitor:
        found = trouble(f"{monitor.url}/u-1", seconds=2)
    assert found.told == f"the connection to 127.0.0.1:{monitor.port} broke"
    assert found.is_passing
    assert len(monitor.heard) == 2


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = trouble(f"http://127.0.0.1:{port}/u-1", seconds=1)
    assert (found.told, found.is_passing) == (f"connection refused by 127.0.0.1:{port}", True)


def test_a_host_that_speaks_no_tls_is_told():
    with running_monitor() as monitor:
        found = trouble(f"https://127.0.0.1:{monitor.port}/u-1", seconds=1)
    assert found.told == f"TLS with 127.0.0.1:{monitor.port} failed"


def test_a_proxy_that_lets_nobody_through_hears_of_no_path(monkeypatch):
    with running_monitor(says(403)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        found = trouble("https://hc-ping.example/u-1", seconds=1)
    assert found.told == f"no way through 127.0.0.1:{proxy.port}"
    assert set(proxy.targets) == {"hc-ping.example:443"}


def test_a_proxy_that_is_none_is_a_matter_of_settings(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@[::1")
    found = trouble("https://hc-ping.example/u-1")
    assert found.told.startswith("HTTPS_PROXY or ALL_PROXY: not a usable proxy")
    assert not found.is_passing


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        hangs,
        trickles(b""),
        trickles(HEAD + b"X-Slow: "),
        trickles(HEAD + b"Content-Length: 1000\r\n\r\n"),
        trickles(HEAD + b"\r\n"),
    ],
)
def test_nothing_takes_longer_than_its_bound(answer):
    began = time.monotonic()
    with running_monitor(answer) as monitor:
        found = trouble(f"{monitor.url}/u-1", seconds=SHORT)
        assert time.monotonic() - began < SHORT + 2
    assert (found.told, found.is_passing) == ("no whole answer in time", True)
    assert len(monitor.heard) == 1


def test_what_is_not_answered_in_time_is_broken_off():
    left = []

    def sees_who_leaves(_, handler):
        left.append(handler.connection.recv(1))

    with running_monitor(sees_who_leaves) as monitor:
        trouble(f"{monitor.url}/u-1", seconds=SHORT)
        deadline = time.monotonic() + 10
        while not left and time.monotonic() < deadline:
            time.sleep(0.01)
    assert left == [b""]


def test_who_waits_can_do_so_for_less():
    began = time.monotonic()
    with running_monitor(hangs) as monitor:
        ping = Ping(f"{monitor.url}/u-1", seconds=SHORT)
        assert ping.trouble(0.01) is not None
        assert time.monotonic() - began < SHORT
        assert ping.trouble() is not None


def test_a_name_that_is_looked_up_for_ever_keeps_no_process():
    """Only the system's own function can hang so: it knows neither a timeout nor an end."""
    hanging = (
        "import socket, threading\n"
        "socket.getaddrinfo = lambda *_, **__: threading.Event().wait(60)\n"
        "from etl.source.ping import Ping\n"
        f"print(Ping('http://hc-ping.example/u-1', seconds={SHORT}).trouble().told)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hanging],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.stdout, done.stderr) == ("no whole answer in time\n", "")


def test_a_name_is_looked_up():
    with running_monitor() as monitor:
        assert trouble(f"http://localhost:{monitor.port}/u-1") is None
    assert monitor.heard[0].headers["Host"] == f"localhost:{monitor.port}"
