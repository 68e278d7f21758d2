"""Builds the optional C kernels; everything else about the package stands in pyproject.toml."""

import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


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


setup(
    ext_modules=[Extension("aumcli.core.kernels._cpu", ["aumcli/core/kernels/cpu.c"],
                           depends=["aumcli/core/kernels/cpu_simd.h", "aumcli/core/kernels/cpu_mel.h"], optional=True)],
    cmdclass={"build_ext": BuildKernels},
)
