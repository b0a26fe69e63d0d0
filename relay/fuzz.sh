#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fuzz the relay for so many seconds (default 60): relay/fuzz.sh [SECONDS] [LIBFUZZER OPTIONS]. Debian: clang, libclang-rt-dev.
# Fails where something was found; what was found lies in _output/fuzz/findings, and what was learned in _output/fuzz/corpus.
set -eu
cd -- "$(dirname -- "$0")"
seconds=${1:-60}
[ $# = 0 ] || shift
output=../_output/fuzz
command -v clang >/dev/null || { echo "fuzz.sh: no clang here (Debian: apt-get install clang libclang-rt-dev)" >&2; exit 1; }
mkdir -p "$output/corpus" "$output/findings"
clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Wall -Wextra fuzz.c -o "$output/fuzz"
exec "$output/fuzz" -max_total_time="$seconds" -artifact_prefix="$output/findings/" -max_len=4096 -timeout=5 -print_final_stats=1 \
    -verbosity=0 "$@" "$output/corpus"
