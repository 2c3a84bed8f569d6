"""A connection between a client and a server that a test can disturb."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Way:
    """Passes bytes both ways between `port` and another port, and counts them in each direction.

    `near`: the address and port to listen on; by default, any port.
    """

    def __init__(self, target: int, near: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.target, self.sent, self.received = target, 0, 0
        self.cut_after: int | None = None
        """Cut every connection once so many bytes have gone there; None: never."""
        self.cut_back_after: int | None = None
        """The same of bytes that have come back."""
        self.delay = 0.0
        """Seconds to wait before each piece goes there."""
        self._listener = socket.create_server(near)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, goal: socket.socket, there: bool) -> None:
        gone = 0
        with suppress(OSError):
            while piece := source.recv(65536):
                gone += len(piece)
                if there:
                    time.sleep(self.delay)
                    self.sent += len(piece)
                else:
                    self.received += len(piece)
                most = self.cut_after if there else self.cut_back_after
                if most is not None and gone > most:
                    break
                goal.sendall(piece)
        for end in (source, goal):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # else the thread that accepts would take one more connection
        self._listener.close()
