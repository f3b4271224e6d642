"""Checks who includes whom.

usage: check_layering.py ROOT          check the tree at ROOT; exit 1 and one line per violation if any
       check_layering.py --self-test   plant one violation of every rule in a scratch tree and expect each to be found
"""

import pathlib
import re
import sys
import tempfile

SOURCES = {".h", ".cuh", ".cpp", ".cu"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)")
CUDA_HEADER = re.compile(r"^(cuda|cooperative_groups|cub/|cute/|cutlass/|nv/|thrust/|mma\.h|nccl|nvtx)")
# Third-party headers, by the one layer that may see them. A header that is neither ours, std nor listed is refused.
THIRD_PARTY = {
    "fmt/": ("src/common/format.",),
    "sanitizer/": ("src/cpu/",),
    "hwy/": ("src/cpu/",),
    "tbb/": ("src/cpu/",),
    "oneapi/tbb": ("src/cpu/",),
    "CLI/": ("tools/", "bench/", "examples/"),
    "nlohmann/": ("tools/", "bench/", "examples/"),
    "benchmark/": ("bench/",),
    "oneapi/dnnl": ("examples/",),
    "dnnl": ("examples/",),
    "omp.h": ("examples/",),
    "cublas": ("examples/", "bench/"),
}
POSIX = {"fcntl.h", "unistd.h", "sched.h", "pthread.h", "immintrin.h", "cpuid.h"}


def includes(path):
    """Yields (line number, header, guarded): guarded means inside a condition that asks for __CUDACC__."""
    stack = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := CONDITION.match(line):
            kind, rest = match.groups()
            if kind in ("if", "ifdef", "ifndef"):
                stack.append(kind != "ifndef" and "__CUDACC__" in rest and "!" not in rest)
            elif kind == "endif" and stack:
                stack.pop()
            elif stack:
                stack[-1] = kind == "elif" and "__CUDACC__" in rest and "!" not in rest
        elif match := INCLUDE.match(line):
            yield number, match.group(2), any(stack)


def is_std(header):
    return re.fullmatch(r"[a-z_0-9]+", header) is not None


def resolve(root, file, header):
    """The included file, relative to ROOT, if it is one of ours, else None."""
    for base in (root / "include", root / "src", root / "tests", file.parent, root):
        candidate = (base / header).resolve()
        if candidate.is_file() and candidate.is_relative_to(root):
            return candidate.relative_to(root).as_posix()
    return None


def layer_of(name):
    parts = name.split("/")
    if name == "include/pagedkv/types.h":
        return "types"
    if name == "include/pagedkv/core/half.h":
        return "half"
    if name.startswith("include/pagedkv/core/"):
        return "core"
    if parts[0] == "include":
        return "public"
    if parts[0] == "src":
        return "src/" + parts[1] if len(parts) > 2 else "src"
    if name.startswith("tests/oracle/"):
        return "oracle"
    return parts[0]


# What each layer may include of ours. Two headers are layers of their own: types.h, which core builds on, and half.h,
# which anyone who holds f16 or bf16 data needs. Tests other than the oracle may include everything.
BASE = {"types", "half"}
LIBRARY = BASE | {"core", "public", "src"}
ALLOWED = {
    "types": set(),
    "half": {"types", "core"},
    "core": BASE | {"core"},
    "public": BASE | {"core", "public"},
    "src": LIBRARY,
    "src/common": LIBRARY | {"src/common"},
    "src/manager": LIBRARY | {"src/common", "src/manager"},
    "src/cpu": LIBRARY | {"src/common", "src/cpu"},
    "src/cuda": LIBRARY | {"src/common", "src/cuda"},
    "src/interop": LIBRARY | {"src/common", "src/interop"},
    "tools": BASE | {"public", "tools", "bench"},
    "examples": BASE | {"public", "examples"},
    "bench": BASE | {"public", "bench"},
    "oracle": {"oracle"},
}
# Interfaces of other projects, whose signatures have CUDA's types.
INTEROP = "include/pagedkv/interop/"
CUDA_IN_CORE = {"include/pagedkv/core/half.h", "include/pagedkv/core/hd.h"}


def check_external(name, layer, header, guarded):
    """The reason why `name` may not include the foreign header, or None."""
    if layer in ("types", "half", "core", "public"):
        if is_std(header):
            return None
        if CUDA_HEADER.match(header) and (name.startswith(INTEROP) or (guarded and name in CUDA_IN_CORE)):
            return None
        return "core and public headers include std and each other only (CUDA headers: half.h, hd.h, behind __CUDACC__)"
    if layer == "tests" or is_std(header) or header in POSIX or header.startswith("sys/"):
        return None
    if layer == "oracle":
        return "the oracle includes std only"
    for prefix, where in THIRD_PARTY.items():
        if header.startswith(prefix):
            if not name.startswith(where):
                return f"only {', '.join(where)} may include <{prefix}...>"
            return None
    if CUDA_HEADER.match(header):
        gpu_source = name.endswith((".cu", ".cuh")) and layer in ("examples", "bench")
        return None if layer == "src/cuda" or gpu_source else "CUDA headers are for src/cuda only"
    return "unknown header: neither std, ours, nor in the list of libraries"


def check(root):
    root = root.resolve()
    files = [
        path
        for top in ("include", "src", "tools", "examples", "bench", "tests", "python")
        for path in sorted((root / top).rglob("*"))
        if path.suffix in SOURCES
    ]
    problems = []
    graph = {}
    for path in files:
        name = path.relative_to(root).as_posix()
        layer = layer_of(name)
        graph[name] = []
        if path.suffix == ".cuh" and not name.startswith(("src/cuda/", "tests/emulation/shadow/cuda/")):
            problems.append(f"{name}: .cuh files live under src/cuda (and its stand-ins) only")
        if path.suffix == ".cpp" and re.search(r"<<<|__global__|__device__", path.read_text()):
            problems.append(f"{name}: a .cpp file must not need nvcc")
        for number, header, guarded in includes(path):
            target = resolve(root, path, header)
            where = f"{name}:{number}: includes {header}"
            if target is None:
                if reason := check_external(name, layer, header, guarded):
                    problems.append(f"{where}: {reason}")
                continue
            graph[name].append(target)
            other = layer_of(target)
            if layer in ALLOWED and other not in ALLOWED[layer]:
                problems.append(f"{where}: {layer} may include {', '.join(sorted(ALLOWED[layer]))} and not {other}")
            if path.suffix == ".cpp" and target.endswith(".cuh"):
                problems.append(f"{where}: a .cpp file must not need nvcc")
    if not files:
        problems.append(f"{root}: no source files found")
    return problems


# One violation per rule: file, its text, words of the complaint.
PLANTED = [
    ("include/pagedkv/core/a.h", '#include "pagedkv/pub.h"', "core may include"),
    ("include/pagedkv/core/b.h", "#include <cuda_fp16.h>", "core and public headers"),
    ("include/pagedkv/core/half.h", "#include <cuda_fp16.h>", "core and public headers"),
    ("include/pagedkv/core/hd.h", "#ifndef __CUDACC__\n#include <cuda_fp16.h>\n#endif", "core and public headers"),
    ("include/pagedkv/c.h", "#include <fmt/format.h>", "core and public headers"),
    ("include/pagedkv/d.h", '#include "cpu/x.h"', "public may include"),
    ("src/cpu/e.cpp", '#include "manager/x.h"', "src/cpu may include"),
    ("src/manager/f.cpp", '#include "cpu/x.h"', "src/manager may include"),
    ("src/common/f3.cpp", '#include "cpu/x.h"', "src/common may include"),
    ("src/manager/f2.cpp", "#include <hwy/highway.h>", "only src/cpu/"),
    ("src/cuda/g.cu", '#include "../cpu/x.h"', "src/cuda may include"),
    ("src/cpu/h.cpp", "#include <cuda_runtime.h>", "CUDA headers are for src/cuda"),
    ("src/cpu/i.h", "#include <fmt/format.h>", "only src/common/format. may include"),
    ("src/cpu/j.cuh", "", ".cuh files live"),
    ("tests/emulation/j.cuh", "", ".cuh files live"),
    ("src/cuda/k.cpp", '#include "cuda/x.cuh"', "must not need nvcc"),
    ("src/cuda/l.cpp", "__global__ void k();", "must not need nvcc"),
    ("tools/m.cpp", '#include "pagedkv/core/x.h"', "tools may include"),
    ("examples/n.cpp", '#include "cpu/x.h"', "examples may include"),
    ("bench/o.cpp", '#include "manager/x.h"', "bench may include"),
    ("tests/oracle/p.h", '#include "pagedkv/core/x.h"', "oracle may include"),
    ("include/pagedkv/types.h", '#include "pagedkv/pub.h"', "types may include"),
    ("tests/oracle/s.h", '#include "pagedkv/types.h"', "oracle may include"),
    ("tests/oracle/q.h", '#include "pagedkv/pub.h"', "oracle may include"),
    ("tools/r.cpp", "#include <boost/any.hpp>", "unknown header"),
]
# Files that break no rule.
CLEAN = {
    "include/pagedkv/types.h": "#include <cstdint>",
    "include/pagedkv/core/half.h": '#include "pagedkv/types.h"\n#ifdef __CUDACC__\n#include <cuda_fp16.h>\n#endif',
    "include/pagedkv/core/x.h": '#include "pagedkv/core/half.h"',
    "include/pagedkv/core/hd2.h": '#include "pagedkv/core/x.h"',
    "include/pagedkv/interop/theirs.h": '#include "pagedkv/pub.h"\n#include <cuda_runtime_api.h>',
    "include/pagedkv/pub.h": '#include "pagedkv/core/x.h"\n#include <vector>',
    "src/common/x.h": '#include "pagedkv/pub.h"',
    "src/cpu/x.h": '#include "common/x.h"',
    "src/manager/x.h": "",
    "src/cuda/x.cuh": "#include <cuda_fp16.h>",
    "tests/core/t.cpp": '#include "cpu/x.h"\n#include <gtest/gtest.h>',
    "tools/t.cpp": '#include <CLI/CLI.hpp>\n#include "pagedkv/core/half.h"\n#include "pagedkv/pub.h"',
}


def self_test():
    missed = 0
    for name, text, complaint in [(None, None, None), *PLANTED]:
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            for file, content in {**CLEAN, **({name: text} if name else {})}.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_text(content)
            problems = check(root)
        expected = name is not None
        found = len(problems) == 1 and complaint in problems[0] if expected else not problems
        if not found:
            missed += 1
            print(f"planted {name}, expected {complaint!r}, got {problems}")
    print(f"{len(PLANTED) + 1 - missed} of {len(PLANTED) + 1} planted trees judged correctly")
    return missed == 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(0 if self_test() else 1)
    problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems) if problems else "layering holds")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
