"""All measurements of speed, one after the other, into one folder, and their tables together in one file.

    python benchmarks/everything.py --out results       # hours; results/tables.md, and each script's .md and .json
    python benchmarks/everything.py --quick             # small: do the scripts run, and do the answers agree?

Each script is a process of its own. One that fails is reported, and the others run all the same; exit status 1 then.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = ("activation_maximization", "inversion", "attribution", "scaling", "cold_start")


def run(name: str, folder: Path, quick: bool) -> bool:
    """Run a script, and return whether it succeeded."""
    out = folder / f"{name}.md"
    for suffix in (".md", ".json", ".png"):
        out.with_suffix(suffix).unlink(missing_ok=True)  # of a run before: not this one's
    command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *(["--quick"] if quick else [])]
    print(f"{name}:", flush=True)
    begun = time.perf_counter()
    status = subprocess.run(command).returncode
    words = "done" if status == 0 else f"FAILED with exit status {status}"
    print(f"{name}: {words} after {time.perf_counter() - begun:.0f} s\n", flush=True)
    return status == 0


def together(folder: Path, failed: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the tables of all scripts, with a heading each."""
    parts = []
    for name in scripts:
        table, picture = folder / f"{name}.md", folder / f"{name}.png"
        parts += [f"## {name}", *(["FAILED"] if name in failed else [])]
        parts += [table.read_text().strip()] if table.exists() else ["no table"]
        parts += [f"![{name}]({picture.name})"] if picture.exists() else []
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", nargs="+", default=list(SCRIPTS), choices=list(SCRIPTS))
    parser.add_argument("--quick", action="store_true", help="passed on to each script")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="the folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in args.scripts if not run(name, args.out, args.quick)]
    (args.out / "tables.md").write_text(together(args.out, failed, args.scripts))
    print(args.out / "tables.md")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
