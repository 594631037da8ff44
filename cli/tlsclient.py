"""TLS towards a daemon, behind an ordinary socket whose two ways end by themselves.

Python's own TLS sockets cannot say that no more comes and still read; a container's input ends that way.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

CHUNK = 64 << 10


def client_context(folder: Path | None, *, verify: bool) -> ssl.SSLContext:
    """With ca.pem, cert.pem and key.pem of the folder, as far as they are there. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authority = folder / "ca.pem" if folder is not None else None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority is not None and authority.exists():
        context.load_verify_locations(cafile=authority)
    else:
        context.load_default_certs()
    if folder is not None and (folder / "cert.pem").exists():
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def bridge(connection: socket.socket, context: ssl.SSLContext, name: str) -> socket.socket:
    """Shake hands, then carry from a thread. Returns the plain end. Raises OSError where either is refused."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
            connection.sendall(outgoing.read())
            break
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
            data = connection.recv(CHUNK)
            if not data:
                raise ConnectionResetError("the daemon closed the connection during the TLS handshake") from None
            incoming.write(data)
    connection.settimeout(None)
    ours, theirs = socket.socketpair()
    carrier = _Carrier(connection, tls, incoming, outgoing, theirs)
    threading.Thread(target=carrier.run, name="tls", daemon=True).start()
    return ours


class _Carrier:
    def __init__(self, outer: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO,
                 inner: socket.socket) -> None:
        self._outer, self._tls, self._incoming, self._outgoing, self._inner = outer, tls, incoming, outgoing, inner

    def run(self) -> None:
        """Until the daemon has no more to say, or either end is gone."""
        reading: list[socket.socket] = [self._outer, self._inner]
        with self._outer, self._inner, suppress(OSError):
            while self._deliver():
                ready, _, _ = select.select(reading, [], [])
                if self._inner in ready and not self._send():
                    reading.remove(self._inner)
                if self._outer in ready:
                    data = self._outer.recv(CHUNK)
                    if not data:
                        return
                    self._incoming.write(data)

    def _deliver(self) -> bool:
        """What has come, decrypted, to the plain end. False: nothing more comes."""
        while True:
            try:
                data = self._tls.read(CHUNK)
            except ssl.SSLWantReadError:
                self._flush()
                return True
            except ssl.SSLZeroReturnError:
                return False
            if not data:
                return False
            self._inner.sendall(data)

    def _send(self) -> bool:
        """What the plain end gives. False: it has no more, and the daemon was told."""
        data = self._inner.recv(CHUNK)
        if data:
            self._tls.write(data)
        else:
            with suppress(ssl.SSLError):  # it wants the daemon's own, which comes with the end of the answer
                self._tls.unwrap()
        self._flush()
        return bool(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._outer.sendall(data)
