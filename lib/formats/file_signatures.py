"""What a file is that is not what was expected, told from its first bytes: for the message."""

_BEGINNINGS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive, such as torch.save and numpy.savez write",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "a file that an old torch.save wrote",
    b"\x93NUMPY": "an array that numpy.save wrote",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file that it stands for (git lfs pull)",
}


def foreign_kind(head):
    """What begins with these bytes (500 or so), if it is a kind of file that is taken for weights by mistake.

    None for anything else: no pickle begins in one of these ways.
    """
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html", b"<?xml"):
        return "a web page (HTML or XML), as of a download that failed"
    if head and not head.strip(b"\0"):
        return "zero bytes, as of a download that was not finished"
    return None


def is_text(head):
    """Whether the first bytes of a file are those of a text: printable ASCII with a blank in the first line.

    (A pickle in protocol 0 is ASCII, too, but begins with short lines without one.)
    """
    lines = head.decode("ascii", "replace").splitlines()
    return head.isascii() and all(line.replace("\t", " ").isprintable() for line in lines) and " " in "".join(lines[:1])
