"""The libraries of a page, which only whoever asks for one must have."""

from __future__ import annotations

from importlib.util import find_spec

from etl.errors import UsageError


def require_html_libraries() -> None:
    """To be asked before anything is read. Raises UsageError."""
    missing = [name for name in ("jinja2", "vl_convert") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--html needs {' and '.join(missing)}: run `pip install 'persona-etl[html]'`"
        )
