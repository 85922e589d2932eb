"""OpenCV for the scripts here that compare with it."""
import os
import pathlib
import subprocess
import sys
import venv

BASE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE = pathlib.Path(os.environ.get("NST_CACHE") or BASE / "nst")
PACKAGES = ["opencv-python-headless==5.0.0.*", "numpy==2.*", "pillow==12.*"]


def go_on_with_opencv():
    """Goes on in a Python that has OpenCV, in the cache folder, which is made once. Returns its folder."""
    folder = CACHE / "opencv"
    python = folder / "venv" / "bin" / "python"
    if not (folder / ".complete").exists():
        venv.create(folder / "venv", with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / ".complete").touch()
    if pathlib.Path(sys.prefix) != folder / "venv":
        os.execv(python, [str(python), *sys.argv])
    return folder
