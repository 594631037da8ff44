"""The errors of the distribution specification: each with its code and HTTP status.

    ShoalError
    └── RegistryError     500  UNKNOWN
        ├── NameInvalid, TagInvalid, DigestInvalid, ManifestInvalid, ManifestBlobUnknown, UploadInvalid    400
        ├── AuthRequired      401  carries the challenge
        ├── Denied            403
        ├── NameUnknown, BlobUnknown, ManifestUnknown, UploadUnknown    404
        ├── Unsupported       405
        ├── UploadBusy        409  another request writes to this upload
        ├── TooLarge          413
        ├── RangeInvalid      416
        ├── TooMany           429
        └── UpstreamFailed    502  of a pull-through cache
"""

from __future__ import annotations

from typing import ClassVar

from shoal.api.errors import ShoalError


class RegistryError(ShoalError):
    status: ClassVar[int] = 500
    code: ClassVar[str] = "UNKNOWN"


class NameInvalid(RegistryError):
    status, code = 400, "NAME_INVALID"


class TagInvalid(RegistryError):
    status, code = 400, "TAG_INVALID"


class DigestInvalid(RegistryError):
    status, code = 400, "DIGEST_INVALID"


class PageInvalid(RegistryError):
    status, code = 400, "PAGINATION_NUMBER_INVALID"


class ManifestInvalid(RegistryError):
    status, code = 400, "MANIFEST_INVALID"


class ManifestBlobUnknown(RegistryError):
    status, code = 400, "MANIFEST_BLOB_UNKNOWN"


class UploadInvalid(RegistryError):
    status, code = 400, "BLOB_UPLOAD_INVALID"


class AuthRequired(RegistryError):
    """`challenge` is the value of the answer's WWW-Authenticate."""

    status, code = 401, "UNAUTHORIZED"

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class Denied(RegistryError):
    status, code = 403, "DENIED"


class NameUnknown(RegistryError):
    status, code = 404, "NAME_UNKNOWN"


class BlobUnknown(RegistryError):
    status, code = 404, "BLOB_UNKNOWN"


class ManifestUnknown(RegistryError):
    status, code = 404, "MANIFEST_UNKNOWN"


class UploadUnknown(RegistryError):
    status, code = 404, "BLOB_UPLOAD_UNKNOWN"


class Unsupported(RegistryError):
    status, code = 405, "UNSUPPORTED"


class UploadBusy(RegistryError):
    status, code = 409, "BLOB_UPLOAD_INVALID"


class TooLarge(RegistryError):
    status, code = 413, "SIZE_INVALID"


class RangeInvalid(RegistryError):
    """`size`: what the upload holds, so that the client can go on from there."""

    status, code = 416, "BLOB_UPLOAD_INVALID"

    def __init__(self, message: str, size: int, location: str = "") -> None:
        super().__init__(message)
        self.size, self.location = size, location


class TooMany(RegistryError):
    status, code = 429, "TOOMANYREQUESTS"


class UpstreamFailed(RegistryError):
    status, code = 502, "UNAVAILABLE"
