"""Digests as `report` would gather them, made up: a quiet week, a busy one, a hostile one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from etl.report.digest import (
    AgeBand,
    ChangeDay,
    Concern,
    Digest,
    Drift,
    FieldChanges,
    Happening,
    Link,
    Listed,
    Persona,
    PromptChange,
    Rhythm,
    Run,
    RunDay,
    RunSum,
    Totals,
    Trouble,
)

NOW = datetime(2026, 11, 23, 7, 12, 40, tzinfo=UTC)
SINCE = NOW - timedelta(days=7)
EMPTY = Digest(
    now=NOW,
    since=SINCE,
    schema="anam",
    version="0.1.0",
    totals=Totals(0, 0, 0, 0, 0, 0, 0, 0, 0),
    concerns=[],
    runs=Listed(0, []),
    run_sums=[],
    rhythm=Rhythm(None, None, None, 86400),
    run_days=[],
    ages=[],
    change_days=[],
    changed_fields=Listed(0, []),
    happenings=Listed(0, []),
    prompts=Listed(0, []),
    failing=Listed(0, []),
    never_seen=Listed(0, []),
    links=Listed(0, []),
    drift=Listed(0, []),
    personas=Listed(0, []),
)

_ROLES = (
    "Front desk", "Tutor for fractions", "Museum guide", "Nurse on call", "Coach", "Concierge",
    "Recruiter", "Sommelier", "Loan adviser", "Storyteller", "Support, tier 1", "Travel agent",
)  # fmt: skip
_NAMES = ("Ada", "Bela", "Chiara", "Dmitri", "Esra", "Farid", "Grete", "Hiro", "Ines", "Jun")
_PROMPT = """You are {name}, the {role} of a small hotel by the sea.

Greet every guest by name. Answer in two sentences at the most. When you are unsure, say \
so and offer to ask a colleague. Never promise a refund.

Opening hours of the restaurant: 7:00 to 10:30 and 18:00 to 22:00.
"""


def id_of(number: int) -> UUID:
    return UUID(int=(0x11111111_2222_4333_8444 << 48) + number)


def persona(number: int, name: str | None = None) -> Persona:
    role = _ROLES[number % len(_ROLES)]
    gone = number % 97 == 41
    return Persona(
        persona_id=id_of(number),
        name=name or f"{role} · {_NAMES[number % len(_NAMES)]} {number}",
        avatar_name=("Cara", "Leo", "Mia", "Noah")[number % 4],
        voice_name=("Lauren", "Callum", "Nadia")[number % 3],
        voice_provider=("ELEVENLABS", "CARTESIA")[number % 2],
        llm_id=("gpt-4.1-mini", "llama-3.3-70b", None)[number % 3],
        prompt_length=None if number % 50 == 9 else 180 + (number * 7919) % 5200,
        tool_count=number % 5,
        knowledge_group_count=number % 3,
        share_link_count=number % 2,
        last_changed_at=NOW - timedelta(hours=5 * number % 3000),
        last_observed_at=NOW - timedelta(minutes=17 + number % 40),
        removed_at=NOW - timedelta(days=2) if gone else None,
        last_outcome="missing" if gone else "failed" if number % 120 == 7 else "unchanged",
    )


def prompt_change(number: int, hours: int, old: str | None, new: str | None) -> PromptChange:
    at = NOW - timedelta(hours=hours)
    return PromptChange(
        persona_id=id_of(number),
        name=persona(number).name,
        at=at,
        not_before=at - timedelta(hours=1),
        old=old,
        new=new,
        old_length=None if old is None else len(old),
        new_length=None if new is None else len(new),
        words_gone=None if old is None else 3,
        words_come=None if new is None else 5,
    )


def week(personas: int = 412, happenings: int = 37, prompts: int = 5) -> Digest:
    """A week as most are: an hourly run, a few changes, one bad night."""
    first = date(2026, 11, 16)
    days = [first + timedelta(days=n) for n in range(8)]
    runs = [
        Run(
            run_id=id_of(9000 + n),
            command="sync",
            status=("succeeded", "succeeded", "partial", "succeeded", "failed")[n % 5],
            started_at=NOW - timedelta(hours=n, minutes=12),
            seconds=None if n == 4 else 11.4 + n % 3,
            counts={"requested": personas, "unchanged": personas - n % 4, "updated": n % 4}
            if n % 5 != 4
            else {"requested": personas, "not_attempted": personas},
            error="the API answered 503 to 20 requests in a row; it is down"
            if n % 5 == 4
            else None,
        )
        for n in range(25)
    ]
    prompt = [_PROMPT.format(name=name, role="receptionist") for name in _NAMES]
    edits = [
        ("two sentences", "three short sentences"),
        ("Never promise a refund.", "Refunds are for the manager alone."),
        ("7:00 to 10:30", "6:30 to 11:00"),
        ("so and offer to ask a colleague", "“No idea” and offer to ask a colleague"),
        ("by the sea", "in the old town"),
    ]  # fmt: skip
    return Digest(
        now=NOW,
        since=SINCE,
        schema="anam",
        version="0.1.0",
        totals=Totals(personas - 4, 4, 38, 12, 21, 9, 57, 301, 366),
        concerns=[
            Concern(
                "failing",
                "act",
                3,
                "3 personas failed in each of the last 4 runs, the first of them since Friday.",
                "persona-etl runs --last",
            ),
            Concern(
                "drift",
                "look",
                2,
                "The API sends 2 fields that no column has.",
                "Run `persona-etl drift`.",
            ),
            Concern(
                "links", "look", 2, "1 share link expires within 3 days, and 1 is used up.", None
            ),
        ],
        runs=Listed(176, runs),
        run_sums=[
            RunSum("sync", "succeeded", 166, 12.3, 41.0),
            RunSum("sync", "partial", 3, 19.8, 22.5),
            RunSum("sync", "failed", 7, 63.0, 70.1),
        ],
        rhythm=Rhythm(NOW - timedelta(minutes=12), NOW - timedelta(minutes=12), 29_000.0, 86_400.0),
        run_days=[
            row
            for n, day in enumerate(days)
            for row in (
                RunDay(day, "succeeded", 8 if n == 7 else 24 - (n == 3) * 9 - (n == 5), 12.3),
                *(
                    [RunDay(day, "failed", 7, 63.0), RunDay(day, "partial", 2, 20.0)]
                    if n == 3
                    else []
                ),
                *([RunDay(day, "partial", 1, 19.5)] if n == 5 else []),
            )
        ],
        ages=[
            AgeBand("within 1 h", int(personas * 0.9)),
            AgeBand("1 h to 6 h", int(personas * 0.08)),
            AgeBand("6 h to 1 d", 3),
            AgeBand("1 d to 7 d", 3),
            AgeBand("over 7 d", 0),
        ],
        change_days=[
            ChangeDay(days[0], "persona", "updated", 4),
            ChangeDay(days[0], "persona", "created", 2),
            ChangeDay(days[1], "persona", "updated", 3),
            ChangeDay(days[1], "voice", "updated", 1),
            ChangeDay(days[2], "tool", "updated", 2),
            ChangeDay(days[3], "persona", "updated", 11),
            ChangeDay(days[3], "tool", "created", 1),
            ChangeDay(days[4], "persona", "removed", 4),
            ChangeDay(days[4], "avatar", "created", 1),
            ChangeDay(days[7], "persona", "updated", 6),
            ChangeDay(days[7], "knowledge_group", "updated", 2),
        ],
        changed_fields=Listed(
            3,
            [
                FieldChanges("persona", "brain.systemPrompt", 14),
                FieldChanges("persona", "voice.id", 6),
                FieldChanges("tool", "config.timeout", 2),
            ],
        ),
        happenings=Listed(happenings, [_happening(n) for n in range(min(happenings, 200))]),
        prompts=Listed(
            prompts,
            [
                prompt_change(n, 3 + 20 * n, prompt[n % 10], prompt[n % 10].replace(*edits[n % 5]))
                for n in range(min(prompts, 20))
            ],
        ),
        failing=Listed(
            3,
            [
                Trouble(
                    id_of(n), persona(n).name, outcome, 4 + n % 3, NOW - timedelta(days=n % 5), why
                )
                for n, outcome, why in (
                    (7, "failed", "the answer broke off after 12 kB, in each of 5 attempts"),
                    (127, "forbidden", "403: the key may not read this persona"),
                    (247, "rejected", "the body is no JSON: unexpected end at byte 8192"),
                )
            ],
        ),
        never_seen=Listed(1, [Trouble(id_of(99_999), None, None, 0, None, None)]),
        links=Listed(
            2,
            [
                Link(
                    id_of(70001),
                    id_of(3),
                    persona(3).name,
                    "EMBED",
                    "active",
                    "expires in 3 d",
                    NOW + timedelta(days=3),
                    12,
                    None,
                ),
                Link(
                    id_of(70002),
                    id_of(5),
                    persona(5).name,
                    "LINK",
                    "used_up",
                    "used up",
                    None,
                    100,
                    100,
                ),
            ],
        ),
        drift=Listed(
            2,
            [
                Drift(
                    "persona",
                    "brain.temperature",
                    "unmapped",
                    "The API sends it, no column has it.",
                    412,
                    NOW - timedelta(days=5),
                    NOW - timedelta(minutes=20),
                ),
                Drift(
                    "tool",
                    "config.retries",
                    "type",
                    "A number where text was expected.",
                    3,
                    NOW - timedelta(days=2),
                    NOW - timedelta(hours=2),
                ),
            ],
        ),
        personas=Listed(personas, [persona(n) for n in range(min(personas, 1000))]),
    )


def _happening(n: int) -> Happening:
    at = NOW - timedelta(hours=2 + 4 * n, minutes=7 * n)
    kind = ("persona", "persona", "persona", "tool", "voice", "persona", "avatar")[n % 7]
    change = ("updated", "updated", "created", "updated", "updated", "removed", "reshaped")[n % 7]
    name = {"tool": "look_up_booking", "voice": "Lauren", "avatar": "Cara"}.get(kind)
    paths = {
        "updated": [("brain.systemPrompt",), ("voice.id", "voiceDetectionOptions.silenceMs"),
                    ("name",)][n % 3],
        "reshaped": ("imageUrl",),
    }.get(change, ())  # fmt: skip
    return Happening(
        at=at,
        not_before=None if change == "created" else at - timedelta(hours=1),
        kind=kind,
        entity_id=id_of(n),
        name=name or persona(n).name,
        name_before="Old name" if paths == ("name",) else name or persona(n).name,
        version=1 if change == "created" else 2 + n % 6,
        change=change,
        paths=paths,
        personas=0 if change == "removed" else 1 if kind == "persona" else 14 + n,
    )


# Each ends a context that a careless page could be in.
HOSTILE = (
    "<script>document.title='owned'</script>",
    "</style><style>body{display:none}</style>",
    "--><img src=x onerror=document.title='owned'>",
    "\"' onmouseover=document.title='owned' x='",
    "</title></textarea></svg><script>document.title='owned'</script>",
    "{{ 7*7 }}{% raw %}${7*7}",
    "javascript:document.title='owned'",
    "\u202egnirts a \u2066 b \u200f",
    "a\x00b\x1b[31mc\x85\ud800",
    "👩\u200d👩\u200d👧 שלום مرحبا \U0001f1e9\U0001f1ea",
    "&lt;b&gt; &amp;amp; ]]> <![CDATA[",
)


def hostile() -> Digest:
    """Whatever a payload can bring stands wherever a payload's text can stand."""
    quiet = week(personas=30)
    all_of_it = " ".join(HOSTILE)
    long = f"{all_of_it}\n" * (200_000 // len(all_of_it))
    names = [HOSTILE[n % len(HOSTILE)] for n in range(30)]
    return replace(
        quiet,
        schema=HOSTILE[0],
        version=HOSTILE[4],
        concerns=[Concern(text, "act", 1, f"{text} `{text}`", f"`{text}`") for text in HOSTILE],
        runs=Listed(
            len(HOSTILE),
            [
                replace(
                    quiet.runs.first[0], command=text, status=text, counts={text: 1}, error=text
                )
                for text in HOSTILE
            ],
        ),
        run_days=[RunDay(NOW.date(), text, 1, 1.0) for text in HOSTILE],
        ages=[AgeBand(text, 1) for text in HOSTILE],
        change_days=[ChangeDay(NOW.date(), text, text, 1) for text in HOSTILE],
        changed_fields=Listed(20, [FieldChanges(text, text, 1) for text in HOSTILE]),
        happenings=Listed(
            30,
            [
                replace(
                    _happening(n),
                    name=text,
                    name_before=text,
                    kind=text,
                    change=text,
                    paths=[text] * 9,
                )
                for n, text in enumerate(names)
            ],
        ),
        prompts=Listed(
            4,
            [
                replace(prompt_change(1, 1, all_of_it, f"{all_of_it} and more"), name=HOSTILE[0]),
                replace(prompt_change(2, 2, None, all_of_it), name=HOSTILE[2]),
                replace(prompt_change(3, 3, all_of_it, None), name=HOSTILE[3]),
                prompt_change(4, 4, long, f"{long}<script>document.title='owned'</script>"),
            ],
        ),
        run_sums=[RunSum(text, text, 1, 1.0, 1.0) for text in HOSTILE],
        failing=Listed(
            len(HOSTILE), [Trouble(id_of(n), t, t, 1, NOW, t) for n, t in enumerate(HOSTILE)]
        ),
        links=Listed(
            len(HOSTILE),
            [
                replace(quiet.links.first[0], persona_name=text, type=text, state=text, why=text)
                for text in HOSTILE
            ],
        ),
        drift=Listed(
            len(HOSTILE),
            [
                replace(quiet.drift.first[0], kind=text, path=text, problem=text, meaning=text)
                for text in HOSTILE
            ],
        ),
        personas=Listed(
            30,
            [
                replace(
                    persona(n),
                    name=text,
                    avatar_name=text,
                    voice_name=text,
                    voice_provider=text,
                    llm_id=text,
                    last_outcome=text,
                )
                for n, text in enumerate(names)
            ],
        ),
    )
