"""The one tree of errors, and the HTTP status each is answered with.

    ShoalError                500
    ├── InvalidArgument       400  the request is malformed or a value is not allowed
    ├── Unauthorized          401  a registry does not take the credentials
    ├── PermissionDenied      403  the certificate or token does not allow this
    ├── NotFound              404  no such object
    ├── Conflict              409  the object's state forbids it: reread, then retry
    │   └── OutOfSequence     500  (as Docker answers it) a newer version of the object exists
    ├── Unprocessable         422
    ├── NotImplementedHere    501  this daemon does not do that
    └── Unavailable           503  try again later
        ├── NoLeader          503  the swarm has no leader just now
        ├── NotManager        503  this host is not a manager of a swarm
        └── Overloaded        503  a bound was reached

A message says what failed, on which object, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class ShoalError(Exception):
    """Base. `status` is the HTTP status that the API answers with."""

    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return str(self)


def in_words(error: OSError) -> str:
    """What the system refused, and on which file: without the number that Python puts before it."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


class InvalidArgument(ShoalError):
    status = 400


class Unauthorized(ShoalError):
    status = 401


class PermissionDenied(ShoalError):
    status = 403


class NotFound(ShoalError):
    status = 404


class Conflict(ShoalError):
    status = 409


class OutOfSequence(Conflict):
    """The change names a version that is no longer the newest."""

    status = 500  # what Docker answers: "rpc error: … update out of sequence"


class Unprocessable(ShoalError):
    status = 422


class NotImplementedHere(ShoalError):
    status = 501


class Unavailable(ShoalError):
    status = 503


class NoLeader(Unavailable):
    pass


class NotManager(Unavailable):
    pass


class Overloaded(Unavailable):
    pass
