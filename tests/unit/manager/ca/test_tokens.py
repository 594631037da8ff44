import time

import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.jointoken import digest_of, new_secret, parse
from shoal.api.objects import Cluster
from shoal.api.states import Role
from shoal.manager.ca.issue import new_root
from shoal.manager.ca.tokens import new_tokens, role_of, rotated, token_for

ROOT = new_root(time.time())
CLUSTER = Cluster(id="c", root_ca=ROOT, join_tokens=new_tokens())
WORKER = token_for(CLUSTER, Role.WORKER)
FOREIGN = token_for(Cluster(id="d", root_ca=new_root(time.time()), join_tokens=CLUSTER.join_tokens), Role.WORKER)


def test_a_token_has_docker_s_form():
    prefix, one, digest, secret = WORKER.split("-")
    assert (prefix, one, len(digest), len(secret)) == ("SWMTKN", "1", 50, 25)
    assert digest == digest_of(ROOT.cert_pem)
    assert str(parse(WORKER)) == WORKER


def test_each_token_opens_its_own_role():
    assert role_of(WORKER, CLUSTER) is Role.WORKER
    assert role_of(token_for(CLUSTER, Role.MANAGER), CLUSTER) is Role.MANAGER
    assert role_of(f" {WORKER}\n", CLUSTER) is Role.WORKER


@pytest.mark.parametrize(
    ("token", "says"),
    [
        pytest.param("", "invalid join token", id="empty"),
        pytest.param("SWMTKN-2" + WORKER[8:], "invalid join token", id="other-version"),
        pytest.param(WORKER[:-1], "truncated", id="truncated-secret"),
        pytest.param(WORKER[:40], "truncated", id="truncated-digest"),
        pytest.param(WORKER[:9] + WORKER[9:].upper(), "truncated or has characters", id="upper-case"),
        pytest.param(FOREIGN, "remote CA does not match fingerprint", id="foreign"),
        pytest.param(WORKER[:-25] + new_secret(), "A valid join token is necessary", id="wrong-secret"),
    ],
)
def test_a_bad_token_is_refused_and_told_which(token, says):
    with pytest.raises(InvalidArgument, match=says) as refused:
        role_of(token, CLUSTER)
    if token:
        assert token[-25:] not in refused.value.message


def test_rotation_closes_the_old_token_and_leaves_the_other():
    import msgspec

    after = msgspec.structs.replace(CLUSTER, join_tokens=rotated(CLUSTER.join_tokens, worker=True, manager=False))
    with pytest.raises(InvalidArgument, match="valid join token"):
        role_of(WORKER, after)
    assert role_of(token_for(after, Role.WORKER), after) is Role.WORKER
    assert token_for(after, Role.MANAGER) == token_for(CLUSTER, Role.MANAGER)
