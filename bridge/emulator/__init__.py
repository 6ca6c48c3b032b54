"""A TAMS to talk to on localhost: same paths, same documents, a switch for all that is unknown about the real one."""

from bridge.emulator.clock import Clock
from bridge.emulator.server import serve
from bridge.emulator.settings import EmulatorSettings

__all__ = ["Clock", "EmulatorSettings", "serve"]
