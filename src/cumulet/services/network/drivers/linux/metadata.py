"""The metadata address of a network: 169.254.169.254 on br0, where the program itself listens.

Who asks is known by the network the socket belongs to and the peer's address, which anti-spoofing vouches for.
"""

import socket

from cumulet.services.network.drivers import DataplaneError
from cumulet.services.network.drivers.linux.bridge import METADATA_ADDRESS

PORT = 80


def listen() -> socket.socket:
    """Open a listening, non-blocking socket in the thread's namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((METADATA_ADDRESS, PORT))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise DataplaneError(f"could not listen on {METADATA_ADDRESS}:{PORT}: {error.strerror}") from error
    return listener
