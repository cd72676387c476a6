#!/usr/bin/env python3
"""Write the lock files from requirements.txt and requirements-dev.txt: every package that pip installs for them,
at one version and with the hashes of its files on PyPI.

    python scripts/lock_requirements.py

Needs the network. uv does the work, in a virtual environment that is thrown away. What a lock pins already stays
at its version if the requirements allow it; remove the lock to take the newest.
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
UV = "uv==0.13.9"
PYTHON = "3.11"  # the oldest that serves; markers in the locks tell newer ones apart
LINUX = "platform_machine == 'x86_64' and sys_platform == 'linux'"
# PyTorch's libraries for NVIDIA GPUs, several gigabytes that its builds for CPUs do not want: a lock of their own.
CUDA = re.compile(r"(nvidia|cuda)-|triton==")
TORCH = re.compile(r"torch==(\S+)")
# The CPU build of PyTorch (Python 3.11) is not on PyPI, and pip prefers a file whose hash an index vouches for to one
# in a folder: so it has a lock of its own as well, which scripts/setup_env.sh tries first.
CPU_BUILD = "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"
HEADER = """\
# {what}: packages, versions,
# and the SHA-256 of every file that may be taken, as PyPI lists them. For Linux on x86-64 and Python 3.11 to 3.13.
# Made by scripts/lock_requirements.py: change requirements*.txt, run that, and see what it has changed here.
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "venv"), with_pip=True)
        python = Path(folder, "venv/bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", UV], check=True)
        compiled = {source: compile_lock(python, source, folder) for source in ("requirements", "requirements-dev")}
    for source, packages in compiled.items():
        write(f"{source}.lock", f"All that {source}.txt installs", [text for text in packages if not CUDA.match(text)])
    packages = compiled["requirements"]
    write("requirements-cuda.lock", "What PyPI's build of PyTorch wants for NVIDIA GPUs, beside requirements.lock",
          [text for text in packages if CUDA.match(text)])
    version = next(filter(None, map(TORCH.match, packages)))[1]
    write("requirements-cpu.lock", "The CPU build of PyTorch, which wants nothing beside requirements.lock",
          [f"torch=={version}+cpu \\\n    --hash={CPU_BUILD}\n"])


def compile_lock(python, source, folder):
    """The entries of a lock, each the text of a package and its hashes, by name."""
    project = f'[project]\nname = "lock"\nversion = "0"\nrequires-python = ">={PYTHON}"\n'
    Path(folder, "pyproject.toml").write_text(f'{project}[tool.uv]\nenvironments = ["{LINUX}"]\n')
    for file in REPO.glob("requirements*.txt"):
        Path(folder, file.name).write_text(file.read_text())
    lock = Path(folder, f"{source}.lock")
    for file in (REPO / lock.name, REPO / "requirements-cuda.lock"):
        if file.exists():
            with open(lock, "a") as pinned:  # without its hashes, so that none stays that PyPI no longer lists
                pinned.writelines(f"{pin}\n" for pin in re.findall(r"^\w\S*==\S+", file.read_text(), re.MULTILINE))
    subprocess.run([
        python, "-m", "uv", "pip", "compile", f"{source}.txt", "--output-file", lock.name, "--quiet", "--no-header",
        "--no-annotate", "--universal", "--fork-strategy", "fewest",
        "--python-version", PYTHON, "--generate-hashes", "--default-index", "https://pypi.org/simple",
    ], cwd=folder, check=True)
    # The condition that holds for all says nothing, and would leave out everything in silence elsewhere.
    text = re.sub(rf" (?:;|and) {LINUX}(?= )", "", lock.read_text())
    packages = re.findall(r"^\w(?:.*\\\n)*.*\n", text, re.MULTILINE)
    return [f"{text.rstrip()} \\\n    --hash={CPU_BUILD}\n" if TORCH.match(text) else text for text in packages]


def write(name, what, packages):
    (REPO / name).write_text(HEADER.format(what=what) + "".join(packages))
    print(f"{name}: {len(packages)} packages")


if __name__ == "__main__":
    sys.exit(main())
