"""No secret gets anywhere: every command, through success and every failure, is overheard.

What it prints and logs, with `-v` and as text and JSON; what it sends to Postgres, also what is
rolled back; and what is in the database afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from msgspec.structs import replace
from psycopg import sql

from etl.cli.main import cli
from etl.sandbox import Fault, World, running_sandbox
from etl.settings import load_settings
from etl.source.client import PersonaClient
from etl.store.engine import make_engine
from etl.store.lock import WriterLock
from tests.canaries import MARK, Canaries, leaks, leaks_in_database, tapped

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = [f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(1, 7)]
PERSONA, OTHER = IDS[:2]
LINK = "00000000-0000-4000-8000-0000000000d1"


@pytest.fixture
def canary():
    return Canaries()


def payload(canary: Canaries, persona_id: str, **members: Any) -> dict[str, Any]:
    """A persona with a secret in every place where one is known to stand."""

    def signed(query: str) -> str:
        for name in query.split():
            query = query.replace(name, f"{name}={canary()}", 1)
        return f"https://cdn.example.com/v.mp4?{query.replace(' ', '&')}"

    token = canary()
    return {
        "id": persona_id,
        "name": "Keeper",
        "description": f"Ask https://u:{canary()}@h.example.com, or (//u:{canary()}@h.example.com)",
        "brain": {
            "systemPrompt": f"See https://api.example.com/doc?api_key={canary()}, then"
            f" ![a](https://x.example.com/?token={canary()}) <{signed('signature')}>."
            f"\nAuthorization: Bearer {canary()}\nThe link is https://anam.example.com/s/{token}.",
        },
        "avatar": {
            "id": "00000000-0000-4000-8000-0000000000a1",
            "videoUrl": signed("X-Amz-Credential X-Amz-Security-Token X-Amz-Signature"),
            "imageUrl": f"https://user:{canary()}@img.example.com/a.png",
        },
        "voice": {
            "id": "00000000-0000-4000-8000-0000000000b1",
            "sampleUrl": signed("se sp sig").replace("sig=", "sr=b&sig="),
            "previewSampleUrl": signed("X-Goog-Credential X-Goog-Signature"),
        },
        "tools": [
            {
                "id": "00000000-0000-4000-8000-0000000000c1",
                "type": "SERVER_WEBHOOK",
                "config": {
                    "url": f"https://hook.example.com/x?token={canary()}",
                    "headers": {"Authorization": f"Bearer {canary()}", "X-Anything": canary()},
                    "auth": {"clientSecret": canary(), "password": canary("p w:{}/@é")},
                    "queryParameters": {"apiKey": canary(), "deep": [{"jwt": canary()}]},
                },
            }
        ],
        "shareLinks": [{"id": LINK, "token": token, "nested": {"password": canary()}}],
        "primaryShareLink": {"token": token, "enabled": True},
        "integration": {
            "apiKey": canary(),
            "list": [{"name": "X-Api-Key", "value": canary()}],
            "credentials": {"a": {"b": [canary(), {"c": canary()}]}},
            "aws": {"secret_access_key": canary(), "SessionToken": canary()},
            f"https://h.example.com/?sig={canary()}": "a key can be a URL",
        },
        "widgetConfig": {"accessToken": canary(), "theme": "dark"},
        "unknownUrls": [
            signed("Policy Signature Key-Pair-Id"),
            signed("AWSAccessKeyId Signature"),
            signed("key"),
            f"https://h.example.com/r?to=https%3A%2F%2Fx.example.com%2F%3Fsig%3D{canary()}",
            f"https://h.example.com/#access_token={canary()}",
            f"postgresql://u:{canary()}@h.example.com/d",
        ],
        **members,
    }


def odd_headers(canary: Canaries) -> dict[str, str]:
    """What an answer, or whoever stands in between, may say in its head."""
    return {
        "Content-Type": f"text/html; charset=utf-8; token={canary()}",
        "Set-Cookie": f"session={canary()}; Path=/",
        "WWW-Authenticate": f'Bearer realm="{canary()}"',
        "Link": f"<https://u:{canary()}@h.example.com/?token={canary()}>; rel=next",
        "X-Echo": canary(),
    }


class Stage:
    """A job of which every secret is a canary. What it says and does is kept and searched."""

    def __init__(self, sandbox, urls, heard, monkeypatch, folder) -> None:
        self.sandbox = sandbox
        self.world = sandbox.world
        self.owner_url, self.url = urls
        self.heard = heard
        self.monkeypatch = monkeypatch
        self.folder = folder
        self.told: list[str] = []

    def set(self, **variables: str | None) -> None:
        for name, value in variables.items():
            if value is None:
                self.monkeypatch.delenv(name, raising=False)
            else:
                self.monkeypatch.setenv(name, value)

    def run(self, *arguments: str, **variables: str | None) -> int:
        """Run it twice, loudly, with other forms of log. Returns the exit code, twice the same."""
        with self.monkeypatch.context() as within:
            for name, value in variables.items():
                within.delenv(name, raising=False)
                if value is not None:
                    within.setenv(name, value)
            codes = {self._run("-v", "--log-format", form, *arguments) for form in ("text", "json")}
        (code,) = codes
        return code

    def _run(self, *arguments: str) -> int:
        result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
        self.told += [result.stdout, result.stderr]
        if "json" in arguments[:3]:
            assert all(json.loads(line)["timestamp"] for line in result.stderr.split("\n")[:-1])
        assert not any(ord(c) < ord(" ") and c not in "\n\t" for c in result.output)
        return result.exit_code

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Done by the tables' owner, unheard."""
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            cursor = connection.execute("SET search_path TO anam; " + statement)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def leaks(self) -> list[str]:
        """Wherever a secret got to, in what was said, sent, stored, and left in the folder."""
        found = [f"told: {leak}" for leak in leaks("\n".join(self.told))]
        found += [f"sent: {leak}" for leak in leaks(bytes(self.heard))]
        found += leaks_in_database(self.owner_url)
        for file in self.folder.rglob("*"):
            if file.is_file() and not file.name.startswith("given-"):
                found += [f"{file.name}: {leak}" for leak in leaks(file.read_bytes())]
        return found


@pytest.fixture
def stage(canary, new_role, database_url, tmp_path, monkeypatch):
    """Four personas full of secrets, a key and a password full of what has to be escaped."""
    password = canary("p@:%/{}")
    url, role = sa.make_url(database_url), new_role("keeper")
    with psycopg.connect(database_url, autocommit=True) as admin:
        # As hashed by us: statements that change passwords stay in no statistics and logs.
        hashed = admin.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        admin.execute(
            sql.SQL("ALTER ROLE {} SUPERUSER PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(hashed.decode())
            )
        )
        owner = url.set(username=role, password=password).render_as_string(hide_password=False)
        with (
            running_sandbox(world=World(), key=canary("{}/Zk+9w=="), moving=False) as sandbox,
            tapped(owner) as (tap, heard),
        ):
            made = Stage(sandbox, (database_url, tap), heard, monkeypatch, tmp_path)
            for persona_id in IDS[:4]:
                made.world.set_payload(persona_id, payload(canary, persona_id))
            made.set(
                ANAM_API_KEY=sandbox.key,
                ANAM_API_URL=sandbox.url,
                PERSONA_ETL_DATABASE__URL=tap,
                PERSONA_ETL_PERSONAS__IDS=",".join(IDS[:4]),
                PGPASSWORD=canary(),
                HTTPS_PROXY=f"http://user:{canary()}@127.0.0.1:9",
                XDG_CONFIG_HOME=str(tmp_path),
                HOME=str(tmp_path),
            )
            monkeypatch.chdir(tmp_path)
            yield made
        admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))


# ── The search itself ────────────────────────────────────────────────────────────────────────────


def test_a_leak_into_any_column_is_found(stage, canary):
    """The name is no secret to anybody but this test."""
    stage.world.set_payload(PERSONA, {"id": PERSONA, "name": canary(), "odd": {"x": canary()}})
    assert stage.run("sync", PERSONA) == 0
    found = stage.leaks()
    for place in ("personas: ", "documents: ", "sent: "):
        assert any(leak.startswith(place) for leak in found), place
    stage.sql("TRUNCATE personas, documents CASCADE")
    assert {leak.split(":")[0] for leak in stage.leaks()} == {"sent"}
    for number, value in enumerate(
        [
            "convert_to('{}', 'UTF8')",
            "decode('{}', 'base64')",
            "convert_to(reverse('{}'), 'UTF8')",
            "convert_to(encode('{}', 'hex'), 'UTF8')",
        ]
    ):
        stage.sql(
            "INSERT INTO documents (kind, content_hash, entity_id, document) VALUES ('persona',"
            f" {value.format(MARK + 'aa')}, '{IDS[number]}', '{{}}')"
        )
    stage.sql(f"COMMENT ON TABLE tools IS '{canary()}'")
    found = [leak.split(":")[0] for leak in leaks_in_database(stage.owner_url)]
    assert (set(found), found.count("documents") >= 4) == ({"documents", "comment"}, True)


def test_a_leak_into_the_log_or_to_stderr_is_found(stage, canary):
    assert stage.run("sync", "--ids-from", canary()) == 2
    (told,) = {leak.split(":")[0] for leak in stage.leaks()}
    assert told == "told"


@pytest.mark.parametrize(
    "spelt",
    [
        "{}",
        "XX{}",
        "C4N4RY",
        "YzRuNHJ5",
        "eGM0bjRyeQ==",
        "eHhjNG40cnk",
        "%63%34%6E%34%72%79",
        r"\u0063\u0034\u006e\u0034\u0072\u0079",
        "63346E347279",
        "yr4n4c",
    ],
)
def test_a_secret_is_found_however_it_is_spelt(spelt):
    assert leaks(f'{{"a": "x {spelt.format(MARK)} y"}}')
    assert not leaks("persona-etl: error: canary, c4n4r, YzRuNHJ")


# ── Through success ──────────────────────────────────────────────────────────────────────────────


def test_all_goes_well_and_nothing_is_told(stage, canary):
    settings = "--config", str(stage.folder / "made" / "persona-etl.toml")
    assert stage.run("--version") == 0
    (stage.folder / "made").mkdir()
    assert stage._run(*settings, "init") == 0
    assert stage.run("check") == stage.run("check", "--json") == 0
    assert stage.run("migrate") == stage.run("migrate", "--sql") == 0
    assert stage.run("sync", "--dry-run") == stage.run("sync", "--dry-run", "--json") == 0
    assert stage.run("sync") == stage.run("sync", "--json") == stage.run("sync", "--all") == 0
    # Other signatures, other secrets, some edits; and what has to be mended, named by its keys.
    hostile = payload(canary, OTHER, voiceSpeed=f"https://v.example.com/?sig={canary()}")
    hostile[f"https://h.example.com/?sig={canary()}"] = "\0"
    hostile["shareLinks"][0]["token"] = canary("\0{}")
    edited = payload(canary, PERSONA, name="Edited", llmId={"apiKey": canary()})
    for persona_id, shown in ((PERSONA, edited), (OTHER, hostile)):
        stage.world.set_payload(persona_id, shown)
    stage.world.delete(IDS[2])
    assert stage.run("sync", "--dry-run", "--json") == stage.run("sync", "--json") == 0
    assert stage.run("backfill", "replay") == stage.run("backfill", "replay", "--check") == 0
    assert stage.leaks() == []
    digest = hashlib.sha256(edited["primaryShareLink"]["token"].encode()).hexdigest()
    stored = "SELECT primary_share_link_token_sha256 FROM personas WHERE persona_id = '{}'"
    assert stage.sql(stored.format(PERSONA)) == [(digest,)]
    assert stage.sql("SELECT 1 FROM value_issues")
    assert b"https://cdn.example.com/v.mp4" in stage.heard
    assert b"INSERT INTO" in stage.heard


def test_reports_tell_no_secret(stage, canary):
    """What analysts ask with; also where a link expires, a prompt changes and a query is wrong."""
    assert stage.run("sync") == 0
    edited = payload(canary, PERSONA, name="Edited")
    edited["shareLinks"][0] |= {"enabled": True, "expiresAt": "2000-01-01T00:00:00Z"}
    stage.world.set_payload(PERSONA, edited)
    stage.world.set_payload(OTHER, payload(canary, OTHER))
    refusal = {"message": canary("x?token={}")}
    stage.sandbox.order(Fault(status=400, body=refusal, target=IDS[2], times=None))
    assert stage.run("sync") == 3
    assert stage.run("report") == stage.run("report", "--json") == 0
    assert stage.run("status") == stage.run("status", "--json") == 0
    assert stage.run("runs", "last") == stage.run("runs", "last", "--json") == 0
    assert stage.run("report", "--html", "-") == stage.run("report", "--html", "page.html") == 0
    for view in ("tools", "share_links", "changes"):
        assert stage.run("query", f"SELECT * FROM {view}", "--format", "json") == 0
    wrong = "SELECT CAST(system_prompt AS integer) FROM prompts"
    assert stage.run("query", wrong) == 2
    assert stage.run("prompts", "search", "--history", "example") == 0
    assert stage.run("prompts", "similar") == 0
    assert stage.run("prompts", "configurations", "--json") == 0
    assert stage.run("schema", "--local") == 0
    nobody = sa.make_url(stage.url).set(password=canary(), port=1)
    unreachable = nobody.render_as_string(hide_password=False)
    for command in (["report"], ["query", "SELECT 1"], ["prompts", "similar"]):
        assert stage.run(*command, PERSONA_ETL_DATABASE__URL=unreachable) == 6
    assert stage.leaks() == []
    assert "https://cdn.example.com/v.mp4" in "".join(stage.told)


def test_an_export_holds_no_secret(stage, canary):
    assert stage.run("sync") == 0
    stage.world.set_payload(PERSONA, payload(canary, PERSONA, name="Edited"))
    assert stage.run("sync") == 0
    assert stage.run("export", ANAM_API_KEY=None) == 0
    assert "Edited" in stage.told[-2]
    assert stage.run("export", "-o", "export.ndjson") == 0
    assert (stage.folder / "export.ndjson").stat().st_size > 0
    assert stage.leaks() == []


def test_where_the_api_moved_is_told_and_written_without_a_secret(stage, canary):
    """`drift` and what it proposes, in a folder and as SQL; what it makes, filled and shown."""
    signed = "https://cdn.example.com/new.mp4?X-Amz-Credential={}&X-Amz-Signature={}"
    new = {
        "clientSecret": canary(),
        "oneTimeToken": f"sha256:{canary()}",
        "previewClip": canary(signed),
        "clips": [canary(signed), f"Bearer {canary()}"],
        "logins": {"password": canary(), canary(signed): canary(signed)},
        canary(signed): "a key can be a URL",
    }
    stage.set(PERSONA_ETL_MIGRATIONS__LOCAL_DIR=str(stage.folder / "ours"))
    for persona_id in IDS[:4]:
        shown = payload(canary, persona_id, **new)
        shown["voice"] |= {"provider": "CARTESIA", "apiKeys": [canary()]}
        stage.world.set_payload(persona_id, shown)
    assert stage.run("sync") == 0
    # By now its providers are known: a new one is told with its name.
    shown["voice"]["provider"] = canary(f"https://u:{{}}@h.example.com/?token={canary()}")
    shown["llmId"] = shown["voiceSpeed"] = {"token": canary()}
    stage.world.set_payload(IDS[3], shown)
    assert stage.run("sync") == 0
    assert stage.run("drift") == stage.run("drift", "--all", "--json") == 0
    assert stage.run("drift", "propose", "--dry-run") == 0
    assert stage.run("drift", "propose", "--json") == 0
    assert stage.run("migrate", "--sql") == stage.run("migrate") == 0
    assert stage.run("backfill", "replay") == stage.run("drift", "--all") == 0
    assert stage.leaks() == []
    for view in ("dictionary", "drift", "personas", "persona_history"):
        assert leaks(str(stage.sql(f"SELECT * FROM anam_reporting.{view}"))) == []
    assert stage.sql("SELECT DISTINCT client_secret, preview_clip FROM personas") == [
        ("[redacted]", "https://cdn.example.com/new.mp4")
    ]
    problems = stage.sql("SELECT DISTINCT problem FROM drift_paths")
    assert {"unknown", "type_changed", "new_value"} <= {problem for (problem,) in problems}


def test_the_key_that_the_api_repeats_is_stored_nowhere(stage, canary):
    key = stage.sandbox.key
    echoed = {
        "name": f"I am {key}.",
        "description": f"{quote(key, safe='')} {quote(key)} {quote(quote(key, safe=''))}",
        "brain": {"systemPrompt": f"Bearer {key}"},
        "unknown": {"of": [key, {key: key}, f"https://h.example.com/{key}/x"]},
    }
    plain = json.dumps({"id": PERSONA, **echoed})
    escaped = json.dumps({"id": OTHER, **echoed}).replace("/", "\\/").replace("=", "\\u003d")
    elsewhere = json.dumps({"id": IDS[3], **echoed})
    orders = [
        Fault(body=plain.encode(), target=PERSONA),
        Fault(body=escaped.encode(), target=OTHER, gzip=True),
        Fault(body=elsewhere.encode(), target=IDS[2]),
        Fault(body=f"<p>{key}</p>".encode(), headers={"Content-Type": key}, target=IDS[3]),
        Fault(status=400, body={"message": f"bad {key}"}, target=IDS[4]),
        Fault(body=b"{}", headers={"Content-Encoding": key}, target=IDS[5]),
    ]
    stage.sandbox.order(*(replace(order, times=None) for order in orders))
    assert stage.run("sync", *IDS) == 3
    assert stage.leaks() == []
    assert stage.sql("SELECT DISTINCT name, description FROM personas") == [
        ("I am [redacted].", "[redacted] [redacted] [redacted]")
    ]


# ── Through the failures of the API ──────────────────────────────────────────────────────────────


def test_bodies_that_are_no_persona_leave_no_secret(stage, canary):
    whole = payload(canary, IDS[5])
    bodies = [
        json.dumps(whole).encode(),
        json.dumps([whole | {"brain": {}}]).encode(),
        f'{{"apiKey": "{canary()}"'.encode(),
        f"<html>{canary()}</html>".encode(),
        f'{{"id": "{IDS[4]}", "{canary()}": NaN}}'.encode(),
        f'{{"{(twice := canary())}": 1, "{twice}": 2}}'.encode(),
    ]
    for persona_id, body in zip(IDS, bodies, strict=True):
        fault = Fault(body=body, headers=odd_headers(canary), target=persona_id, times=None)
        stage.sandbox.order(fault)
    assert stage.run("sync", *IDS) == stage.run("sync", "--dry-run", "--json", *IDS) == 3
    assert stage.leaks() == []
    types = stage.sql("SELECT DISTINCT content_type FROM rejected_payloads")
    assert types == [("text/html; charset=utf-8",)]


def test_what_the_api_says_of_an_error_leaves_no_secret(stage, canary):
    told = f"bad key {stage.sandbox.key}; see https://x/?token={canary()}, p@ss!{canary()}"
    somewhere = f"https://u:{canary()}@x.example.com/{canary()}?token={canary()}"
    refusals = [
        (4, Fault(status=401, body={"message": told})),
        (3, Fault(status=403, body=told)),
        (3, Fault(status=400, body={"message": told, "apiKey": canary()})),
        (3, Fault(status=422, body={"error": [{"message": told}, canary()]})),
        (3, Fault(status=307, headers={"Location": somewhere})),
        (3, Fault(status=307, headers={"Location": f"//{stage.sandbox.key}.example.com"})),
        (5, Fault(status=429, body={"message": told}, retry_after=9999)),
    ]
    for code, fault in refusals:
        stage.sandbox.clear_faults()
        ordered = replace(fault, headers=odd_headers(canary) | fault.headers, target=PERSONA)
        stage.sandbox.order(replace(ordered, times=None))
        assert stage.run("sync", PERSONA, OTHER) == code, fault.status
    for status, code, checked in ((403, 4, 4), (404, 0, 5), (401, 4, 4)):
        stage.sandbox.clear_faults()
        stage.sandbox.order(
            Fault(status=status, body=told, headers=odd_headers(canary), times=None)
        )
        assert stage.run("sync") == stage.run("sync", "--dry-run") == code
        assert stage.run("check") == checked
    assert stage.leaks() == []


def test_an_api_that_gives_no_answer_leaves_no_secret(stage, canary):
    stage.sandbox.order(
        Fault(status=500, body={"message": canary()}, target=PERSONA, times=None),
        Fault(drop="reset", target=OTHER, times=None),
        Fault(
            raw=f"HTTP/1.1 200 {canary()}\r\n{canary()}\r\n\r\n".encode(), target=IDS[2], times=None
        ),
        Fault(truncate_at=500, target=IDS[3], times=None),
    )
    loud = "-v", "--log-format", "json", "sync", "--json"
    assert stage._run(*loud) == 5
    stage.sandbox.clear_faults()
    # No TLS there.
    stage.set(ANAM_API_URL=stage.sandbox.url.replace("http:", "https:"), NO_PROXY="*")
    assert stage._run("-v", "sync", PERSONA) == 5
    assert stage.leaks() == []


# ── Through the failures of Postgres ─────────────────────────────────────────────────────────────


def test_a_database_that_lets_nobody_in_leaves_no_secret(stage, canary):
    url = sa.make_url(stage.url)
    others = [
        (url.set(username="nobody_of_that_name"), 6),
        (url.set(database="no_such_database"), 6),
        (url.set(port=1), 6),
        (url.set(query={"sslmode": "disabled"}), 2),
        (url.set(query={"passwort": canary()}), 2),
        (url.set(query={"service": "none", "password": canary()}), 2),
    ]
    # The embedded server lets in whoever reaches it, Debian's asks for the password.
    wrong = url.set(password=canary()).render_as_string(hide_password=False)
    assert stage.run("check", PERSONA_ETL_DATABASE__URL=wrong) in {0, 6}
    for other, code in others:
        stage.set(PERSONA_ETL_DATABASE__URL=other.render_as_string(hide_password=False))
        assert {stage.run("check"), stage.run("migrate"), stage.run("sync")} == {code}, other
    assert stage.leaks() == []


@pytest.mark.parametrize(
    "written",
    [
        "postgresql://u:{}/x@127.0.0.1:1/d",
        "postgresql://u:x/{}@127.0.0.1:1/d",
        "postgresql://u:x?{}@127.0.0.1:1/d",
        "postgresql://u:x#{}@127.0.0.1:1/d",
        "postgresql://u:x@{}@127.0.0.1:1/d",
        "postgresql://u:{}@127.0.0.1:99999/d",
        "postgresql://u:x %zz{}@127.0.0.1:1/d",
        "postgresql://u:{}@[127.0.0.1:1/d",
        "postgresql://127.0.0.1:{}/d",
        "postgresql://127.0.0.1:1/d?password={}&x",
        "postgresql://127.0.0.1:1/d?password={}&port=x",
        "postgresql://127.0.0.1:1/d?password={}&sslmode=x",
        "postgresql://u:x/y?{}=z@127.0.0.1:1/d",
        "postgres:/u:{}@127.0.0.1:1/d",
        "mysql://u:{}@127.0.0.1:1/d",
        "host=127.0.0.1 port=1 password={}",
        "{}",
    ],
)
def test_a_url_that_is_written_wrongly_leaves_no_secret(canary, monkeypatch, tmp_path, written):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", canary(written))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for command in (["migrate"], ["backfill", "replay", "--check"]):
        result = CliRunner().invoke(cli, ["-v", *command])
        assert result.exit_code in {2, 6}
        assert leaks(result.output) == []


def test_a_database_that_does_not_serve_leaves_no_secret(stage, canary):
    assert stage.run("sync", PERSONA_ETL_DATABASE__SCHEMA="empty") == 6
    with WriterLock(stage.owner_url, "anam", command="sync", run_id=uuid4()):
        assert stage.run("sync") == stage.run("backfill", "replay") == 75
    stage.sql("ALTER TABLE personas ADD CONSTRAINT short CHECK (length(name) < 5)")
    assert stage.run("sync") == stage.run("sync", "--json") == 3
    stage.sql("ALTER TABLE personas DROP CONSTRAINT short; ALTER TABLE brains RENAME TO brawn")
    assert stage.run("sync") == stage.run("backfill", "replay", "--check") == 6
    stage.sql("ALTER TABLE brawn RENAME TO brains")
    role = sql.Identifier(str(sa.make_url(stage.url).username))
    stage.sql(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(role).as_string(None))
    assert stage.run("sync") == stage.run("migrate") == stage.run("check") == 6
    assert stage.leaks() == []


@pytest.mark.parametrize("state", ["57014", "22000", "P0001", "ZZ999"])
def test_not_even_a_traceback_tells_the_key_or_the_password(stage, state):
    """As if a library put them into its message: here Postgres says them."""
    password = str(sa.make_url(stage.url).password)
    said = f"{stage.sandbox.key} {quote(stage.sandbox.key, safe='')} {password} {stage.url}"
    quoted = sql.Literal(said).as_string(None)
    stage.sql(f"""
        CREATE FUNCTION blurt() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN
            RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = {quoted},
                DETAIL = {quoted} || NEW::text;
        END $body$;
        CREATE TRIGGER blurt BEFORE INSERT ON personas FOR EACH ROW EXECUTE FUNCTION blurt()
    """)
    file = stage.folder / "given-key"
    file.write_text(stage.sandbox.key)
    file.chmod(0o600)
    in_file = {"ANAM_API_KEY": None, "PERSONA_ETL_API__API_KEY_FILE": str(file)}
    code = stage.run("sync")
    assert code == stage.run("sync", **in_file)
    assert code == {"57014": 6, "22000": 3}.get(state, 1)
    assert ("Traceback" in "".join(stage.told)) == (code == 1)
    # Nor what is stored, which is no secret to those who may read the tables.
    assert "Keeper" not in "".join(stage.told)
    assert leaks("\n".join(stage.told)) == []


# ── Through the mistakes of people ───────────────────────────────────────────────────────────────

SETTINGS = [
    "[api]\nkey = '{}'",
    "[api]\napi_key = '{}'",
    "[api]\nconcurrency = '{}'",
    "[api]\napi_key_file = '{}{}'",
    "[api]\napi_key_file = ['{}']",
    "[api]\nbase_url = 'https://u:{}@api.example.com'",
    "[api]\nbase_url = 'https://api.example.com/?key={}'",
    "[api]\nbase_url = 'https://u:p/{}@api.example.com:x'",
    "[api]\nbase_url = '{}'",
    "[api]\nkey = {}",
    "[api]\nkey = '{}",
    "[api]\nbase_url = 'x' '{}'",
    "[personas]\nids = ['{}']",
    "[personas]\nids = '{}'",
    "[database]\nurl = ['{}']",
    "[database]\nurl = '{}'",
    "[database]\npassword = '{}'",
    "[database]\nurl = 'https://u:{}@h'",
    "[database.url]\npassword = '{}'",
    "[nowhere]\nkey = '{}'",
    "key = '{}'",
]


@pytest.mark.parametrize("written", SETTINGS)
def test_settings_that_are_wrong_leave_no_secret(canary, monkeypatch, tmp_path, written):
    file = tmp_path / "given.toml"
    file.write_text(written.replace("{}", canary()))
    monkeypatch.setenv("PERSONA_ETL_API__KEY", canary())
    for command in (["check"], ["check", "--json"], ["sync"], ["migrate"]):
        result = CliRunner().invoke(cli, ["-v", "--config", str(file), *command])
        assert result.exit_code == 2
        assert leaks(result.output) == []


@pytest.mark.parametrize(
    "content", ["{} {}", "{}\n{}", "é{}", "\0{}", b"\xff{}", "KEY={}", "'{}' ", "{}"]
)
def test_a_key_file_that_is_wrong_leaves_no_secret(stage, canary, content):
    file = stage.folder / "given-key"
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(data.replace(b"{}", canary().encode()))
    file.chmod(0o600)
    given = {"ANAM_API_KEY": None, "PERSONA_ETL_API__API_KEY_FILE": str(file)}
    # The last two are keys as far as we can tell; the API is who refuses them.
    for command in ("check", "sync"):
        assert stage.run(command, **given) in {2, 4}
    # The wrong file in the place of another.
    stage.set(PERSONA_ETL_PERSONAS__IDS_FILE=str(file))
    assert stage.run("sync") == stage.run("check") == 2
    stage.set(PERSONA_ETL_PERSONAS__IDS_FILE=None)
    assert stage.run("sync", "--ids-from", str(file)) == 2
    assert stage.run("--config", str(file), "sync") == 2
    assert stage.leaks() == []


def test_a_key_in_the_wrong_place_of_the_command_line_is_not_repeated(stage):
    key = stage.sandbox.key
    password = str(sa.make_url(stage.url).password)
    for secret in (key, password):
        assert stage.run("sync", secret) == 2
        assert stage.run(secret) == stage.run("check", secret) == 2
        assert stage.run("sync", f"--{secret}") == stage.run("sync", "--ids-from", secret) == 2
        assert stage.run("backfill", "replay", "--table", secret) == 2
        assert stage.run("--config", secret, "sync") == 2
    assert stage.run("sync", OTHER, key[:20] + key[30:]) == 2
    assert stage.leaks() == []


@pytest.mark.parametrize("typed", ["a\x1b[2Jb", "a\nb", "a\u2028b", "\x9b2J"])
def test_what_is_typed_does_not_steer_the_terminal(typed):
    for arguments in ([typed], ["check", typed], ["sync", f"--{typed}"], ["sync", typed]):
        result = CliRunner().invoke(cli, ["--log-format", "text", *arguments])
        assert result.exit_code == 2
        assert all(line.isprintable() for line in result.output.split("\n"))
        assert "\nb" not in result.output


# ── In a process of its own ──────────────────────────────────────────────────────────────────────


@contextmanager
def started(stage: Stage, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """With all of Python's own talkativeness."""
    talkative = {"PYTHONASYNCIODEBUG": "1", "PYTHONFAULTHANDLER": "1", "PYTHONWARNINGS": "always"}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "etl", "-v", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | talkative | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        try:
            yield process
            stage.told += process.communicate(timeout=30)
        finally:
            process.kill()


def test_a_talkative_python_tells_no_secret(stage):
    with started(stage, "sync") as process:
        pass
    assert process.returncode == 0
    assert stage.leaks() == []


def test_a_run_that_is_stopped_tells_no_secret(stage, canary):
    stage.sandbox.order(Fault(delay_seconds=30, headers=odd_headers(canary), target=OTHER))
    with started(stage, "sync", "--json") as process:
        wait_until(lambda: stage.sandbox.requests.by_target[OTHER])
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    assert stage.leaks() == []


def wait_until(done) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ── Who gets the key ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def stranger() -> Iterator[tuple[int, bytearray]]:
    """A port where somebody listens who is not the API, and all that is sent there."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller, suppress(OSError):
                        heard.extend(b"called ")
                        caller.settimeout(5)
                        heard.extend(caller.recv(65536))
                        caller.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_key_goes_to_the_configured_origin_only(stage):
    with stranger() as (port, heard):
        there = f"http://127.0.0.1:{port}/v1/personas"
        heads = {
            "Location": there,
            "Content-Location": there,
            "Refresh": f"0; url={there}",
            "Link": f"<{there}>; rel=next, <{there}>; rel=preconnect",
            "Alt-Svc": f'http/1.1="127.0.0.1:{port}"',
            "Host": f"127.0.0.1:{port}",
        }
        next_page = {"next": there, "nextPage": there, "links": {"next": there}}
        stage.sandbox.order(
            *(Fault(status=301 + n, headers=heads, target=IDS[n], times=None) for n in range(2)),
            Fault(status=308, headers=heads, target=IDS[2], times=None),
            Fault(headers=heads, target=IDS[3], times=None),
            Fault(headers=heads, meta=next_page, per_page=1, target="list", times=None),
        )
        proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), there)
        assert stage.run("sync", "--all", **proxies) == 3
        assert stage.run("check", **proxies) == 0
        assert heard == b""
        assert stage.leaks() == []


def test_a_proxy_is_not_shown_the_key(stage, canary):
    with stranger() as (port, heard):
        stage.set(
            HTTPS_PROXY=f"http://user:{canary()}@127.0.0.1:{port}",
            ANAM_API_URL="https://api.example.com",
        )
        assert stage._run("-v", "sync", PERSONA) == 5
    assert heard.startswith(b"called CONNECT api.example.com:443 HTTP/1.1\r\n")
    assert b"Bearer" not in heard
    assert stage.sandbox.key.encode() not in heard
    assert stage.leaks() == []


# ── What Python shows of things ──────────────────────────────────────────────────────────────────


def test_nothing_shows_a_secret_when_it_is_printed(stage):
    settings = load_settings(os.environ, cwd=stage.folder)
    key = settings.require_key().get_secret_value()
    client = PersonaClient(
        base_url=settings.api.base_url,
        api_key=key,
        concurrency=1,
        timeout_seconds=1,
        max_wait_seconds=1,
    )
    engine = make_engine(stage.url, "anam")
    lock = WriterLock(stage.url, "anam", command="sync", run_id=uuid4())
    for shown in (settings, settings.api, settings.database, client, engine, engine.url, lock):
        assert leaks(f"{shown!r} {shown}") == []
    with engine.connect() as connection:
        assert leaks(f"{connection!r} {connection.connection!r}") == []
    assert leaks(settings.model_dump_json() + str(settings.model_dump())) == []
