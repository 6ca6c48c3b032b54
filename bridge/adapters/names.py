"""Names to addresses, by the system's resolver."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from bridge.core.addresses import Address

_AT_ONCE = 16
_PATIENCE_S = 5.0


class SystemResolver:
    """Implements `bridge.api.ports.Resolver`, in threads of its own: a name whose servers hang holds one for a while.

    Args:
        patience_s: longest wait for a name.
    """

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names")

    async def addresses(self, name: str) -> list[Address]:
        """See the port."""
        looking = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)
        try:
            return await asyncio.wait_for(looking, self._patience_s)
        except (OSError, UnicodeError):  # a time-out is an OSError, too
            return []

    def close(self) -> None:
        """Look nothing up any more; what is under way ends by itself, for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str) -> list[Address]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in found))
