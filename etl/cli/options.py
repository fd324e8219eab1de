"""Options that more than one command has; whom they are about is in `selection.py`."""

from __future__ import annotations

import click

allow_mass_removal = click.option(
    "--allow-mass-removal", is_flag=True, help="Remove what is missing, however much it is."
)

strict = click.option(
    "--strict",
    is_flag=True,
    help="Exit 7 when the API has moved: a new field, another type, a new value, or one that no "
    "longer comes.",
)

unforget = click.option("--unforget", is_flag=True, help="Bring back personas that were forgotten.")

wait = click.option(
    "--wait",
    type=click.IntRange(min=0),
    default=0,
    metavar="SECONDS",
    help="Wait up to so long for another run to end, instead of giving up.",
)
