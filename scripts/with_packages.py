"""For the scripts here that want more of Python than a user has."""
import os
import pathlib
import subprocess
import sys
import venv

BASE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE = pathlib.Path(os.environ.get("NST_CACHE") or BASE / "nst")
OPENCV = ["opencv-python-headless==5.0.0.*", "numpy==2.*", "pillow==12.*"]


def go_on_with(packages, name, then=None):
    """Goes on in a Python that has the packages, in the cache folder's NAME/venv, which is made once; then, if given,
    is called with that Python and the folder when it is made."""
    folder = CACHE / name
    python = folder / "venv" / "bin" / "python"
    if not (folder / ".complete").exists():
        venv.create(folder / "venv", with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        if then:
            then(python, folder)
        (folder / ".complete").touch()
    if pathlib.Path(sys.prefix) != folder / "venv":
        os.execv(python, [str(python), *sys.argv])
    return folder
