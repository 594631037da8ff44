"""What went wrong on the way to a registry, in the words that users of Docker look up.

Sources: Go's net, net/http and crypto/x509, whose errors Docker shows.
"""

from __future__ import annotations

import socket
import ssl

import aiohttp

_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_…: self-signed, self-signed in the chain, no issuer found, leaf not verified."""

_PLAIN = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


def reason(error: BaseException) -> str:
    """In a few words; never empty."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            what = ("certificate signed by unknown authority" if cause.verify_code in _UNKNOWN_AUTHORITY
                    else cause.verify_message)
            return f"tls: failed to verify certificate: x509: {what}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason=str() as name)) if name in _PLAIN:
            return "http: server gave HTTP response to HTTPS client"
        case aiohttp.ClientConnectorDNSError(os_error=OSError(errno=number, strerror=said)):
            return f"dial tcp: lookup {error.host}: {'no such host' if number == socket.EAI_NONAME else said}"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return f"dial tcp {error.host}:{error.port}: connect: connection refused"
        case TimeoutError():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__
