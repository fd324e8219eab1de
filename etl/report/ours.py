"""What is ours in the reporting schema, and how SQL about it is put together.

Ours are the views and functions whose comment says so: what somebody else has put into the same
schema is left alone.
"""

from __future__ import annotations

from psycopg.sql import Identifier, Literal

from etl.report.functions import REPORTING
from etl.settings import BODY_TAG

MARK = "Made by persona-etl: `migrate` makes it anew."
"""Ends the comment of each view and function of ours."""

_VIEWS_OF_OURS = """
        pg_class AS view JOIN pg_namespace AS schema ON schema.oid = view.relnamespace
        WHERE schema.nspname = {reporting} AND view.relkind = 'v'
          AND obj_description(view.oid, 'pg_class') LIKE '%' || {mark}
""".strip()

_FUNCTIONS_OF_OURS = """
        pg_proc AS function JOIN pg_namespace AS schema ON schema.oid = function.pronamespace
        WHERE schema.nspname = {reporting}
          AND obj_description(function.oid, 'pg_proc') LIKE '%' || {mark}
""".strip()


def reporting_schema(schema: str) -> str:
    """Where the views of the tables in `schema` are."""
    return f"{schema}_reporting"


def filled(template: str, schema: str, **more: str) -> str:
    """SQL about the reporting schema of `schema`, from a template."""
    reporting = reporting_schema(schema)
    literals = {"reporting": text(reporting), "mark": text(MARK)}
    return template.strip().format(
        **literals,
        **more,
        tag=BODY_TAG,
        schema=name(reporting),
        views_of_ours=_VIEWS_OF_OURS.format(**literals),
        functions_of_ours=_FUNCTIONS_OF_OURS.format(**literals),
    )


def in_schema(body: str, schema: str) -> str:
    """A query or a body, with the reporting schema's name where a word stood for it."""
    return body.replace(REPORTING, name(reporting_schema(schema)))


def quoted(body: str, word: str) -> str:
    """SQL inside of SQL, between dollar signs: it stays readable."""
    # A schema's name may hold what would end it.
    while f"${word}$" in body:
        word += "_"
    return f"${word}${body}${word}$"


def name(identifier: str) -> str:
    """A name as SQL spells it."""
    return Identifier(identifier).as_string()


def text(value: str) -> str:
    """A text as SQL spells it."""
    return Literal(value).as_string()
