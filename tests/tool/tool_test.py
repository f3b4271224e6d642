"""Runs the command line tool and looks at what it prints.

usage: tool_test.py PATH_OF_PAGEDKV TEST_NAME
"""

import json
import pathlib
import subprocess
import sys
import tempfile

tool = sys.argv[1]


def run(*arguments, expect=0):
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == expect, f"{arguments}: exit {done.returncode}, expected {expect}\n{done.stdout}{done.stderr}"
    return done.stdout if expect == 0 else done.stderr


def layout_json(*arguments):
    return json.loads(run("layout", "--json", *arguments))


def test_layout():
    shape = ["--layers", 32, "--kv-heads", 8, "--head-dim", 128, "--block-len", 64]
    seed = layout_json(*shape, "--dtype", "f16", "--format", "int8")
    assert seed["block_bytes"] == 4325376
    assert seed["param_offset"] == 8 * 2 * 64 * 128
    assert seed["bits_per_element"] == 8 + 32 / 128
    assert "4325376" in run("layout", *shape, "--format", "int8")

    mixed = layout_json(*shape, "--format", "int8/int4")
    assert (mixed["k_format"], mixed["v_format"]) == ("int8", "int4")
    assert mixed["token_bytes"] == 32 * 8 * (128 + 4 + 64 + 4)

    shared = layout_json("--layers", 1, "--kv-heads", 1, "--head-dim", 576, "--shared-kv", "--dtype", "bf16")
    assert shared["block_bytes"] == 64 * 576 * 2


def test_verify():
    rows = json.loads(run("verify", "--json"))
    assert len(rows) > 40 and all(row["ok"] and row["expected"] == row["actual"] for row in rows)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names))
    assert any(name.startswith("cache_") and name.endswith("_scalar") for name in names)
    assert f"all {len(rows)} hashes are right" in run("verify", "--threads", 1)


def test_errors():
    for arguments, status, words in [
        ([], 2, ["subcommand"]),
        (["layout", "--bogus"], 2, ["--bogus"]),
        (["layout", "--format", "int3"], 2, ["int3", "int8"]),
        (["layout", "--format", "int8/"], 2, ["int8/", "accepted"]),
        (["layout", "--dtype", "f64"], 2, ["f64"]),
        (["layout", "--head-dim", "100"], 1, ["head_dim", "100", "16"]),
        (["layout", "--block-len", "0"], 1, ["block_len", "0", "accepted"]),
        (["layout", "--shared-kv", "--format", "int8/int4"], 1, ["shared_kv"]),
        (["verify", "--threads", "-1"], 2, ["-1"]),
        (["bench", "--operations", "fly"], 2, ["fly"]),
        (["bench", "--q-heads", "3", "--context", "64", "--repetitions", "1"], 1, ["q_heads", "3"]),
        (["bench", "--context", "64", "--repetitions", "1", "--json", "/nonexistent/x.json"], 1, ["/nonexistent"]),
    ]:
        message = run(*arguments, expect=status)
        for word in words:
            assert word in message, f"{arguments}: '{word}' is not in: {message}"


def test_bench():
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "bench.json"
        text = run("bench", "--context", 257, "--batch", 2, "--q-heads", 4, "--kv-heads", 2, "--head-dim", 64,
                   "--formats", "same,int4", "--repetitions", 3, "--threads", 2, "--json", path)
        report = json.loads(path.read_text())
    rows = {(row["operation"], row["format"]): row for row in report["rows"]}
    assert len(rows) == 6 and report["repetitions"] == 3 and report["shape"]["context"] == 257
    for row in rows.values():
        ms = row["milliseconds"]
        assert 0 < ms["min"] <= ms["median"] <= ms["max"]
        assert row["operation"] in text
    # f16, 2 heads: 2 x 257 tokens of keys and values in and out, and one query and one result per sequence.
    assert rows["write", "same"]["bytes"] == 2 * (2 * 2 * 257 * 2 * 64 * 2)
    assert rows["decode", "int4"]["bytes"] == 2 * 257 * 2 * 2 * (32 + 4) + 2 * (2 * 4 * 64 * 2)
    assert rows["decode", "same"]["time_over_first_format"]["median"] == 1


globals()[f"test_{sys.argv[2]}"]()
