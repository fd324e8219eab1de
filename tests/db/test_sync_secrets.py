"""No secret that a payload, a key or a URL holds gets anywhere: tables, logs, errors."""

from __future__ import annotations

import hashlib
import logging
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from etl.sandbox import Fault, World

PERSONA = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
LINK = "00000000-0000-4000-8000-0000000000d1"


class Canaries:
    """Makes secrets that can be looked for."""

    def __init__(self) -> None:
        self.numbers = count(1000)
        self.sung: list[str] = []

    def __call__(self) -> str:
        self.sung.append(f"canary{next(self.numbers)}x")
        return self.sung[-1]


@pytest.fixture
def canary():
    return Canaries()


def everything(target) -> str:
    """Every column of every table of every schema as text; bytes also as what they may spell."""
    tables = target.query("""
        SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    """)
    texts = []
    for table in tables:
        for row in target.query(f"SELECT * FROM {table['name']}"):
            for value in row.values():
                texts.append(repr(value))
                if isinstance(value, bytes):
                    texts.append(value.decode("latin-1"))
    assert len(texts) > 40
    return "\n".join(texts)


def payload(canary, persona_id: str, **members: Any) -> dict[str, Any]:
    """A persona with a secret in every place where one can stand."""
    signed = f"https://cdn.example.com/v.mp4?X-Amz-Signature={canary()}&X-Amz-Credential={canary()}"
    token = canary()
    return {
        "id": persona_id,
        "name": "Keeper",
        "brain": {"systemPrompt": f"See https://api.example.com/doc?api_key={canary()} first."},
        "avatar": {
            "id": "00000000-0000-4000-8000-0000000000a1",
            "videoUrl": signed,
            "imageUrl": f"https://user:{canary()}@img.example.com/a.png",
        },
        "voice": {
            "id": "00000000-0000-4000-8000-0000000000b1",
            "sampleUrl": f"https://s.example.com/a.mp3?sig={canary()}&se=2026",
        },
        "tools": [
            {
                "id": "00000000-0000-4000-8000-0000000000c1",
                "type": "SERVER_WEBHOOK",
                "config": {
                    "url": f"https://hook.example.com/x?token={canary()}",
                    "headers": {"Authorization": f"Bearer {canary()}", "X-Anything": canary()},
                    "auth": {"clientSecret": canary()},
                },
            }
        ],
        "shareLinks": [
            {"id": LINK, "token": token, "nested": {"password": canary()}},
        ],
        "primaryShareLink": {"token": token, "enabled": True},
        "integration": {"apiKey": canary(), "list": [{"name": "X-Api-Key", "value": canary()}]},
        "widgetConfig": {"accessToken": canary(), "theme": "dark"},
        **members,
    }


def test_no_secret_of_a_payload_is_stored_or_logged(copying, canary, caplog):
    world = World()
    with copying(world) as target:
        caplog.set_level(logging.DEBUG, logger="etl")
        world.set_payload(PERSONA, payload(canary, PERSONA))
        # Mended places are named by their keys, which can hold secrets too.
        hostile = payload(canary, OTHER)
        hostile[f"https://h.example.com/?sig={canary()}"] = "\0"
        hostile["voiceSpeed"] = f"https://v.example.com/?sig={canary()}"
        hostile["shareLinks"][0]["token"] = "\0" + canary()
        world.set_payload(OTHER, hostile)
        assert target.sync([PERSONA, OTHER]).counts["created"] == 2
        # Once more, with new signatures, other secrets, and edits.
        world.set_payload(
            PERSONA, payload(canary, PERSONA, name="Edited", llmId={"apiKey": canary()})
        )
        world.set_payload(OTHER, payload(canary, OTHER))
        target.sync([PERSONA, OTHER])
        found = everything(target)
        assert [secret for secret in canary.sung if secret in found or secret in caplog.text] == []
        assert len(canary.sung) > 50
        assert target.rows("value_issues")
        assert "https://cdn.example.com/v.mp4" in found


def test_a_share_links_token_is_stored_as_its_hash(copying, canary):
    with copying(World()) as target:
        target.world.set_payload(PERSONA, shown := payload(canary, PERSONA))
        target.sync([PERSONA])
        digest = hashlib.sha256(shown["primaryShareLink"]["token"].encode()).hexdigest()
        link = target.row("share_links", share_link_id=UUID(LINK))
        assert link["token_sha256"] == digest
        assert target.persona(PERSONA)["primary_share_link_token_sha256"] == digest


def test_no_secret_of_a_rejected_body_is_kept(copying, canary, caplog):
    with copying(World()) as target:
        caplog.set_level(logging.DEBUG, logger="etl")
        ids = [str(UUID(int=number)) for number in range(6)]
        bodies = [
            payload(canary, PERSONA),
            [payload(canary, PERSONA)],
            f'{{"apiKey": "{canary()}"'.encode(),
            f"<html>{canary()}</html>".encode(),
            f'{{"id": {ids[4]!r}, "{canary()}": NaN}}'.encode(),
            f'{{"{(key := canary())}": 1, "{key}": 2}}'.encode(),
        ]
        for persona_id, body in zip(ids, bodies, strict=True):
            target.sandbox.order(Fault(body=body, target=persona_id))
        assert target.sync(ids).counts["rejected"] == len(ids)
        found = everything(target)
        assert [secret for secret in canary.sung if secret in found or secret in caplog.text] == []


def test_no_secret_of_an_error_is_told(copying, canary, caplog):
    with copying(count=4, key=canary()) as target:
        caplog.set_level(logging.DEBUG, logger="etl")
        complaint = f"bad key {target.sandbox.key}, see https://x/?token={canary()}"
        faults = [
            Fault(status=302, headers={"Location": f"https://u:{canary()}@x/?token={canary()}"}),
            Fault(status=400, body={"message": complaint, "apiKey": canary()}),
            Fault(status=403, body=f"no {canary()}"),
            Fault(status=400, headers={"X-Echo": canary()}),
        ]
        for persona_id, fault in zip(target.world.persona_ids, faults, strict=True):
            target.sandbox.order(replace(fault, target=persona_id))
        summary = target.sync()
        told = everything(target) + caplog.text + str(summary.error)
        assert [secret for secret in canary.sung if secret in told] == []


def test_neither_the_key_nor_the_password_is_told(copying, canary, database_url, caplog):
    caplog.set_level(logging.DEBUG, logger="etl")
    key, password = canary(), canary()
    url = sa.make_url(database_url)
    role = f"keeper_{url.database}"
    with copying(count=2, key=key) as target:
        target.query(f"CREATE ROLE \"{role}\" SUPERUSER LOGIN PASSWORD '{password}'")
        owner = target.url
        target.url = url.set(username=role, password=password).render_as_string(hide_password=False)
        try:
            target.sync()
            target.sandbox.order(Fault(status=401, target=target.world.persona_ids[0]))
            refused = target.sync(API__CONCURRENCY="1")
            target.is_corrupted = True
            target.query("DROP TABLE brains CASCADE")
            target.world.edit(target.world.persona_ids[0], {"brain": {"personality": "x"}})
            broken = target.sync()
            told = everything(target) + caplog.text
            told += f"{refused!r} {refused.error} {broken!r} {broken.error}"
            assert [secret for secret in canary.sung if secret in told] == []
            assert (refused.exit_code, broken.exit_code) == (4, 6)
        finally:
            target.url = owner
            target.query(f'DROP ROLE "{role}"')


def test_a_failing_statement_tells_nothing_of_a_payload(copying, canary, caplog):
    with copying(World()) as target:
        target.query("ALTER TABLE personas ADD CONSTRAINT short CHECK (length(name) < 5)")
        target.world.set_payload(PERSONA, {"id": PERSONA, "name": canary(), "x": {"y": canary()}})
        summary = target.sync([PERSONA])
        assert summary.counts["rejected"] == 1
        told = everything(target) + caplog.text + str(summary.error)
        assert [secret for secret in canary.sung if secret in told] == []
