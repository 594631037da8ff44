"""TLS contexts of this host in the swarm: TLS 1.3, its own certificate, the cluster's CA, no host names.

Names are not checked because addresses change and the CA speaks for nodes: who
the other is stands in its certificate (`ca.identity`). The contexts stay the same
objects when the files change; `refresh` loads them again, and later handshakes
use what is new.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class HostTLS:
    """`node.key`, `node.crt` and `ca.crt` of one folder, as contexts for both sides of a connection.

    `server` asks for a client certificate and takes a connection without one, for
    the routes that a joining host calls; `strict_server` refuses it at the handshake.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ssl.SSLError where a file is missing or no key or certificate."""
        self._folder = folder
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER, ssl.CERT_OPTIONAL)
        self.strict_server = self._context(ssl.PROTOCOL_TLS_SERVER, ssl.CERT_REQUIRED)
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_REQUIRED)
        self.refresh()

    def refresh(self) -> bool:
        """Load the files again if they changed; whether they did. Cheap: call it as often as you like."""
        seen = self._fingerprints()
        if seen == self._seen:
            return False
        for context in (self.server, self.strict_server, self.client):
            context.load_verify_locations(cafile=str(self._folder / "ca.crt"))
            context.load_cert_chain(str(self._folder / "node.crt"), str(self._folder / "node.key"))
        self._seen = seen
        return True

    def _fingerprints(self) -> tuple[tuple[int, int, int], ...]:
        stats = [(self._folder / name).stat() for name in ("node.key", "node.crt", "ca.crt")]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    @staticmethod
    def _context(protocol: int, mode: ssl.VerifyMode) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = mode
        return context
