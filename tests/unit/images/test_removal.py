"""What a removal takes away, and what stands against it: a table of dockerd's rules."""

import pytest

from shoal.api.errors import Conflict
from shoal.engine.images.removal import ImageUser, Plan, Standing, plan_removal

ID = "sha256:" + "a" * 64
TAG, OTHER = "docker.io/library/app:1", "docker.io/library/app:2"
ELSEWHERE = "example.org/app:1"
DIGEST, FAR_DIGEST = "docker.io/library/app@sha256:" + "1" * 64, "example.org/app@sha256:" + "1" * 64
STOPPED, RUNNING = ImageUser("c" * 64, running=False), ImageUser("d" * 64, running=True)


def standing(*names, users=(), children=False):
    return Standing(image_id=ID, tags=tuple(name for name in names if "@" not in name),
                    digests=tuple(name for name in names if "@" in name), users=users, has_children=children)


@pytest.mark.parametrize(("found", "name", "force", "plan"), [
    pytest.param(standing(TAG), TAG, False, Plan((TAG,), True), id="the last name takes the image along"),
    pytest.param(standing(TAG, OTHER), TAG, False, Plan((TAG,), False), id="one of two names"),
    pytest.param(standing(TAG, DIGEST), TAG, False, Plan((TAG, DIGEST), True), id="with the digest of its repository"),
    pytest.param(standing(TAG, OTHER, DIGEST), TAG, False, Plan((TAG,), False), id="a digest stays with a tag"),
    pytest.param(standing(TAG, FAR_DIGEST), TAG, False, Plan((TAG,), False), id="another repository's digest holds it"),
    pytest.param(standing(TAG, DIGEST), DIGEST, False, Plan((DIGEST,), False), id="a digest goes alone"),
    pytest.param(standing(DIGEST), DIGEST, False, Plan((DIGEST,), True), id="the last digest"),
    pytest.param(standing(TAG, OTHER, users=(RUNNING,)), TAG, False, Plan((TAG,), False), id="a name of one in use"),
    pytest.param(standing(TAG, users=(RUNNING,)), TAG, True, Plan((TAG,), False), id="running: only the name"),
    pytest.param(standing(TAG, users=(STOPPED,)), TAG, True, Plan((TAG,), True), id="stopped, forced"),
    pytest.param(standing(TAG, children=True), TAG, False, Plan((TAG,), False), id="others were made of it"),
    pytest.param(standing(TAG), None, False, Plan((TAG,), True), id="by id"),
    pytest.param(standing(TAG, DIGEST), None, False, Plan((TAG, DIGEST), True), id="by id with its digest"),
    pytest.param(standing(), None, False, Plan((), True), id="without a name"),
    pytest.param(standing(TAG, ELSEWHERE), None, True, Plan((TAG, ELSEWHERE), True), id="all names, forced"),
    pytest.param(standing(users=(STOPPED,)), None, True, Plan((), True), id="by id, stopped, forced"),
])
def test_what_goes(found, name, force, plan):
    assert plan_removal(found, "text", name, force=force) == plan


@pytest.mark.parametrize(("found", "name", "force", "why"), [
    pytest.param(standing(TAG, users=(STOPPED,)), TAG, False,
                 'unable to remove repository reference "text" (must force) - container cccccccccccc is using its '
                 "referenced image aaaaaaaaaaaa", id="the last name of one in use"),
    pytest.param(standing(TAG, OTHER), None, False,
                 "unable to delete aaaaaaaaaaaa (must be forced) - image is referenced in multiple repositories",
                 id="two names"),
    pytest.param(standing(DIGEST, FAR_DIGEST), None, False,
                 "unable to delete aaaaaaaaaaaa (must be forced) - image is referenced in multiple repositories",
                 id="digests of two repositories"),
    pytest.param(standing(users=(STOPPED, RUNNING)), None, True,
                 "unable to delete aaaaaaaaaaaa (cannot be forced) - image is being used by running container "
                 "dddddddddddd", id="running"),
    pytest.param(standing(TAG, users=(STOPPED,)), None, False,
                 "unable to delete aaaaaaaaaaaa (must be forced) - image is being used by stopped container "
                 "cccccccccccc", id="stopped"),
    pytest.param(standing(TAG, children=True, users=(RUNNING,)), None, True,
                 "unable to delete aaaaaaaaaaaa (cannot be forced) - image has dependent child images", id="children"),
])
def test_what_stays(found, name, force, why):
    with pytest.raises(Conflict) as refusal:
        plan_removal(found, "text", name, force=force)
    assert str(refusal.value) == f"conflict: {why}"
