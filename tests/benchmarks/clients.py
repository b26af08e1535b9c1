"""Clients of the benchmark: requests that are ready to be sent, on connections that stay open."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

HOST = "127.0.0.1"
WORKERS = 2


def request(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return a whole POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One keep-alive connection; `send` waits for the answer and raises for any but a 2xx."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, whole_request: bytes) -> bytes:
        """Send a request and return the body of its answer."""
        self._socket.sendall(whole_request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
        while len(body) < length:
            body += self._more()
        if head.split(b" ", 2)[1][:1] != b"2":
            raise RuntimeError(f"{head.split(bytes([13]))[0].decode()}: {body[:500].decode()}")
        return body

    def _more(self) -> bytes:
        received = self._socket.recv(65_536)
        if not received:
            raise RuntimeError("the server closed the connection")
        return received

    def address(self) -> tuple[str, int]:
        """Return our end's address."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        self._socket.close()


@contextmanager
def connections(port: int, count: int, server: psutil.Process) -> Iterator[list[Connection]]:
    """Open connections, the same number to each of the server's workers as far as that goes.

    Which worker a connection gets is a matter of luck, which many clients even out and two do not.
    """
    opened: list[Connection] = []
    surplus: list[Connection] = []
    taken: Counter[int] = Counter()
    while len(workers := [one.pid for one in server.children(recursive=True) if one.net_connections()]) < WORKERS:
        time.sleep(0.05)  # one is up before the other
    try:
        while len(opened) < count:
            one = Connection(port)
            worker = _worker_of(one, server)
            if taken[worker] > min(taken[other] for other in workers):
                surplus.append(one)  # open until the end: its port would be given to the next one
            else:
                taken[worker] += 1
                opened.append(one)
        yield opened
    finally:
        for one in opened + surplus:
            one.close()


def _worker_of(connection: Connection, server: psutil.Process) -> int:
    while True:
        for worker in server.children(recursive=True):
            if any(theirs.raddr and tuple(theirs.raddr) == connection.address() for theirs in worker.net_connections()):
                return worker.pid


def send_all(connections: Sequence[Connection], requests: Sequence[bytes]) -> None:
    """Send the requests over the connections at the same time, each its share."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for one in requests[number :: len(connections)]:
                connections[number].send(one)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run must show it
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(len(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
