"""Adds up the test cases of one ctest run.

usage: count_results.py BUILD_DIR

Reads BUILD_DIR/ctest.xml (ctest --output-junit) and BUILD_DIR/test-results/NAME.json (GoogleTest's own report). A ctest
entry with a report counts as its cases; one without (a script, or a binary that died) counts as one case. Prints
"passed failed skipped", then one line per failed case.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases_of_report(report):
    """Yields (full name, "passed" | "failed" | "skipped") from a GoogleTest JSON report."""
    for suite in report["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{suite['name']}.{case['name']}"
            if case.get("failures"):
                yield name, "failed"
            elif case.get("result") == "COMPLETED":
                yield name, "passed"
            else:
                yield name, "skipped"


def cases_of_run(build):
    junit = build / "ctest.xml"
    for entry in ElementTree.parse(junit).getroot().iter("testcase"):
        name = entry.get("name")
        ok = entry.get("status") == "run" and entry.find("failure") is None
        path = build / "test-results" / f"{name}.json"
        cases = []
        if path.exists():
            cases = [(f"{name}: {case}", result) for case, result in cases_of_report(json.loads(path.read_text()))]
        yield from cases
        # A run that failed outside of its cases (a crash, a leak report, a time-out) must not look like a success.
        failed_inside = any(result == "failed" for _, result in cases)
        if not cases:
            yield name, "passed" if ok else "failed"
        elif not ok and not failed_inside:
            yield f"{name} (outside of its cases)", "failed"


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []
    for name, result in cases_of_run(pathlib.Path(sys.argv[1])):
        counts[result] += 1
        if result == "failed":
            failed.append(name)
    print(counts["passed"], counts["failed"], counts["skipped"])
    for name in failed:
        print(name)


if __name__ == "__main__":
    main()
