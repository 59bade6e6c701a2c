"""Builds matopt.torch: `pip install --no-build-isolation ./python`, with the PyTorch that will use it installed."""

import importlib.util
import re
from pathlib import Path

from setuptools import setup

try:
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
except ImportError as why:
    raise SystemExit(
        "matopt: it is built against the PyTorch that will use it, and there is none here. Install PyTorch first, and then run "
        f"`pip install --no-build-isolation ./python`. The import said: {why}"
    ) from why

here = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("_build", here / "matopt" / "_build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

o = build.options()
if not o["cuda"]:
    print(f"matopt: without rules for GPUs: {o['no_cuda']}")
numbers = dict(re.findall(r"#define MATOPT_VERSION_(MAJOR|MINOR|PATCH) (\d+)",
                          (build.INCLUDE / "matopt" / "version.hpp").read_text()))
flags = {"cxx": o["flags"], "nvcc": o["nvcc_flags"]} if o["cuda"] else {"cxx": o["flags"]}
setup(
    version="{MAJOR}.{MINOR}.{PATCH}".format(**numbers),
    ext_modules=[
        (CUDAExtension if o["cuda"] else CppExtension)(
            "matopt._torch",
            sources=[str(Path(s).relative_to(here)) for s in o["sources"]],
            include_dirs=o["include_dirs"],
            libraries=o["libraries"],
            extra_compile_args=flags,
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
