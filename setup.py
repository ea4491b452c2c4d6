"""Builds the C++ kernels with the package, without torch and without Python's own headers.

What is built is a plain shared library that `normattn.kernels.cpu` loads; where there is no
compiler the package installs without it and computes with PyTorch alone.
"""

import runpy
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("src/normattn/kernels/cpu/csrc")
BUILT = runpy.run_path("src/normattn/kernels/cpu/_built.py")  # what the loader looks for, too
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
# Apple's compiler has no OpenMP of its own: one thread there.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]


class BuildLibrary(build_ext):
    """Compiles the sources side by side and names the result as a library, not as a module."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + SUFFIX

    def build_extension(self, ext: Extension) -> None:
        macros = {
            "NORMATTN_VERSION": self.distribution.get_version(),
            "NORMATTN_INTERFACE": BUILT["checksum"](SOURCES),
        }

        def build(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=[(name, f'"{value}"') for name, value in macros.items()],
                extra_postargs=ext.extra_compile_args,
                depends=ext.depends,
            )

        with ThreadPoolExecutor() as pool:
            objects = [path for paths in pool.map(build, ext.sources) for path in paths]
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            extra_postargs=ext.extra_link_args,
            target_lang="c++",
        )
        # A library that was cut short can end the process that loads it. So it carries a checksum
        # behind its end, where loaders do not look, for Python to check first.
        if sys.platform != "darwin":  # there it would not match its signature
            path = Path(self.get_ext_fullpath(ext.name))
            path.write_bytes(BUILT["sealed"](path.read_bytes()))


class PlatformWheel(bdist_wheel):
    """A wheel for every Python on this platform: the library links against none."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "normattn.kernels.cpu.libnormattn",
            sources=sorted(map(str, SOURCES.glob("*.cpp"))),
            depends=sorted(map(str, SOURCES.glob("*.h"))),
            # Vectors wider than the platform's common ones stay inside their own file: no ABI
            # between files depends on them, which is what -Wpsabi warns about.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-fno-math-errno",  # a loop with a root in it becomes one of vectors
                "-g0",
                "-fvisibility=hidden",
                "-Wno-psabi",
                "-Wno-uninitialized",  # GCC's own headers
                "-Wno-maybe-uninitialized",
                *OPENMP,
            ],
            extra_link_args=OPENMP,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
