"""How the stand-in behaves all the time, as against the faults, which are met by some requests."""

from __future__ import annotations

from typing import Annotated

import msgspec

from etl.sandbox.traffic import RateLimit  # noqa: TC001  msgspec reads the annotation


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set.

    Attributes:
        latency_seconds: how long every answer takes at least.
        rate_limit: None for no limit, and no headers that tell of one.
        moving: signatures and counters change at every fetch, as the vendor's do.
        shuffle_keys: each answer has the members of its objects in another order.
    """

    latency_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0
    rate_limit: RateLimit | None = None
    moving: bool = True
    shuffle_keys: bool = False
