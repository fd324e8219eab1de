"""A stand-in for the Anam API on loopback, for demos and tests."""

from etl.sandbox.faults import Fault
from etl.sandbox.generate import generate
from etl.sandbox.running import Sandbox, running_sandbox
from etl.sandbox.world import World

__all__ = ["Fault", "Sandbox", "World", "generate", "running_sandbox"]
