"""Small things that every preparation step uses."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path


class Failure(Exception):
    """A step that cannot work; the message says in one line what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def run(command: list[str], what: str, advice: str, cwd: Path | None = None) -> None:
    """Runs a command quietly. On failure: one line with what failed, its last words, and the advice."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failure(f"{what}: {command[0]} is not installed; {advice}") from None
    if done.returncode != 0:
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Failure(f"{what} failed ({words[-1].strip() if words else 'no output'}); {advice}")


@contextmanager
def replacing(path: Path):
    """Yields a temporary path that becomes `path` when the block succeeds: a file that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main_guard(main) -> None:
    try:
        main()
    except Failure as failure:
        sys.exit(f"demo: {failure}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
