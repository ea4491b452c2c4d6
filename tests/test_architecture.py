"""The walls of the house: imports go one way, and the public list is the truth."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import normattn

PACKAGE = Path(normattn.__file__).parent
COMMON = {"errors", "_files"}
MAY_IMPORT = {
    "attention": {"attention"},
    "kernels": {"kernels"},
    "data": {"data"},
    "model": {"model", "attention"},
    "training": {"training", "model", "data", "attention"},
    "comparison": {"comparison", "training", "model", "data", "attention"},
}
TIMM_FREE = {"attention", "kernels"}
READS_IMAGES = Path("model/_artifact_images.py")


def modules(part):
    return sorted((PACKAGE / part).rglob("*.py"))


def imported(path):
    """Return the absolute names that a module of ours imports, relative ones resolved."""
    package = ["normattn", *path.parent.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *(node.module.split(".") if node.module else [])]
            if node.module:
                yield ".".join(stem)
            else:
                yield from (".".join([*stem, alias.name]) for alias in node.names)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_go_one_way(part):
    allowed = MAY_IMPORT[part] | COMMON
    for path in modules(part):
        for name in imported(path):
            owner, _, rest = name.partition(".")
            if owner != "normattn":
                continue
            target = rest.split(".")[0]
            # fuse.py, with its private parts, is the one door between models and kernels.
            fuses = path.name == "fuse.py" or path.name.startswith("_fused_")
            door = part == "model" and target == "kernels" and fuses
            # _artifact_images.py is the one between models and data: one rule for every image.
            door |= target == "data" and path.relative_to(PACKAGE) == READS_IMAGES
            assert target in allowed or door, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("part", sorted(TIMM_FREE))
def test_mechanisms_and_kernels_need_torch_alone(part):
    for path in modules(part):
        owners = {name.partition(".")[0] for name in imported(path)}
        foreign = owners - set(sys.stdlib_module_names) - {"torch", "normattn", "timm", "triton"}
        assert not foreign, f"{path.relative_to(PACKAGE)} imports {sorted(foreign)}"


def test_every_public_name_is_importable_and_documented():
    assert normattn.__all__
    for name in normattn.__all__:
        value = getattr(normattn, name)
        assert value.__doc__, name


def test_public_functions_are_not_shadowed_by_modules_of_their_name():
    """`normattn.profile` must be the function even after `normattn.model.profile` was imported."""
    for name in normattn.__all__:
        importlib.import_module(getattr(normattn, name).__module__)
        assert callable(getattr(normattn, name)), name


def test_importing_the_package_does_not_wait_for_torch():
    code = "import sys, normattn; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_loads_pickles_or_runs_strings():
    banned = {"pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "yaml.unsafe_load"}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            assert called not in banned, f"{where} calls {called}"
            if called == "torch.load":
                safe = any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True"
                    for k in node.keywords
                )
                assert safe, f"{where} calls torch.load without weights_only=True"
