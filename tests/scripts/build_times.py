"""Prints the slowest build steps of a ninja log, and the sum of all.

usage: build_times.py NINJA_LOG [COUNT]
"""

import sys


def main():
    steps = {}
    with open(sys.argv[1]) as log:
        for line in log:
            if line.startswith("#"):
                continue
            start, end, _, output, _ = line.rstrip("\n").split("\t")
            steps[output] = (int(end) - int(start)) / 1000
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    for output, seconds in sorted(steps.items(), key=lambda step: -step[1])[:count]:
        print(f"{seconds:8.1f} s  {output}")
    print(f"{sum(steps.values()):8.1f} s  sum of {len(steps)} steps")


if __name__ == "__main__":
    main()
