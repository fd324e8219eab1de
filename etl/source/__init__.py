"""Anam over HTTP. Knows status codes and headers; knows no columns."""
