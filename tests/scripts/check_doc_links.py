"""Checks that the relative links of README.md and docs/ lead to files that exist, and their #anchors to headings.

usage: check_doc_links.py ROOT
"""

import pathlib
import re
import sys

LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page):
    """The anchors that the headings of a page get."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(root):
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for link in LINK.findall(page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            if not target.exists():
                yield f"{page.relative_to(root)}: {link}: no such file"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{page.relative_to(root)}: {link}: no such heading"


def main():
    problems = list(broken(pathlib.Path(sys.argv[1])))
    print("\n".join(problems) if problems else "all relative links lead somewhere")
    sys.exit(1 if problems else 0)


main()
