"""Checks that the C++ in the docs is C++ that is built and run: every ```cpp block of README.md and docs/ must stand,
line by line and apart from indentation, in a file of examples/.

usage: check_doc_quotes.py ROOT
"""

import pathlib
import re
import sys

BLOCK = re.compile(r"^```cpp\n(.*?)^```", re.DOTALL | re.MULTILINE)


def lines_of(text):
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def main():
    root = pathlib.Path(sys.argv[1])
    sources = [lines_of(p.read_text()) for p in (root / "examples").rglob("*") if p.suffix in (".cpp", ".h")]
    blocks = 0
    failed = 0
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        if not page.exists():
            continue
        text = page.read_text()
        for match in BLOCK.finditer(text):
            blocks += 1
            quote = lines_of(match.group(1))
            if not any(f"\n{quote}\n" in f"\n{source}\n" for source in sources):
                failed += 1
                line = text[: match.start()].count("\n") + 1
                print(f"{page.relative_to(root)}:{line}: this C++ stands in no file of examples/")
    print(f"{blocks - failed} of {blocks} quotes found in examples/")
    sys.exit(1 if failed or not blocks else 0)


main()
