"""Recognising files of the wrong kind by their first bytes, for error messages."""

_BEGINNINGS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive, as written by torch.save and numpy.savez",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a file written by an old torch.save",
    b"\x93NUMPY": "an array written by numpy.save",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer: fetch the actual file (git lfs pull)",
}


def foreign_kind(head: bytes) -> str | None:
    """What begins with these (about 500) bytes, if it is a kind of file that is mistaken for weights.

    None for anything else. No pickle begins in one of these ways.
    """
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return "a web page (HTML or XML), as from a failed download"
    if head and not head.strip(b"\0"):
        return "zero bytes, as from an unfinished download"
    return None


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text: printable ASCII with a space in the first line.

    (A pickle in protocol 0 is also ASCII, but begins with short lines without a space.)
    """
    lines = head.decode("ascii", "replace").splitlines()
    return head.isascii() and all(line.replace("\t", " ").isprintable() for line in lines) and " " in "".join(lines[:1])
