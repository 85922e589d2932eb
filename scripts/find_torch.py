#!/usr/bin/env python3
"""Prints the folder of this Python's torch, if it is 2.11 or later and whole. It is found without
importing it, which would need all of its CUDA libraries.

With --cuda it also has to be one for CUDA.
"""
import importlib.util
import os
import re
import sys

spec = importlib.util.find_spec("torch")
if spec is None or not spec.submodule_search_locations:
    sys.exit(1)
folder = list(spec.submodule_search_locations)[0]
try:
    text = open(os.path.join(folder, "version.py")).read()
except OSError:
    sys.exit(1)
version = re.search(r"__version__ = '(\d+)\.(\d+)", text)
needed = ["lib/libtorch_cpu.so", "include/ATen/ATen.h"]
if "--cuda" in sys.argv:
    needed.append("lib/libtorch_cuda.so")
if not version or tuple(map(int, version.groups())) < (2, 11) or \
        not all(os.path.exists(os.path.join(folder, name)) for name in needed):
    sys.exit(1)
print(os.path.realpath(folder))
