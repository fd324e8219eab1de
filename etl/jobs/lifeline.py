"""What a persona was over time: its versions, and those of all that it referred to meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from etl.errors import UsageError
from etl.jobs.findings import not_folded
from etl.store.engine import database_now
from etl.store.lineage import references_of, versions_of
from etl.store.unfolded import count_unfolded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.store.lineage import StoredVersion
    from etl.store.observations import EntityKey

# What a timestamptz tells apart: so long before a change nothing of it had come.
_JUST = timedelta(microseconds=1)


When = datetime | int | Literal["now"]
"""A moment; a version's number stands for when that version began."""


class Begun(NamedTuple):
    """A version that began, and the one before it, if any."""

    key: EntityKey
    before: StoredVersion | None
    version: StoredVersion


class Standing(NamedTuple):
    """What was in force at a moment."""

    moment: datetime
    version: StoredVersion | None
    """The persona's; None: it was not seen yet."""
    shown: StoredVersion | None
    """The version whose document counts: of a removed persona that which it showed last."""
    shared: Mapping[EntityKey, StoredVersion]


class Past:
    """The versions of a persona."""

    def __init__(self, connection: Connection, persona_id: UUID) -> None:
        self.connection = connection
        self.persona_id = persona_id
        self.key: EntityKey = ("persona", persona_id)
        self.own = versions_of(connection, [self.key]).get(self.key, [])
        if not self.own:
            waiting = count_unfolded(connection)
            raise UsageError(
                f"nothing is known of persona {persona_id} as yet; {not_folded(waiting)}"
                if waiting
                else f"nothing is known of persona {persona_id};"
                " `persona-etl sync` copies it if the API has it"
            )

        # What began is in force, though the server's clock was set back since.
        self._now = max(database_now(connection), self.own[-1].valid_from)

    def moment(self, when: When) -> datetime:
        """When that is; of a version that is not kept, when the first one began."""
        if when == "now":
            return self._now
        if isinstance(when, datetime):
            return when
        first, last = self.own[0].number, self.own[-1].number
        if when < 1 or when > last:
            raise UsageError(
                f"persona {self.persona_id} has no version {when}: its last is {last};"
                " a day is written like 2026-11-23"
            )
        return self.own[max(when - first, 0)].valid_from

    def in_force(self, moment: datetime) -> StoredVersion | None:
        """The persona's version of a moment."""
        return _in_force(self.own, moment)

    def shown(self, version: StoredVersion) -> StoredVersion:
        """The version whose document counts: of a removed persona that which it showed last."""
        if version.change != "removed":
            return version
        return self.own[max(version.number - self.own[0].number - 1, 0)]

    def before_last_change(self, moment: datetime) -> datetime:
        """Just before the last change by a moment; the first sighting is none."""
        version = self.in_force(moment)
        if version is None:
            return moment
        referred = references_of(self.connection, self.persona_id, [version.number])
        changed = [
            each.valid_from
            for chain in versions_of(self.connection, referred[version.number]).values()
            for each in chain[1:]
            if version.valid_from < each.valid_from <= moment
        ]
        if version is self.own[0] and not changed:
            return version.valid_from
        return max([version.valid_from, *changed]) - _JUST


class Stretch:
    """What a persona showed from one moment to another."""

    def __init__(self, past: Past, begin: datetime, end: datetime) -> None:
        self._past = past
        self._begin, self._end = begin, end
        self._during = [
            version
            for version in past.own
            if version.valid_from <= end and (version.valid_to is None or version.valid_to > begin)
        ]
        numbers = {
            each.number for version in self._during for each in (version, past.shown(version))
        }
        self._referred = references_of(past.connection, past.persona_id, numbers)
        self.keys = {key for keys in self._referred.values() for key in keys}
        self._chains = versions_of(past.connection, self.keys)

    def at(self, moment: datetime) -> Standing:
        """What was in force at a moment of it."""
        version = self._past.in_force(moment)
        if version is None:
            return Standing(moment, None, None, {})
        shown = self._past.shown(version)
        # What went on changing after it was gone did not change it.
        until = moment if shown is version else version.valid_from - _JUST
        shared = {
            key: found
            for key in self._referred[shown.number]
            if (found := _in_force(self._chains.get(key, []), until))
        }
        return Standing(moment, version, shown, shared)

    def begun(self) -> list[Begun]:
        """The versions that began after its first moment, in order."""
        found = [each for each in self._all() if self._begin < each.version.valid_from <= self._end]
        return sorted(found, key=lambda b: (b.version.valid_from, b.key[0] != "persona", b.key))

    def _all(self) -> Iterator[Begun]:
        """Of what it referred to then; that something was seen at all is no change."""
        for version in self._during:
            place = version.number - self._past.own[0].number
            yield Begun(self._past.key, self._past.own[place - 1] if place else None, version)
            for key in self._referred[version.number]:
                for before, each in pairwise(self._chains.get(key, [])):
                    if version.valid_from <= each.valid_from and (
                        version.valid_to is None or each.valid_from < version.valid_to
                    ):
                        yield Begun(key, before, each)


def _in_force(chain: Sequence[StoredVersion], moment: datetime) -> StoredVersion | None:
    begun = [version for version in chain if version.valid_from <= moment]
    return begun[-1] if begun else None
