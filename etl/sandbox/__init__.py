"""A stand-in for the Anam API on loopback, for demos and tests. docs/sandbox.md is its manual."""

from etl.sandbox.faults import Fault
from etl.sandbox.generate import generate
from etl.sandbox.reshape import Reshape
from etl.sandbox.running import Sandbox, running_sandbox
from etl.sandbox.shapes import LATER
from etl.sandbox.traffic import RateLimit
from etl.sandbox.world import World

__all__ = [
    "LATER",
    "Fault",
    "RateLimit",
    "Reshape",
    "Sandbox",
    "World",
    "generate",
    "running_sandbox",
]
