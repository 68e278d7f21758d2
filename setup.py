"""Builds the optional C kernels; everything else about the package stands in pyproject.toml.

The kernels are plain C that ctypes loads: one wheel of a platform serves every Python 3. AUM_NO_KERNELS=1 makes a wheel
without them, for any platform.
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

KERNELS = Extension(
    "aumcli.core.kernels._cpu",
    ["aumcli/core/kernels/cpu.c"],
    depends=["aumcli/core/kernels/cpu_simd.h", "aumcli/core/kernels/cpu_mel.h"],
    optional=True,
)


class BuildKernels(build_ext):
    """Compile with OpenMP threads where the compiler has them, else without; never fail the install."""

    def build_extension(self, extension):
        optimise = ["-O3", "-std=gnu11", "-fno-math-errno"]
        for threads in (["-fopenmp"], []):
            extension.extra_compile_args, extension.extra_link_args = optimise + threads, threads
            try:
                return super().build_extension(extension)
            except Exception as error:
                failure = error
        print(f"aumcli: the C kernels were not built ({failure}); the slower torch backend will serve", file=sys.stderr)

    def get_ext_filename(self, name):
        """The library's name, without the version of Python that it doesn't depend on."""
        return os.path.join(*name.split(".")) + (".dll" if sys.platform == "win32" else ".so")


class PlatformWheel(bdist_wheel):
    """A wheel of this platform for every Python 3."""

    def get_tag(self):
        platform = super().get_tag()[2]
        return "py3", "none", platform


setup(
    ext_modules=[] if os.environ.get("AUM_NO_KERNELS") else [KERNELS],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
