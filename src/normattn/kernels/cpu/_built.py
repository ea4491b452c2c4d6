"""What the build and the loader agree on: the library's seal, and the checksum of its interface.

The standard library alone: setup.py runs this file, before there is a package.
"""

import struct
import sys
from hashlib import sha256
from pathlib import Path

# Stands before the checksum behind a library's end, where loaders of libraries do not look.
_MARK = b"\nnormattn sha256:"
_DIGEST = 32
_PT_LOAD = 1


def checksum(sources: Path) -> str:
    """Return that of the sources which say how a call is passed: task.h and interface.cpp."""
    content = b"".join((sources / name).read_bytes() for name in ("task.h", "interface.cpp"))
    return sha256(content).hexdigest()


def sealed(content: bytes) -> bytes:
    """Return a built library with its checksum behind its end."""
    return content + _MARK + sha256(content).digest()


def is_whole(path: Path) -> bool:
    """Return whether nothing is missing from a library: to load one cut short can end the process.

    Programs that rewrite libraries (strip, auditwheel) drop what stands behind the end. Then the
    file's own tables must lie within it, and what they say is loaded.
    """
    if sys.platform == "darwin":  # there a checksum would not match its signature
        return True
    content = path.read_bytes()
    end = len(content) - _DIGEST - len(_MARK)
    if content[max(end, 0) : -_DIGEST] == _MARK:
        return sha256(content[:end]).digest() == content[-_DIGEST:]
    # What is no ELF file, the loader of libraries refuses by itself, or has tables of its own.
    return content[:4] != b"\x7fELF" or _reaches(content) <= len(content)


def _reaches(content: bytes) -> float:
    """Return where the last of an ELF file's segments and its table of sections ends."""
    try:
        wide, order = content[4] == 2, "<" if content[5] == 1 else ">"
        header = struct.unpack_from(
            order + ("QQIHHHHH" if wide else "IIIHHHHH"), content, 32 if wide else 28
        )
        segments, sections, _, _, size, count, section_size, section_count = header
        ends = [sections + section_size * section_count]
        for at in range(segments, segments + size * count, size):
            kind, *_ = struct.unpack_from(order + "I", content, at)
            fields, behind = ("Q16xQ", 8) if wide else ("I8xI", 4)
            offset, length = struct.unpack_from(order + fields, content, at + behind)
            ends += [offset + length] if kind == _PT_LOAD else []
    except (IndexError, ValueError, struct.error):
        return float("inf")  # already the tables lie behind its end
    return max(ends) if sections else float("inf")
