"""To whom share links belong, for a replay: rows of links follow from more than one persona."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.store.links import owners_of, tables_of_links
from etl.store.mapped import map_of
from etl.store.rows import key_of, links_shown_twice, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Table

    from etl.flatten import Row
    from etl.jobs.rows import Entities, Follow, Rows
    from etl.store.rows import Standing


def contested_links(connection: Connection) -> dict[UUID, UUID | None]:
    """The share links that more than one persona shows, and to whom each belongs."""
    links = links_shown_twice(connection)
    owners = owners_of(connection, links)
    return {link: owners[link][0] if link in owners else None for link in links}


def add_links(
    tables: Sequence[Table], follow: Follow, persona_id: UUID, rows: Mapping[str, list[Row]]
) -> None:
    """Notes the links that a persona's document shows, with what belongs to them."""
    for table in tables:
        for row in rows[table.name]:
            shown = follow.links.setdefault(row["share_link_id"], {}).setdefault(persona_id, {})
            shown.setdefault(table, []).append(row)


def settle_links(
    connection: Connection, batch: Entities, follow: Follow, there: dict[Table, Rows]
) -> None:
    """Which rows of share links follow from this batch, and which of those that are there count.

    A link that belongs to a persona of another batch is compared there.
    """
    own, *below = tables_of_links(map_of(connection))
    links = rows_of(connection, own, batch.span, follow.links)
    has_it = {row["share_link_id"]: row["persona_id"] for row in links.values()}
    owners = _owners(connection, batch, follow, has_it)
    # Where versions are not yet right, neither is it told who owns a link.
    unsure = {*follow.untold, *batch.foretold}
    left: set[UUID] = set()
    for link in follow.links.keys() | has_it.keys():
        shown = follow.links.get(link, {})
        owned_by = owners.get(link)
        claimants = {owned_by, has_it.get(link), *shown}
        is_elsewhere = owned_by is not None and owned_by not in batch.standings
        is_untold = owned_by is None and not batch.are_versions_right
        if is_elsewhere or is_untold or not unsure.isdisjoint(claimants):
            left.add(link)
        elif owned_by in shown:
            for table, rows in shown[owned_by].items():
                follow.rows[table].update({key_of(table, row): row for row in rows})
    there[own] = {key: row for key, row in links.items() if key[0] not in left}
    for table in below:
        found = rows_of(connection, table, batch.span, [link for (link,) in links])
        there[table] = {k: row for k, row in found.items() if row["share_link_id"] not in left}


def _owners(
    connection: Connection, batch: Entities, follow: Follow, has_it: Mapping[UUID, UUID]
) -> dict[UUID, UUID]:
    """To whom each link belongs, of those shown here or in the table; nobody's are absent."""
    # In the table under somebody who does not show it: perhaps another does.
    strays = has_it.keys() - follow.links.keys()
    owners = {link: persona_id for link, (persona_id, _) in owners_of(connection, strays).items()}
    contested = batch.contested
    if contested is None:
        doubtful = [
            link
            for link, shown in follow.links.items()
            if len(shown) > 1 or has_it.get(link) not in shown
        ]
        found = owners_of(connection, doubtful)
        contested = {link: found[link][0] if link in found else None for link in doubtful}
    for link, shown in follow.links.items():
        owned_by = contested.get(link)
        now = has_it.get(link)
        if owned_by is None and link in contested and now not in batch.standings:
            # Its id is not written as the API writes ids, by which claimants are found.
            owned_by = now
        owners[link] = owned_by or max(shown, key=lambda id_: _claim(batch.standings[id_]))
    return owners


def _claim(standing: Standing) -> tuple[bool, datetime, UUID]:
    """A link that two personas show belongs to the greater."""
    return not standing.is_removed, standing.last_changed_at, standing.entity_id
