"""As what a join token lets its bearer join, and fresh tokens in their place. Pure but for the fresh secrets."""

from __future__ import annotations

import hmac

from shoal.api.errors import InvalidArgument
from shoal.api.jointoken import JoinToken, check_fingerprint, new_secret, parse
from shoal.api.objects import Cluster, JoinTokens
from shoal.api.states import Role


def new_tokens() -> JoinTokens:
    return JoinTokens(worker=new_secret(), manager=new_secret())


def rotated(tokens: JoinTokens, *, worker: bool, manager: bool) -> JoinTokens:
    """`tokens` with those named replaced; what was handed out before opens nothing any more."""
    return JoinTokens(
        worker=new_secret() if worker else tokens.worker,
        manager=new_secret() if manager else tokens.manager,
    )


def token_for(cluster: Cluster, role: Role) -> str:
    """The token that a host needs to join in this role."""
    secret = cluster.join_tokens.manager if role is Role.MANAGER else cluster.join_tokens.worker
    return str(JoinToken(cluster.root_ca.digest, secret))


def role_of(text: str, cluster: Cluster) -> Role:
    """The role in which the bearer of a token may join.

    Raises InvalidArgument, with a message of its own for each: malformed or truncated,
    made for another cluster, or with a secret that is not (or no longer) the cluster's.
    """
    token = parse(text)
    check_fingerprint(token, cluster.root_ca.cert_pem)
    # Both are compared, always: the time it takes tells nothing.
    is_manager = hmac.compare_digest(token.secret, cluster.join_tokens.manager)
    is_worker = hmac.compare_digest(token.secret, cluster.join_tokens.worker)
    if is_manager:
        return Role.MANAGER
    if is_worker:
        return Role.WORKER
    raise InvalidArgument("A valid join token is necessary to join this cluster: "
                          "this one is of this cluster, but its secret is wrong or was rotated")
