"""Certificates in time: a new one after 50 to 80 % of the old one's life, at once when the role is to change."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import aiohttp
import msgspec

from shoal.api.errors import ShoalError
from shoal.api.ids import new_swarm_id
from shoal.api.membership import CertificateRequest
from shoal.api.states import Role
from shoal.worker.credentials import CertificateFacts, Credentials, new_key
from shoal.worker.enroll import ask_certificate

log = logging.getLogger(__name__)

RETRY_S = (0.25, 60.0)
"""First and longest wait after a renewal that failed."""

ATTEMPT_TIMEOUT_S = 10.0


def due_at(facts: CertificateFacts, chance: float) -> float:
    """When to renew (seconds since the epoch): between half and four fifths of a life, as `chance` in [0, 1) says."""
    return facts.not_before + (facts.not_after - facts.not_before) * (0.5 + 0.3 * chance)


class Renewer:
    """Keeps the certificate valid and in the role that the managers want. `run` it; `want` says the role."""

    def __init__(self, credentials: Credentials, addresses: Callable[[], list[str]]) -> None:
        self._credentials = credentials
        self._addresses = addresses
        self._wanted: Role | None = None
        self._wake = asyncio.Event()

    def want(self, role: Role) -> None:
        """The role that the managers want of this node."""
        if role is not self._wanted:
            self._wanted = role
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        chance, failures = random.random(), 0  # noqa: S311 - spreads load, guards nothing
        while True:
            facts = self._credentials.facts()
            wrong_role = self._wanted is not None and self._wanted is not facts.role
            if not wrong_role and time.time() < due_at(facts, chance):
                await self._sleep(due_at(facts, chance) - time.time())
                continue
            try:
                await self.renew()
                chance, failures = random.random(), 0  # noqa: S311
            except (ShoalError, aiohttp.ClientError, OSError, TimeoutError) as error:
                failures += 1
                log.warning("event=renewal-failed attempt=%d error=%s", failures, str(error) or type(error).__name__)
                await asyncio.sleep(min(RETRY_S[0] * 2 ** min(failures - 1, 10), RETRY_S[1]))

    async def renew(self) -> None:
        """Ask every known manager in turn. Raises what the last one did."""
        identity = self._credentials.identity
        assert identity is not None
        key_pem, csr_pem = new_key()
        request = CertificateRequest(csr_pem=csr_pem, node_id=identity.node_id)
        failure: Exception = ShoalError("no manager is known")
        for address in self._addresses():
            try:
                async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                    reply = await ask_certificate(address, "/ca/v1/renew", request, self._credentials.client)
            except (ShoalError, aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = error
                continue
            self._credentials.save_certificate(key_pem, reply.certificate_pem, reply.root_ca_pem)
            raft_id = identity.raft_id if reply.role is identity.role else ""
            if reply.role is Role.MANAGER and not raft_id:
                raft_id = new_swarm_id()
            latest = self._credentials.identity or identity
            self._credentials.save(msgspec.structs.replace(latest, role=reply.role, raft_id=raft_id))
            log.info("event=renewed role=%s", reply.role)
            return
        raise failure

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, 3600.0)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
