"""Postgres: sessions, migrations, access, lock, observations, versions, projections, ledger."""
