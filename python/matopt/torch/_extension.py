"""Finds the compiled part of the package."""

from __future__ import annotations

import os
from types import ModuleType

import torch  # noqa: F401  (its libraries have to be loaded before the extension)


def load() -> ModuleType:
    if os.environ.get("MATOPT_JIT") == "1":
        from matopt import _build

        return _build.load()
    try:
        from matopt import _torch
    except ImportError as why:
        raise ImportError(
            "matopt.torch needs its compiled extension, which is built on your machine against your PyTorch: run "
            "`pip install --no-build-isolation ./python` in the sources of matopt (it needs a C++20 compiler and "
            "Eigen 3.4), or set MATOPT_JIT=1 to build it when it is imported from there. If it was built for another "
            f"PyTorch or Python, build it again. The import said: {why}"
        ) from why
    return _torch
