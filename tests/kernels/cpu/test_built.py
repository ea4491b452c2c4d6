"""The library's seal: a whole file is told from a damaged one before it is loaded."""

import _ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from normattn.kernels import cpu
from normattn.kernels.cpu import _built, _library

pytestmark = [
    pytest.mark.skipif(cpu.LIBRARY is None, reason=cpu.status()),
    pytest.mark.skipif(sys.platform == "darwin", reason="no seal beside Apple's signatures"),
]


def test_a_library_as_it_was_built_is_whole_and_a_changed_byte_is_seen(tmp_path):
    content = bytearray(_library.PATH.read_bytes())
    assert _built.is_whole(_library.PATH)
    content[len(content) // 2] ^= 1
    changed = tmp_path / "libnormattn.so"
    changed.write_bytes(content)
    assert not _built.is_whole(changed)


@pytest.mark.skipif(shutil.which("strip") is None, reason="strip, of binutils, is not installed")
def test_a_stripped_library_has_no_seal_and_loads(tmp_path):
    path = Path(shutil.copy(_library.PATH, tmp_path))
    subprocess.run(["strip", str(path)], check=True)
    assert path.stat().st_size < _library.PATH.stat().st_size
    assert _library.find(path)[0] is not None


@pytest.mark.parametrize("kept", [0.0, 1e-5, 1e-4, 0.01, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("source", [_library.PATH, Path(_ctypes.__file__)], ids=["ours", "plain"])
def test_a_file_that_was_cut_short_is_not_whole(tmp_path, source, kept):
    content = source.read_bytes()
    content = content.removesuffix(content[-48:]) if source == _library.PATH else content
    path = tmp_path / "libnormattn.so"
    path.write_bytes(content)
    assert _built.is_whole(path)
    path.write_bytes(content[: 4 + int(kept * (len(content) - 64))])
    assert not _built.is_whole(path)


def test_segments_beyond_the_end_are_seen_where_the_tables_lie_before_them(tmp_path):
    """Programs that rewrite libraries may put the table of sections anywhere."""
    content = bytearray(_library.PATH.read_bytes()[:-48])
    content[40:48] = (64).to_bytes(8, "little")  # the table of sections now seems to stand first
    path = tmp_path / "libnormattn.so"
    path.write_bytes(content)
    assert _built.is_whole(path)
    path.write_bytes(content[: len(content) // 2])
    assert not _built.is_whole(path)


def test_what_is_no_library_is_left_to_the_loader_which_says_so(tmp_path):
    path = tmp_path / "libnormattn.so"
    path.write_bytes(b"no library at all")
    with pytest.warns(RuntimeWarning, match="cannot be loaded"):
        assert _library.find(path)[0] is None
