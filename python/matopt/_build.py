"""How the extension is compiled, by setup.py and by MATOPT_JIT=1.

Environment: MATOPT_EIGEN, the folder that has Eigen/Core; MATOPT_CUDA=0 leaves the GPU out, MATOPT_CUDA=1 makes it an
error if it cannot be had; MATOPT_HIGHWAY=0 leaves the products to Eigen; MAX_JOBS, TORCH_CUDA_ARCH_LIST and CXX as in
torch.utils.cpp_extension.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

PYTHON = Path(__file__).resolve().parent.parent
INCLUDE = PYTHON.parent / "include"
RULES = ["muon", "normalized", "adaptive", "estimator", "baseline", "constrained", "eigenbasis"]


def _include_of(header: str, variable: str, *folders: str) -> str | None:
    named = os.environ.get(variable)
    for folder in [named] if named else folders:
        if (Path(folder) / header).exists():
            return folder
    return None


def _cuda_toolkit() -> tuple[str | None, str]:
    """The toolkit that fits this PyTorch, or why there is none."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if os.environ.get("MATOPT_CUDA") == "0":
        return None, "MATOPT_CUDA is 0"
    if torch.version.cuda is None:
        return None, "this PyTorch is built without CUDA"
    nvcc = Path(CUDA_HOME or "") / "bin" / "nvcc"
    if CUDA_HOME is None or not nvcc.exists():
        return None, "there is no nvcc"
    said = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < (12, 4):
        return None, f"{nvcc} is no nvcc of 12.4 or later"
    if found[1] != torch.version.cuda.split(".")[0]:
        return None, f"{nvcc} is of CUDA {found[1]}.{found[2]}, and PyTorch is built for CUDA {torch.version.cuda}"
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
        return None, "no GPU is in reach that says what to compile for, and TORCH_CUDA_ARCH_LIST is not set"
    return CUDA_HOME, ""


def options() -> dict[str, Any]:
    """Sources, folders and flags of the extension."""
    if not (INCLUDE / "matopt").is_dir():
        raise RuntimeError(f"matopt: no headers in {INCLUDE}: build in the sources of matopt")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise RuntimeError(f"matopt: Python.h was not found in {sysconfig.get_path('include')}: install the headers of this "
                           "Python (Debian: python3-dev)")
    eigen = _include_of("Eigen/Core", "MATOPT_EIGEN", "/usr/include/eigen3", "/usr/local/include/eigen3",
                        "/opt/homebrew/include/eigen3")
    if eigen is None:
        raise RuntimeError("matopt: Eigen was not found (Debian: libeigen3-dev); set MATOPT_EIGEN to the folder that has "
                           "Eigen/Core")
    sources = [PYTHON / "csrc" / "module.cpp", *(PYTHON / "csrc" / f"rules_{r}.cpp" for r in RULES)]
    # What is in the extension is not seen by others. Warnings, which g++ 12 has of Eigen, are for the project's own tests.
    flags = ["-std=c++20", "-O2", "-g0", "-w", "-fvisibility=hidden", "-isystem", eigen]
    libraries: list[str] = []
    highway = _include_of("hwy/highway.h", "MATOPT_HIGHWAY_INCLUDE", "/usr/include", "/usr/local/include")
    if highway and os.environ.get("MATOPT_HIGHWAY") != "0":
        sources.append(PYTHON / "csrc" / "kernels.cpp")
        flags += ["-DMATOPT_HIGHWAY", "-DMATOPT_SIMD_COMPILED"]
        libraries.append("hwy")
    cuda, reason = _cuda_toolkit()
    nvcc_flags: list[str] = []
    if cuda is not None:
        sources.append(PYTHON / "csrc" / "cuda.cu")
        flags.append("-DMATOPT_PYTHON_CUDA")
        nvcc_flags = ["-std=c++20", "-O2", "--expt-relaxed-constexpr", f"-isystem={eigen}", "-DMATOPT_PYTHON_CUDA"]
        libraries += ["cublas", "cublasLt"]
    elif os.environ.get("MATOPT_CUDA") == "1":
        raise RuntimeError(f"matopt: the rules for GPUs cannot be built: {reason}")
    return {
        "sources": [str(s) for s in sources],
        "include_dirs": [str(INCLUDE), str(PYTHON / "csrc")],
        "flags": flags,
        "nvcc_flags": nvcc_flags,
        "libraries": libraries,
        "cuda": cuda is not None,
        "no_cuda": reason,
    }


def load(verbose: bool = False) -> ModuleType:
    """Compiles the extension if need be, and imports it; from the sources of matopt."""
    from torch.utils import cpp_extension

    o = options()
    return cpp_extension.load(  # type: ignore[no-any-return]
        name="matopt_torch",
        sources=o["sources"],
        extra_include_paths=o["include_dirs"],
        extra_cflags=o["flags"],
        extra_cuda_cflags=o["nvcc_flags"],
        extra_ldflags=[f"-l{name}" for name in o["libraries"]],
        with_cuda=o["cuda"],
        verbose=verbose,
    )
