"""How things stand now, for the report: read out of the views of the present."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from etl.report.digest import AgeBand, Drift, Link, Listed, Persona, Totals
from etl.report.text import length_of_time

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

EXPIRES_SOON = timedelta(days=14)

# A name may be as long as the API likes.
_LONGEST = 200

# As the view of the prompts has them, but told apart by their digests: the texts are long to sort.
_TOTALS = text("""
    SELECT (SELECT count(*) FROM personas WHERE removed_at IS NULL) AS live,
           (SELECT count(*) FROM personas WHERE removed_at IS NOT NULL) AS removed,
           (SELECT count(DISTINCT avatar_id) FROM personas WHERE removed_at IS NULL) AS avatars,
           (SELECT count(DISTINCT voice_id) FROM personas WHERE removed_at IS NULL) AS voices,
           (SELECT count(DISTINCT tool_id) FROM persona_tools WHERE is_live) AS tools,
           (SELECT count(DISTINCT knowledge_group_id)
              FROM persona_knowledge_groups WHERE is_live) AS knowledge_groups,
           (SELECT count(*) FROM share_links WHERE is_live) AS share_links,
           (SELECT count(*)
              FROM (SELECT DISTINCT sha256(convert_to(system_prompt, 'UTF8')) FROM personas
                     WHERE removed_at IS NULL AND system_prompt IS NOT NULL) AS prompt) AS prompts,
           (SELECT count(*) FROM configurations) AS configurations
""")

# Up to so long ago; who was seen earlier, or never by a run, has a band of its own.
_BANDS = {
    "under 1 h": timedelta(hours=1),
    "1 to 6 h": timedelta(hours=6),
    "6 to 24 h": timedelta(hours=24),
    "1 to 7 d": timedelta(days=7),
    "7 to 30 d": timedelta(days=30),
}
_OLDEST = "over 30 d"
_UNSEEN = "only in files"

_AGES = """
    SELECT count(*) AS live, count(*) FILTER (WHERE last_success_at IS NULL) AS unseen, {bands}
      FROM freshness WHERE is_live
"""

_SEEN = "count(*) FILTER (WHERE last_success_at >= :now - CAST(:age_{0} AS interval)) AS band_{0}"

# What is past its end or used up opens nothing; what is disabled is meant to.
_LINKS = """
    SELECT share_link_id, persona_id, left(persona_name, :longest) AS persona_name,
           left(type, :longest) AS type, state, usage_count, usage_limit,
           state = 'open' AND expires_at <= :soon AS expires_soon,
           state = 'open' AND allow_all_origins IS TRUE AS is_wide_open,
           CASE WHEN expires_at BETWEEN '0001-01-02Z' AND '9999-12-31Z' THEN expires_at
           END AS expires_at
      FROM share_links
     WHERE state IN ('expired', 'used up')
        OR state = 'open' AND (expires_at <= :soon OR allow_all_origins)
"""

_URGENCY = """
    CASE WHEN expires_soon THEN 0 WHEN state = 'used up' THEN 1 WHEN state = 'expired' THEN 2
         ELSE 3 END
"""

_LINK_SUMS = f"""
    SELECT count(*) AS number,
           count(*) FILTER (WHERE expires_soon) AS expiring,
           min(expires_at) FILTER (WHERE expires_soon) AS next,
           count(*) FILTER (WHERE state = 'used up') AS used_up,
           count(*) FILTER (WHERE state = 'expired') AS expired,
           count(*) FILTER (WHERE is_wide_open) AS wide_open
      FROM ({_LINKS}) AS link
"""  # noqa: S608  the text above, nobody's input

_LINKS_LISTED = f"""
    SELECT * FROM ({_LINKS}) AS link
     ORDER BY {_URGENCY}, expires_at, persona_name, share_link_id LIMIT :listed
"""  # noqa: S608  the texts above, nobody's input

_DRIFT = """
    SELECT count(*) OVER () AS number, kind, left(path, :longest) AS path, problem, meaning,
           occurrences, first_seen_at, last_seen_at
      FROM drift WHERE status = 'open'
     ORDER BY last_seen_at DESC, kind, path, problem LIMIT :listed
"""

_PERSONAS = """
    SELECT persona_id, left(name, :longest) AS name, left(avatar_name, :longest) AS avatar_name,
           left(voice_name, :longest) AS voice_name,
           left(voice_provider, :longest) AS voice_provider, left(llm_id, :longest) AS llm_id,
           prompt_length, tool_count, knowledge_group_count, share_link_count, last_changed_at,
           last_observed_at, removed_at, last_outcome
      FROM (SELECT persona_id FROM personas ORDER BY name, persona_id LIMIT :listed) AS first
      JOIN personas USING (persona_id)
     ORDER BY name, persona_id
"""

_VALUE_ISSUES = text("""
    SELECT count(*) AS number, (
        SELECT kind || ' ' || left(path, :longest) FROM value_issues
         WHERE resolved_at IS NULL ORDER BY last_seen_at DESC, kind, path LIMIT 1) AS latest
      FROM value_issues WHERE resolved_at IS NULL
""")

_REJECTED = text("""
    SELECT count(*) AS number, (array_agg(left(reason, :longest) ORDER BY observed_at DESC))[1]
           AS latest
      FROM rejected_payloads WHERE observed_at >= :since
""")


@dataclass(frozen=True, slots=True)
class LinkSums:
    """How many share links there is something to say of; some of them for two reasons."""

    expiring: int
    next: datetime | None
    used_up: int
    expired: int
    wide_open: int


@dataclass(frozen=True, slots=True)
class Told:
    """How many, and the latest of them in words."""

    count: int
    latest: str


def totals(connection: Connection) -> Totals:
    """How much there is."""
    return Totals(**connection.execute(_TOTALS).mappings().one())


def ages(connection: Connection, now: datetime) -> list[AgeBand]:
    """The live personas by when a run last saw them, the latest first."""
    places = range(len(_BANDS))
    query = _AGES.format(bands=", ".join(_SEEN.format(place) for place in places))
    asked = {f"age_{place}": age for place, age in enumerate(_BANDS.values())}
    row = connection.execute(text(query), asked | {"now": now}).mappings().one()
    within = [row[f"band_{place}"] for place in places]
    between = [n - before for before, n in zip([0, *within], within, strict=False)]
    return [
        *map(AgeBand, _BANDS, between),
        AgeBand(_OLDEST, row["live"] - within[-1] - row["unseen"]),
        AgeBand(_UNSEEN, row["unseen"]),
    ]


def links(connection: Connection, now: datetime, *, listed: int) -> tuple[Listed[Link], LinkSums]:
    """The share links that somebody should look at."""
    asked = {"soon": now + EXPIRES_SOON, "longest": _LONGEST}
    sums = dict(connection.execute(text(_LINK_SUMS), asked).mappings().one())
    number = sums.pop("number")
    rows = connection.execute(text(_LINKS_LISTED), asked | {"listed": listed})
    return Listed(number, [_link(row, now) for row in rows]), LinkSums(**sums)


def _link(row: Row[Any], now: datetime) -> Link:
    why = []
    if row.expires_soon and row.expires_at:
        why.append(f"expires in {length_of_time(row.expires_at - now)}")
    if row.state == "expired":
        ago = f" {length_of_time(now - row.expires_at)} ago" if row.expires_at else ""
        why.append(f"expired{ago}, still enabled")
    if row.state == "used up":
        why.append("used up")
    if row.is_wide_open:
        why.append("opens on every site")
    return Link(
        share_link_id=row.share_link_id,
        persona_id=row.persona_id,
        persona_name=row.persona_name,
        type=row.type,
        state=row.state,
        why=", ".join(why),
        expires_at=row.expires_at,
        usage_count=row.usage_count,
        usage_limit=row.usage_limit,
    )


def drift(connection: Connection, *, listed: int) -> Listed[Drift]:
    """Where nobody has decided yet, the latest seen first."""
    rows = connection.execute(text(_DRIFT), {"listed": listed, "longest": _LONGEST}).mappings()
    found = [dict(row) for row in rows]
    counts = [row.pop("number") for row in found]
    return Listed(max(counts, default=0), [Drift(**row) for row in found])


def personas(connection: Connection, count: int, *, listed: int) -> Listed[Persona]:
    """By name; removed ones too. `count`: how many there are."""
    if not listed:
        return Listed(count, [])
    rows = connection.execute(text(_PERSONAS), {"listed": listed, "longest": _LONGEST}).mappings()
    return Listed(count, [Persona(**row) for row in rows])


def value_issues(connection: Connection) -> Told:
    """Values that do not fit their columns now."""
    row = connection.execute(_VALUE_ISSUES, {"longest": _LONGEST}).one()
    return Told(row.number, row.latest or "")


def rejected(connection: Connection, since: datetime) -> Told:
    """Answers that were no persona."""
    row = connection.execute(_REJECTED, {"since": since, "longest": _LONGEST}).one()
    return Told(row.number, row.latest or "")
