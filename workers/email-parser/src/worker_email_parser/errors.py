"""What is wrong with an archive as a whole; a single bad message is never an exception."""


class ArchiveError(Exception):
    """The archive cannot be read; the message says why and what to do."""

    def __init__(self, code: str, message: str, offset: int = 0) -> None:
        """Store the facts."""
        super().__init__(message)
        self.code = code
        self.offset = offset


class EmptyArchiveError(ArchiveError):
    """The archive holds no byte of mail."""

    def __init__(self) -> None:
        """Say what to look for."""
        super().__init__(
            "empty-archive", "the archive holds no message: check that the export finished"
        )


class NotAnMboxError(ArchiveError):
    """The file does not begin as an mbox does."""

    def __init__(self, beginning: bytes) -> None:
        """Show how it begins instead."""
        super().__init__(
            "not-an-mbox",
            f"the file begins with {beginning[:24]!r}, not with a 'From ' line: "
            "give an mbox, or name its format (eml, maildir)",
        )


class NotAMessageError(ArchiveError):
    """The file is neither an mbox nor a single message."""

    def __init__(self, beginning: bytes, foreign: str | None = None) -> None:
        """Show how it begins instead, or what it is."""
        found = f"is {foreign}" if foreign else f"begins with {beginning[:24]!r}"
        super().__init__(
            "not-mail",
            f"the file {found}, neither an mbox nor a single message: "
            "give an mbox, an .eml file (both may be gzip) or a maildir",
        )


class NotAMaildirError(ArchiveError):
    """The folder has no maildir in it."""

    def __init__(self) -> None:
        """Say what a maildir needs."""
        super().__init__(
            "not-a-maildir",
            "the folder has no 'cur' or 'new' folder with messages: give the folder that holds them",
        )


class NotAFileError(ArchiveError):
    """A folder was given where one file is needed."""

    def __init__(self, wanted: str) -> None:
        """Name the wanted format."""
        super().__init__(
            "not-a-file",
            f"the archive is a folder, not a file of format {wanted!r}: leave `format` out",
        )


class GzipTruncatedError(ArchiveError):
    """The compressed file ends in the middle."""

    def __init__(self, offset: int) -> None:
        """Say how far it could be read."""
        super().__init__(
            "gzip-truncated",
            f"the compressed file ends early, after {offset} bytes of mail: "
            "copy or download it again",
            offset,
        )


class GzipDamagedError(ArchiveError):
    """The compressed file does not decompress."""

    def __init__(self, offset: int, cause: Exception) -> None:
        """Say how far it could be read, and why not further."""
        super().__init__(
            "gzip-damaged",
            f"the compressed file is damaged after {offset} bytes of mail ({cause}): "
            "copy or download it again",
            offset,
        )


class GzipRatioError(ArchiveError):
    """The compressed file grows more than mail does."""

    def __init__(self, offset: int, limit: int) -> None:
        """Say where the limit was met."""
        super().__init__(
            "gzip-ratio",
            f"the compressed file grows more than {limit} times: decompress it yourself if you "
            "trust it",
            offset,
        )
