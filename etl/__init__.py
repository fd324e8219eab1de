"""Copies Anam personas into normalized Postgres tables and keeps their history."""
