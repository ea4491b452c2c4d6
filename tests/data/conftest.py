from pathlib import Path

import pytest
from written_data import write_shard


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two training shards and a test shard, 6 + 4 + 4 images of two classes."""
    write_shard(tmp_path / "train-00000-of-00002.parquet", [0, 1, 0, 1, 0, 1])
    write_shard(tmp_path / "train-00001-of-00002.parquet", [1, 0, 1, 0], first=6)
    write_shard(tmp_path / "test-00000-of-00001.parquet", [0, 1, 1, 0], first=50)
    return tmp_path
