"""To whom a share link belongs: of the personas that show it, to the one whose version is younger.

Removed personas keep their rows, so they have a claim too, by their last document, behind all that
are live. A link's claimants are found through an index on the documents, by its id in lower case,
as the API writes ids, or in upper case. In mixed letters it goes to the youngest persona of the
batch that shows it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.flatten import flatten
from etl.store.mapped import map_of
from etl.store.observations import stored_documents
from etl.store.recordset import encode_rows, recordset
from etl.tables import UUID_, share_links

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Table

    from etl.flatten import Flat, Row
    from etl.map import Map
    from etl.store.observations import ContentKey

Owners = dict["UUID", tuple["UUID", bytes]]
"""By link: its owner, and the hash of that persona's document in force."""


@cache
def tables_of_links(the_map: Map) -> tuple[Table, ...]:
    """The table of share links, and those of what belongs to them."""
    return tuple(
        table
        for table in the_map.projections("persona")
        if the_map.origin(table).path.startswith("shareLinks[]")
    )


# `v` is in force, or the last before the removal `gone` that is in force.
_CLAIMING = """
      LEFT JOIN document_versions AS gone
        ON gone.kind = v.kind AND gone.entity_id = v.entity_id AND gone.valid_from = v.valid_to
       AND gone.valid_to IS NULL AND gone.content_hash IS NULL
     WHERE v.kind = 'persona' AND (v.valid_to IS NULL OR gone.version IS NOT NULL)
""".strip("\n")

# Each link is looked up through the index, and compared with all links of each document found …
# OFFSET 0 keeps that order: the planner takes a hundredth of all documents for each link's, and
# would rather join all versions, or compare each link with each document.
_CLAIMS_OF_FEW = text(f"""
    SELECT DISTINCT ON (k.share_link_id) k.share_link_id, v.entity_id, v.content_hash
      FROM json_to_recordset(CAST(:rows AS json)) AS k(share_link_id uuid)
     CROSS JOIN LATERAL (VALUES (CAST(k.share_link_id AS text)),
                                (upper(CAST(k.share_link_id AS text)))) AS spelled(id)
     CROSS JOIN LATERAL (
           SELECT d.content_hash
             FROM documents AS d
            WHERE d.kind = 'persona'
              AND d.document -> 'shareLinks'
                  @> jsonb_build_array(jsonb_build_object('id', spelled.id))
           OFFSET 0) AS d
     CROSS JOIN LATERAL (
           SELECT v.entity_id, v.content_hash, gone.version IS NOT NULL AS is_gone,
                  coalesce(gone.valid_from, v.valid_from) AS since
             FROM document_versions AS v
{_CLAIMING} AND v.content_hash = d.content_hash
           OFFSET 0) AS v
     ORDER BY k.share_link_id, v.is_gone, v.since DESC, v.entity_id DESC
""")  # noqa: S608  a constant

# … which is quadratic for a persona with very many: then the documents in force are read once.
_CLAIMS_OF_MANY = text(f"""
    WITH shown AS MATERIALIZED (
           SELECT lower(link ->> 'id') AS id, v.entity_id, v.content_hash,
                  gone.version IS NOT NULL AS is_gone,
                  coalesce(gone.valid_from, v.valid_from) AS since
             FROM document_versions AS v
             JOIN documents AS d USING (kind, content_hash)
            CROSS JOIN LATERAL jsonb_array_elements(
                  CASE jsonb_typeof(d.document -> 'shareLinks')
                       WHEN 'array' THEN d.document -> 'shareLinks' ELSE '[]' END) AS link
{_CLAIMING}),
         wanted AS MATERIALIZED (
           SELECT CAST(share_link_id AS text) AS id, share_link_id
             FROM json_to_recordset(CAST(:rows AS json)) AS k(share_link_id uuid))
    SELECT DISTINCT ON (share_link_id) share_link_id, entity_id, content_hash
      FROM wanted JOIN shown USING (id)
     ORDER BY share_link_id, is_gone, since DESC, entity_id DESC
""")  # noqa: S608  a constant
_FEW = 50


def contested_links(
    connection: Connection, shown: Iterable[Flat], changed: Sequence[UUID]
) -> set[UUID]:
    """The share links that two personas may claim.

    Those shown twice in the batch, those that another persona has in the table, and those that a
    changed persona does not show any more.
    """
    rows = [row for flat in shown for row in flat.rows[share_links.name]]
    shown_by = {row["share_link_id"]: row["persona_id"] for row in rows}
    times = Counter(row["share_link_id"] for row in rows)
    contested = {link for link, count in times.items() if count > 1}
    if shown_by:
        incoming = recordset([share_links.c.share_link_id])
        known = connection.execute(
            select(share_links.c.share_link_id, share_links.c.persona_id).join(
                incoming, incoming.c.share_link_id == share_links.c.share_link_id
            ),
            {"rows": encode_rows({"share_link_id": link} for link in shown_by)},
        )
        contested |= {link for link, owner in known if owner != shown_by[link]}
    return contested | (links_of(connection, changed) - shown_by.keys())


def links_shown(flats: Iterable[Flat]) -> set[UUID]:
    """The links that these personas show."""
    return {row["share_link_id"] for flat in flats for row in flat.rows[share_links.name]}


def links_of(connection: Connection, personas: Sequence[UUID]) -> set[UUID]:
    """The links that these personas have in the table."""
    if not personas:
        return set()
    wanted = bindparam("personas", type_=ARRAY(UUID_))
    statement = select(share_links.c.share_link_id).where(share_links.c.persona_id == any_(wanted))
    return set(connection.execute(statement, {"personas": personas}).scalars())


def owners_of(connection: Connection, links: Collection[UUID]) -> Owners:
    """To whom each of these links belongs; those that nobody shows any more are absent."""
    if not links:
        return {}
    claims = _CLAIMS_OF_FEW if len(links) <= _FEW else _CLAIMS_OF_MANY
    wanted = encode_rows({"share_link_id": link} for link in links)
    return {
        row.share_link_id: (row.entity_id, row.content_hash)
        for row in connection.execute(claims, {"rows": wanted})
    }


def leave_to_owners(the_map: Map, flats: Mapping[UUID, Flat], owners: Owners) -> None:
    """Takes the links of others out of these personas' rows. `flats`: the oldest version first."""
    owner_of = {
        row["share_link_id"]: persona_id
        for persona_id, flat in flats.items()
        for row in flat.rows[share_links.name]
    }
    owner_of |= {link: owner for link, (owner, _) in owners.items()}
    for persona_id, flat in flats.items():
        for table in tables_of_links(the_map):
            rows = flat.rows[table.name]
            rows[:] = [row for row in rows if owner_of[row["share_link_id"]] == persona_id]


def rows_of_owners(
    connection: Connection, owners: Owners, *, without: Collection[UUID]
) -> dict[str, list[Row]]:
    """The rows of links whose owners are not being written themselves, by table.

    Without the observed columns: nobody has seen those just now.
    """
    links_by_owner: dict[tuple[UUID, bytes], set[UUID]] = {}
    for link, owner in owners.items():
        if owner[0] not in without:
            links_by_owner.setdefault(owner, set()).add(link)
    rows: dict[str, list[Row]] = {}
    if not links_by_owner:
        return rows
    contents: set[ContentKey] = {("persona", content) for _, content in links_by_owner}
    documents = stored_documents(connection, contents)
    the_map = map_of(connection)
    for (persona_id, content), links in links_by_owner.items():
        document = documents["persona", content]
        flat = flatten("persona", persona_id, document, "stored", the_map=the_map)
        for table in tables_of_links(the_map):
            found = [row for row in flat.rows[table.name] if row["share_link_id"] in links]
            rows.setdefault(table.name, []).extend(found)
    return rows
