"""Compile the modules that cost per record with mypyc, next to their sources: `make compiled`, or

    python proto/compile.py             needs mypy, setuptools and a C compiler
    python proto/compile.py --remove    and it is pure Python again

Nothing needs it: what is not compiled is imported as it is. It is for a checkout; wheels are without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
MODULES = ("odradek/wire/record_scan.py",)


def compile_into(target: Path) -> list[Path]:
    """The extension modules of all of MODULES, in the same folders below `target`. RuntimeError: what mypyc said."""
    with tempfile.TemporaryDirectory(prefix="compile-") as directory:
        for module in MODULES:
            (Path(directory) / module).parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-c",
            "from mypyc.__main__ import main; main()",
            "--ignore-missing-imports",
        ]
        command += [
            "--namespace-packages",
            "--explicit-package-bases",
            *(str(ROOT / each) for each in MODULES),
        ]
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "MYPYPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout)
        made = []
        for path in Path(directory).glob("odradek/**/*.so"):
            made.append(target / path.relative_to(directory))
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, made[-1])
        return made


def remove() -> list[Path]:
    found = [path for module in MODULES for path in (ROOT / module).parent.glob(f"{Path(module).stem}*.so")]
    for path in found:
        path.unlink()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--remove", action="store_true", help="remove what was compiled")
    if parser.parse_args().remove:
        print("removed", *(path.name for path in remove()))
        return 0
    try:
        made = compile_into(ROOT)
    except RuntimeError as failure:
        print(failure, file=sys.stderr)
        return 1
    print("compiled", *(path.name for path in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
