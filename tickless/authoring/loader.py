"""Import a DAG file of a bundle: the same way for parsing it and for running its tasks."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from types import ModuleType


def load_dag_file(bundle: str, file: str) -> ModuleType:
    """Import `file` (relative to `bundle`, an absolute path); whatever its top level raises comes through.

    The bundle and the file's folder go on sys.path after the standard library, which they cannot shadow, and before
    installed packages, which cannot shadow them. No bytecode is written. The module's name is the file's with a
    prefix, so a DAG file called json.py harms nobody.
    """
    sys.dont_write_bytecode = True
    path = os.path.join(bundle, file)
    for folder in (bundle, os.path.dirname(path)):
        if folder not in sys.path:
            sys.path.insert(_first_installed(), folder)
    name = "tickless_dag_" + re.sub(r"\W", "_", file.removesuffix(".py"))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file", path=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look modules up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _first_installed() -> int:
    """Index in sys.path of the first folder of installed packages."""
    for index, folder in enumerate(sys.path):
        if folder.endswith(("site-packages", "dist-packages")):
            return index
    return len(sys.path)
