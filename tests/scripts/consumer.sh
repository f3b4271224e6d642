#!/usr/bin/env bash
# Installs the build into a scratch prefix, builds the consumer project against it and runs it.
# usage: consumer.sh CMAKE BUILD_DIR CONSUMER_DIR CXX
set -euo pipefail
cmake=$1 build=$2 source=$3 cxx=$4

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$cmake" --install "$build" --prefix "$scratch/prefix" >/dev/null
# nvcc must not be needed: hide it, as on a user's machine without the CUDA toolkit's compiler.
CUDACXX=/nonexistent "$cmake" -S "$source" -B "$scratch/build" \
  -DCMAKE_PREFIX_PATH="$scratch/prefix" -DCMAKE_CXX_COMPILER="$cxx"
"$cmake" --build "$scratch/build"
"$scratch/build/consumer"
