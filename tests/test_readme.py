"""The README tells the truth: its figures are those of the results, and its code runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_figure_is_the_one_in_the_results(generator):
    assert generator.fill(README, generator.generated()) == README


def test_a_changed_figure_is_noticed(generator):
    """The test above can fail: turn one digit inside a generated block."""
    block = re.search(r"<!-- generated: mechanisms -->(.*?)<!-- end -->", README, re.DOTALL)[1]
    changed = README.replace(block, block.replace("23,705,252", "23,705,253"))
    assert changed != README
    assert generator.fill(changed, generator.generated()) == README


@pytest.mark.parametrize("number", range(len(re.findall(r"```python\n", README))))
def test_the_code_runs(number, tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[number]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
