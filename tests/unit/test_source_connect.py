"""The base URL, the key, the proxy and TLS."""

import httpx
import pytest

from etl.errors import UsageError
from etl.source.connect import (
    host_and_port,
    parse_base_url,
    proxy_for,
    request_headers,
    transports,
)

API = httpx.URL("https://api.example")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "peer"),
    [
        ("https://api.example", "api.example:443"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("https://user:pass@api.example:8443/prefix", "api.example:8443"),
        ("https://[::1]/", "[::1]:443"),
    ],
)
def test_a_peer_is_host_and_port_and_no_more(url, peer):
    assert host_and_port(httpx.URL(url)) == peer


@pytest.mark.parametrize(
    "url",
    ["https://[::1", "https://host:port", "https://" + "a" * 64 + "é", "https://xn--0.example"],
)
def test_a_base_url_that_is_none_is_a_matter_of_settings(url):
    with pytest.raises(UsageError, match=r"^api\.base_url: "):
        parse_base_url(url)


def test_the_headers_ask_for_gzipped_json_and_say_who_asks():
    headers = request_headers("key-1")
    assert headers["authorization"] == "Bearer key-1"
    assert headers["accept"] == "application/json"
    assert headers["accept-encoding"] == "gzip"
    assert headers["user-agent"].startswith("persona-etl/")
    assert headers["user-agent"].endswith(" (+python httpx)")


def test_the_headers_do_not_show_the_key():
    assert "key-1" not in repr(request_headers("key-1"))


@pytest.mark.parametrize("key", ["", "key\n", "key\r\nX: y", "two words", "clé", "nul\0"])
def test_a_key_that_no_header_can_carry_is_refused_unquoted(key):
    with pytest.raises(UsageError) as caught:
        request_headers(key)
    assert not key or key not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_proxy_unless_the_environment_names_one():
    assert proxy_for(API) is None


@pytest.mark.parametrize(
    ("name", "value", "proxy"),
    [
        ("HTTPS_PROXY", "http://proxy.example:3128", "http://proxy.example:3128"),
        ("HTTPS_PROXY", "proxy.example:3128", "http://proxy.example:3128"),
        ("https_proxy", "https://proxy.example", "https://proxy.example"),
        ("ALL_PROXY", "http://proxy.example:3128", "http://proxy.example:3128"),
    ],
)
def test_the_environments_proxy_is_taken_for_https(monkeypatch, name, value, proxy):
    monkeypatch.setenv(name, value)
    assert proxy_for(API) == httpx.URL(proxy)


def test_plain_http_never_goes_through_a_proxy_as_it_would_read_the_key(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example:3128")
    assert proxy_for(httpx.URL("http://127.0.0.1:8000")) is None


def test_no_proxy_is_honoured(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "other.example,.example")
    assert proxy_for(API) is None


@pytest.mark.parametrize(
    "value", ["socks5://user:hunter2@proxy.example", "http://user:hunter2@[::1", "http://"]
)
def test_an_unusable_proxy_is_a_matter_of_settings_and_its_password_is_not_told(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        proxy_for(API)
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_of_certificates_is_a_matter_of_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        transports(httpx.URL("https://api.anam.ai"), None)


def test_an_empty_file_of_certificates_is_a_matter_of_settings(monkeypatch, tmp_path):
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        transports(httpx.URL("https://api.anam.ai"), None)
