"""What can be wrong with artifacts."""

from hivemesh_sdk.errors import FatalError, InvalidError, NotFoundError


class ArtifactMissingError(NotFoundError):
    """No such artifact, or the caller holds no step that may read it."""

    slug = "artifact-missing"


class ArtifactDamagedError(FatalError):
    """Stored bytes do not match their digest; they are never served."""

    slug = "artifact-damaged"


class DigestMismatchError(InvalidError):
    """The bytes that came are not those that were announced."""

    slug = "artifact-digest-mismatch"


class RangeInvalidError(InvalidError):
    """The range lies outside the artifact."""

    slug = "range-not-satisfiable"
