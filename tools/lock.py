"""Write the lock: exact versions and SHA-256 hashes of all packages, resolved from pyproject.toml.

    python tools/lock.py                 keeps the locked versions that pyproject.toml still allows
    python tools/lock.py --upgrade       takes the newest

It holds for every supported Python and platform, and has four files: what rqrec runs on; that and what the demo, the
tests and the optional parts need; and torch, which both need, as it is on PyPI, or built for the CPU alone. Such a
build is locked if pip finds one here (PIP_FIND_LINKS names its folder).
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, DEV = "requirements.txt", "requirements-dev.txt"
TORCH, CPU = "requirements-torch.txt", "requirements-torch-cpu.txt"
TITLES = {
    RUN: "What rqrec runs on, besides torch.",
    DEV: "What rqrec runs on, and what the demo, the tests and the optional parts need, besides torch.",
    TORCH: "Torch as it is on PyPI, where the one for Linux needs CUDA.",
    CPU: "Torch built for the CPU, which needs no CUDA.",
}
OF_TORCH = re.compile(r"(torch=|nvidia-|cuda-|triton=)")
ENTRY = re.compile(r"^\S+==.*\n(?:    .*\n)*", re.MULTILINE)


def resolve(file: Path, *options: str) -> list[str]:
    """Lock with uv, which prefers the versions that are in the file; returns one entry for each package."""
    command = "uv pip compile --universal --generate-hashes --quiet --no-header --python-version 3.11"
    arguments = [*command.split(), "pyproject.toml", "--output-file", str(file), *options]
    subprocess.run([sys.executable, "-m", *arguments], check=True, cwd=ROOT)
    return ENTRY.findall(file.read_text())


def cpu_build(pin: str) -> list[str]:
    """The entry of the CPU build of torch; empty if pip finds none here."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("pip", "download", "--quiet", "--no-deps", "--dest", folder, pin)
        subprocess.run([sys.executable, "-m", *command], check=False, capture_output=True)
        hashes = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in Path(folder).iterdir()]
    return [f"{pin} \\\n    --hash=sha256:{hash}\n" for hash in hashes]


def main(arguments: list[str]) -> None:
    """Write the four files."""
    locked = {name: ENTRY.findall(path.read_text()) for name in TITLES if (path := ROOT / name).exists()}
    preferred = [] if "--upgrade" in arguments else [*locked.get(DEV, []), *locked.get(TORCH, [])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lock.txt"
        file.write_text("".join(preferred))
        everything = resolve(file, "--all-extras")
        runs_on = resolve(file)
    torch = [entry for entry in everything if OF_TORCH.match(entry)]
    cpu = next(entry for entry in torch if entry.startswith("torch=")).split()[0] + "+cpu"
    parts = {
        RUN: [entry for entry in runs_on if not OF_TORCH.match(entry)],
        DEV: [entry for entry in everything if not OF_TORCH.match(entry)],
        TORCH: torch,
        CPU: cpu_build(cpu) or [entry for entry in locked.get(CPU, []) if entry.split()[0] == cpu],
    }
    for name, entries in parts.items():
        (ROOT / name).unlink(missing_ok=True)
        if entries:
            (ROOT / name).write_text(f"# {TITLES[name]} Written by `make lock`.\n{''.join(entries)}")


if __name__ == "__main__":
    main(sys.argv[1:])
