"""Turns the JSON of gpu_kv_bench into a Markdown table and an SVG plot.

usage: report_gpu_kv.py RESULTS.json SVG > TABLE.md
"""

import json
import sys

WIDTH, BAR, LABEL, SCALE = 760, 16, 300, 400


def label(result):
    stored = {"same": "16 bit", "int8": "int8", "int4": "int4"}[result["stored"]]
    return f"{result['work']}, {result['dtype']}, {stored}"


def table(data):
    lines = ["| work | T | cache | us | p10 .. p90 | TB/s | of the copy ceiling |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for r in data["results"]:
        large = r["bytes"] > 10e6  # below, the time is latency and a bandwidth says nothing
        rate = f"{r['bytes_per_second'] / 1e12:.2f} | {r['of_copy_ceiling']:.2f}" if large else " | "
        lines.append(
            f"| {r['work']} | {r['dtype']} | {r['stored']} | {r['us']:.2f} | {r['us_p10']:.2f} .. {r['us_p90']:.2f} | {rate} |"
        )
    return "\n".join(lines)


def plot(data):
    bars = [r for r in data["results"] if r["bytes"] > 10e6 and "," not in r["work"]]
    height = BAR * len(bars) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LABEL + tick * SCALE
        parts.append(f'<line x1="{x}" y1="10" x2="{x}" y2="{height - 35}" stroke="#ccc"/>')
        parts.append(f'<text x="{x}" y="{height - 22}" text-anchor="middle">{tick:.2f}</text>')
    colours = {"same": "#4878a8", "int8": "#68a868", "int4": "#c88848"}
    for i, r in enumerate(bars):
        y = 12 + i * BAR
        parts.append(f'<text x="{LABEL - 6}" y="{y + 11}" text-anchor="end">{label(r)}</text>')
        parts.append(
            f'<rect x="{LABEL}" y="{y + 2}" width="{r["of_copy_ceiling"] * SCALE:.1f}" height="{BAR - 4}" fill="{colours[r["stored"]]}"/>'
        )
    parts.append(
        f'<text x="{LABEL + SCALE / 2}" y="{height - 6}" text-anchor="middle">bytes read and written per second, of the best copy in the same run</text>'
    )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def main():
    with open(sys.argv[1]) as file:
        data = json.load(file)
    with open(sys.argv[2], "w") as file:
        file.write(plot(data))
    print(table(data))


if __name__ == "__main__":
    main()
