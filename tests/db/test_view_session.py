"""Whoever reads the reports needs the views alone, and is told what is in the way."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError
from etl.jobs.migrate import migrate
from etl.jobs.view_session import reading_views
from etl.store.engine import make_engine


def as_role(target, role: str) -> str:
    url = sa.make_url(target.url).set(username=role, password="p@ss")
    return url.render_as_string(hide_password=False)


def test_a_reader_reads_the_views_by_their_bare_names_and_writes_nothing(role, target) -> None:
    migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
    with reading_views(as_role(target, role), target.schema) as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM personas").scalar_one()
    assert count == len(target.world.persona_ids)
    with (
        pytest.raises(DatabaseError, match="read-only"),
        reading_views(target.url, target.schema) as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE anam.mine ()")


def test_a_role_without_the_right_is_told_which_one(role, target) -> None:
    with (
        pytest.raises(DatabaseError, match=rf"role \S*{role}.* migrate --grant-reader"),
        reading_views(as_role(target, role), target.schema),
    ):
        pass


def test_views_of_another_release_are_told(target) -> None:
    target.query("ALTER VIEW anam_reporting.personas RENAME COLUMN prompt_length TO elsewhere")
    with (
        pytest.raises(DatabaseError, match="another release; run `persona-etl migrate`"),
        reading_views(target.url, target.schema) as connection,
    ):
        connection.exec_driver_sql("SELECT prompt_length FROM personas")
    target.query("DROP VIEW anam_reporting.share_links")
    with (
        pytest.raises(DatabaseError, match="no view share_links; run `persona-etl migrate`"),
        reading_views(target.url, target.schema),
    ):
        pass


def test_a_reader_of_older_views_is_told_to_migrate_and_not_what_else_it_may_not(
    role, target
) -> None:
    migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
    target.query("DROP VIEW anam_reporting.share_links")
    with (
        pytest.raises(DatabaseError, match="no view share_links; run `persona-etl migrate`"),
        reading_views(as_role(target, role), target.schema),
    ):
        pass


def test_where_there_is_nothing_it_is_said_to_migrate(target) -> None:
    with (
        pytest.raises(DatabaseError, match="persona-etl migrate"),
        reading_views(target.url, "another"),
    ):
        pass
