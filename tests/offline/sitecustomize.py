"""No network in tests: Python imports this before anything else where this folder is in ``PYTHONPATH``.

``tests/conftest.py`` takes care of that, for its own process and for all that tests start.
"""

import socket
import sys

NAMES = ("", "localhost", "0.0.0.0", "::", "::1", socket.gethostname())
WITH_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
WITH_HOST = ("socket.getaddrinfo", "socket.gethostbyname")


def is_here(host) -> bool:
    """Whether a name or number means this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    return host is None or host in NAMES or host.startswith("127.")


def refuse(event: str, details: tuple) -> None:
    """Called for everything that Python counts as worth auditing (PEP 578); cannot be taken off again."""
    if event in WITH_ADDRESS and isinstance(details[1], tuple):  # others are files or pairs of sockets
        host = details[1][0]
    elif event in WITH_HOST:
        host = details[0]
    else:
        return
    if not is_here(host):
        raise RuntimeError(f"no network in tests: {event} to {host!r}")


sys.addaudithook(refuse)
