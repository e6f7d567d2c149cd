"""Coverage-guided search: ``python -m tests.fuzz.fuzz TARGET [libFuzzer options]``.

Needs atheris, which is no dependency: ``pip install atheris``. What it finds worth keeping goes to
``tests/fuzz/corpus/TARGET.hex``, a line each; a failing input goes there too, with the repair.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["ntmd"]):
    from tests.fuzz.targets import TARGETS, samples


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(
            f"usage: python -m tests.fuzz.fuzz TARGET [options]; targets: {', '.join(TARGETS)}"
        )
    name = sys.argv.pop(1)
    folder = Path("out") / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(samples(name)):
        (folder / f"sample-{number}").write_bytes(data)
    # The program that libFuzzer starts again when it reduces a corpus.
    again = folder.with_suffix(".sh").absolute()
    again.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz.fuzz {name} "$@"\n')
    again.chmod(0o755)
    atheris.Setup([str(again), *sys.argv[1:], str(folder)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
