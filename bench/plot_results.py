#!/usr/bin/env python3
"""Makes docs/benchmarks.md's tables and plots of the GPU from bench/results/*.json.

usage: python3 bench/plot_results.py [--no-plots]

Tables go between the markers of docs/benchmarks.md, plots to docs/images/; plots need matplotlib.
"""

import argparse
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOC = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"

BITS = {"same": 16, "int8": 8, "fp8": 8, "int4": 4}
OURS, OTHERS = "#1f6fb4", "#b8bcc2"
DECODE_WORKS = ["64 x 8192", "8 x 32768", "1 x 131072"]
STEP_WORKS = ["64 x 8192", "8 x 32768", "1 x 131072", "256 ragged", "1 x 1024"]
KV_WORKS = ["write 8 x 4096", "flatten 8 x 4096", "flatten 64 x 4097"]
STREAMING = 10e6  # bytes; with less a work is latency and a bandwidth says nothing


def load(name):
    return json.loads((RESULTS / name).read_text())


def decode_results():
    """{(library, T, stored): {work: (us, fraction of the read bandwidth)}}, attention alone."""
    table = {}
    for r in load("gpu_decode_h200.json")["results"]:
        us = r["us_without_write"]
        row = table.setdefault(("pagedkv", r["dtype"], r["stored"]), {})
        row[r["work"]] = us, r["of_read_bandwidth"] * r["us"] / us
    for r in load("peers_h200.json")["decode"]:
        row = table.setdefault((r["library"], r["dtype"], r["stored"]), {})
        row[r["work"]] = r["us"], r["of_read_bandwidth"]
    return table


def kv_results(device):
    """The same of write_kv and flatten_kv; the fraction is of the copy ceiling, or None where latency counts. The other
    libraries were measured on an H200."""
    table = {}
    work_bytes = {}
    for r in load(f"gpu_kv_{device}.json")["results"]:
        work_bytes[r["work"], r["stored"]] = r["bytes"]
        row = table.setdefault(("pagedkv", r["dtype"], r["stored"]), {})
        row[r["work"]] = r["us"], r["of_copy_ceiling"] if r["bytes"] > STREAMING else None
    peers = load("peers_h200.json")
    for r in peers["kv"] if device == "h200" else []:
        size = work_bytes[r["work"], r["stored"]]
        fraction = size / (r["us"] * 1e-6) / peers["copy_ceiling"] if size > STREAMING else None
        table.setdefault((r["library"], r["dtype"], r["stored"]), {})[r["work"]] = r["us"], fraction
    return table


def cell(entry):
    if entry is None:
        return ""
    us, fraction = entry
    text = f"{us:.1f}" if us < 100 and isinstance(us, float) else f"{us:.0f}"
    return text if fraction is None else f"{text} ({fraction:.2f})"


def markdown(head, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def run_of(data):
    clocks = f", {data['clocks']}" if data["clocks"] else ""
    device = f"{data['device']}, {data['multiprocessors']} SMs, driver {data['driver']}{clocks}"
    return f"{device}; {data['date']}, {data['commit']}"


def name_of(key):
    library, dtype, stored = key
    if stored == "same":
        return f"{library}, {dtype}"
    return f"{library}, {stored}" + (f", T {dtype}" if dtype else "")


def decode_text():
    data = load("gpu_decode_h200.json")
    table = decode_results()
    keys = sorted((k for k in table if any(w in table[k] for w in DECODE_WORKS)),
                  key=lambda k: (-BITS[k[2]], k[0] != "pagedkv", k))
    rows = [[name_of(k), *(cell(table[k].get(w)) for w in DECODE_WORKS)] for k in keys]
    return (f"{run_of(data)}; {data['replays']} replays; read-only {data['read_bandwidth'] / 1e12:.2f} TB/s.\n\n"
            + markdown(["us (fraction of the read bandwidth)", *DECODE_WORKS], rows))


def step_text(device):
    """Decode of one new token with its write, for every format, without and with read_ahead."""
    data = load(f"gpu_decode_{device}.json")
    results = {(r["work"], r["dtype"], r["stored"]): r for r in data["results"]}
    columns = [(dtype, stored) for stored in ("same", "int8", "int4") for dtype in ("f16", "bf16")]
    rows = []
    for work in STEP_WORKS:
        entries = [results[work, *c] for c in columns]
        for name, us, fraction in ((work, "us", "of_read_bandwidth"),
                                   (f"{work}, read_ahead", "us_read_ahead", "of_read_bandwidth_read_ahead")):
            rows.append([name, *(f"{r[us]:.1f} ({r[fraction]:.3f})" if r["bytes"] > STREAMING else f"{r[us]:.1f}"
                                 for r in entries)])
    return (f"{run_of(data)}; {data['replays']} replays; read-only {data['read_bandwidth'] / 1e12:.2f} TB/s.\n\n"
            + markdown(["us (fraction of the read bandwidth)",
                        *(t if s == "same" else f"{s}, T {t}" for t, s in columns)], rows))


def shapes_text():
    """The other shapes of the decode benchmark, T f16, with the write, without and with read_ahead."""
    devices = ("h200", "h100")
    results = {d: {(r["work"], r["stored"]): r for r in load(f"gpu_decode_{d}.json")["results"] if r["dtype"] == "f16"}
               for d in devices}
    works = list(dict.fromkeys(w for w, _ in results["h200"] if w not in STEP_WORKS))
    rows = []
    for work in works:
        for name, us, fraction in ((work, "us", "of_read_bandwidth"),
                                   (f"{work}, read_ahead", "us_read_ahead", "of_read_bandwidth_read_ahead")):
            entries = [results[d][work, stored] for d in devices for stored in ("same", "int8", "int4")]
            rows.append([name, *(f"{r[us]:.1f} ({r[fraction]:.3f})" if r["bytes"] > STREAMING else f"{r[us]:.1f}"
                                 for r in entries)])
    return markdown(["us (fraction of the read bandwidth)", "H200: f16", "int8", "int4", "H100: f16", "int8", "int4"], rows)


def kv_text(device):
    data = load(f"gpu_kv_{device}.json")
    table = kv_results(device)
    columns = [(dtype, stored) for dtype in ("f16", "bf16") for stored in ("same", "int8", "int4")]
    works = list(dict.fromkeys(r["work"] for r in data["results"]))
    libraries = sorted({k[0] for k in table}, key=lambda name: (name != "pagedkv", name))
    rows = []
    for work in works:
        for library in libraries:
            cells = [cell(table.get((library, *c), {}).get(work)) for c in columns]
            if any(cells):
                rows.append([work if library == "pagedkv" else f"*{library}, {work}*", *cells])
    best = {way: max(b[way] for b in data["bandwidth"]) / 1e12 for way in ("read", "write")}
    return (f"{run_of(data)}; {data['replays']} replays. Copy ceiling {data['copy_ceiling'] / 1e12:.2f}, read-only "
            f"{best['read']:.2f}, write-only {best['write']:.2f} TB/s;\nan empty kernel in a graph takes "
            f"{data['empty_launch_us']:.2f} us.\n\n"
            + markdown(["us (fraction of the copy ceiling)",
                        *(t if s == "same" else f"{s}, T {t}" for t, s in columns)], rows))


def plot(path, table, keys, works, limit):
    """A panel per work, a bar per key."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "pagedkv", "svg.fonttype": "none", "font.family": "sans-serif",
                                "font.size": 9})
    from matplotlib import pyplot

    places = []
    for i, key in enumerate(keys):
        gap = 0.6 if i and BITS[key[2]] != BITS[keys[i - 1][2]] else 0
        places.append((places[-1] + 1 if places else 0) + gap)
    figure, panels = pyplot.subplots(1, len(works), figsize=(9.5, 0.24 * places[-1] + 1.2), sharey=True,
                                     layout="constrained")
    for panel, work in zip(panels, works):
        for key, place in zip(keys, places):
            if work not in table.get(key, {}):
                continue
            fraction = table[key][work][1]
            panel.barh(place, fraction, 0.8, color=OURS if key[0] == "pagedkv" else OTHERS)
            panel.text(fraction - 0.02, place, f"{fraction:.2f}", va="center", ha="right", fontsize=7.5,
                       color="white" if key[0] == "pagedkv" else "black")
        panel.set_title(work, fontsize=9.5)
        panel.set_xlim(0, 1.05)
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
        panel.axvline(1, color="black", linewidth=0.8)
        panel.tick_params(left=False)
        panel.spines[["top", "right", "left"]].set_visible(False)
    panels[0].set_yticks(places, [f"{k[0]}, {k[1] if k[2] == 'same' else k[2]}" for k in keys])
    panels[0].set_ylim(places[-1] + 0.6, -0.6)
    figure.supxlabel(limit, fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plots():
    IMAGES.mkdir(exist_ok=True)
    for name, table, works, limit in (
            ("gpu_decode_h200", decode_results(), DECODE_WORKS, "fraction of the read bandwidth of the same run"),
            ("gpu_kv_h200", kv_results("h200"), KV_WORKS,
             "bytes read and written per second, as a fraction of the best copy of the same run")):
        # One T of each library: f16 where it was measured.
        keys = [k for k in table if any(w in table[k] for w in works)]
        keys = [k for k in keys if k[1] == "f16" or (k[0], "f16", k[2]) not in table]
        keys.sort(key=lambda k: (-BITS[k[2]], k[0] != "pagedkv", k))
        plot(IMAGES / f"{name}.svg", table, keys, works, limit)


def replace_between(text, name, new):
    begin, end = f"<!-- begin {name}: made by bench/plot_results.py -->", f"<!-- end {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{DOC} lacks the markers of {name}")
    return pattern.sub(lambda _: f"{begin}\n{new}\n{end}", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-plots", action="store_true", help="tables only: no matplotlib")
    options = parser.parse_args()
    text = DOC.read_text()
    for name, new in (("gpu_decode", decode_text()), ("gpu_step_h200", step_text("h200")),
                      ("gpu_step_h100", step_text("h100")), ("gpu_shapes", shapes_text()),
                      ("gpu_kv_h200", kv_text("h200")),
                      ("gpu_kv_h100", kv_text("h100"))):
        text = replace_between(text, name, new)
    DOC.write_text(text)
    if not options.no_plots:
        plots()


if __name__ == "__main__":
    main()
