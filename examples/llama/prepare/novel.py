"""The demo's text: Jane Austen's "Mansfield Park" (1814, public domain).

It comes from the Debian package r-cran-janeaustenr (MIT licence), which stores six novels in an R data file: records of
a 4-byte length and a zlib stream, each holding one serialised R vector of lines.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from common import Failure, replacing, run, say

PACKAGE = "r-cran-janeaustenr"
DATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
TITLE = "MANSFIELD PARK"
CREDIT = f"Mansfield Park by Jane Austen (1814, public domain; Debian package {PACKAGE})"
ADVICE = "pass --text FILE with an English text of your own (100 kB or more)"

R_STRINGS = 16  # STRSXP in the low byte of a record's flags


def prepare_novel(downloads: Path, text: Path) -> None:
    """Fetches and extracts the novel unless `text` exists already."""
    if text.exists():
        return
    say(f"downloading the Debian package {PACKAGE} (1.6 MB)")
    folder = downloads / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    fetch(folder)
    packages = sorted(folder.glob("*.deb"))
    if not packages:
        raise Failure(f"apt-get left no package in {folder}; {ADVICE}")
    run(["dpkg-deb", "-x", str(packages[-1]), str(folder)], f"unpacking {PACKAGE}", ADVICE)
    for record in records((folder / DATA).read_bytes()):
        lines = list(strings(record))
        if lines and lines[0] == TITLE:
            with replacing(text) as path:
                path.write_text(prose(lines), encoding="utf-8")
            return
    raise Failure(f"{PACKAGE} holds no text titled {TITLE}; {ADVICE}")


def fetch(folder: Path) -> None:
    advice = f"check the network, or {ADVICE}"

    def download() -> None:
        run(["apt-get", "download", PACKAGE], f"downloading {PACKAGE}", advice, cwd=folder)

    try:
        download()
    except Failure:  # perhaps the machine has never fetched its package lists
        run(["apt-get", "update"], "apt-get update (which needs root)", advice)
        download()


def records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        stream = zlib.decompressobj()
        yield stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)


def strings(record: bytes) -> Iterator[str]:
    """The elements of a serialised R character vector (XDR format, version 3)."""
    encoding_length, = struct.unpack_from(">i", record, 14)
    at = 18 + encoding_length
    flags, count = struct.unpack_from(">iI", record, at)
    at += 8
    if flags & 0xFF != R_STRINGS:
        return
    for _ in range(count):
        length, = struct.unpack_from(">i", record, at + 4)  # after the element's own flags; -1 marks a missing value
        at += 8
        yield record[at:at + max(length, 0)].decode("utf-8")
        at += max(length, 0)


def prose(lines: list[str]) -> str:
    """From the first chapter on, one line per paragraph."""
    first = lines.index("CHAPTER I")
    paragraphs = re.split(r"\n{2,}", "\n".join(lines[first:]).strip())
    return "\n\n".join(re.sub(r"\s+", " ", paragraph.strip()) for paragraph in paragraphs) + "\n"
