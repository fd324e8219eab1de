"""Postgres: engine, embedded server, lock, observations, versions, projections, ledger."""
