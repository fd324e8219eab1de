"""Payloads in files: which there are, what stands in them, and the line of an observation.

Knows bytes, lines and JSON values; knows no columns and no Postgres.
"""
