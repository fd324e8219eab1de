"""What a process was given as a secret is in no line that it prints."""

from __future__ import annotations

import pytest

from etl.cli.hiding import Hiding

PASSWORD = 'p@ss/w"rd'
ESCAPED = "p%40ss%2Fw%22rd"


@pytest.mark.parametrize(
    "environ",
    [
        {"ANAM_API_KEY": f" {PASSWORD}\n"},
        {"PGPASSWORD": PASSWORD},
        {"PERSONA_ETL_DATABASE__URL": f"postgresql://u:{ESCAPED}@h/d"},
        {"https_proxy": f"http://u:{ESCAPED}@h:3128"},
        {"ALL_PROXY": f"http://u:{ESCAPED}@h:3128"},
    ],
)
@pytest.mark.parametrize("spelt", [PASSWORD, ESCAPED, "p%40ss/w%22rd", 'p@ss/w\\"rd'])
def test_a_secret_of_the_environment_is_hidden_however_it_is_spelt(environ, spelt):
    assert Hiding(environ).without(f"no {spelt}!") == "no [hidden]!"


PING_URL = "https://u:p%40ss-w0rd@hc.example/ping/Zk9Xw2aa-7/persona-etl?key=Q7abcdefg&a=up"


@pytest.mark.parametrize("spelt", [PING_URL, "Zk9Xw2aa-7", "Q7abcdefg", "p@ss-w0rd", "p%40ss-w0rd"])
def test_of_a_ping_url_the_whole_is_hidden_and_what_in_it_looks_like_a_key(spelt):
    environ = {"PERSONA_ETL_NOTIFY__PING_URL": f"{PING_URL}\n"}
    assert Hiding(environ).without(f"no {spelt}!") == "no [hidden]!"


@pytest.mark.parametrize(
    "url", [PING_URL, "https://hc.example", "https://hc.example/", "https://["]
)
def test_the_host_of_a_ping_url_is_told_and_so_is_a_slug(url):
    told = "persona-etl: error: https://hc.example was not told"
    assert Hiding({"PERSONA_ETL_NOTIFY__PING_URL": url}).without(told) == told


def test_what_is_known_later_is_hidden_too():
    hiding = Hiding({})
    hiding.add("sesame-77")
    hiding.add_url("postgresql://u:sesame-88@h/d")
    assert hiding.without("sesame-77 sesame-88") == "[hidden] [hidden]"


@pytest.mark.parametrize("plain", ["", "etl", "postgres", "secret"])
def test_a_word_that_any_message_may_hold_stays(plain):
    told = f"Postgres: postgres has no etl, and no secret {plain}"
    url = f"postgresql://postgres:{plain}@h/postgres"
    assert Hiding({"PGPASSWORD": plain, "PERSONA_ETL_DATABASE__URL": url}).without(told) == told


def test_a_url_that_cannot_be_read_is_no_trouble():
    assert Hiding({"PERSONA_ETL_DATABASE__URL": "postgresql://[u:p@h/d"}).without("p") == "p"


def test_nothing_shows_what_it_hides():
    assert "sesame" not in repr(Hiding({"PGPASSWORD": "sesame-77"}))
