#!/usr/bin/env bash
# Fuzzes the targets, two at a time, says how often each was executed and what was found, and keeps the corpora small.
#
#   fuzz/run.sh [SECONDS [TARGET...]]    so long each (default: 60), all of them or those that are named
#
# Needs the nightly toolchain of rustup; gets cargo-fuzz if it is missing. What a run adds to a corpus stays in
# target/corpus/; a few dozen of it go to corpus/, which is committed, beside those that have a name. An input that fails
# lies in artifacts/, and this ends with 1.
set -euo pipefail
cd "$(dirname "$0")"

cargo_fuzz_version=0.13.2
seconds=${1:-60}
shift || true
all=$(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)
targets=${*:-$all}
binaries=target/x86_64-unknown-linux-gnu/release
logs=target/logs
# Of glibc: half a megabyte, the size of a page of cursors, is not asked of the kernel each time.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=268435456
# Of those that the fuzzer found, for each target.
kept_max=48
# Beyond these an input has failed.
limits="-rss_limit_mb=1024 -timeout=10 -max_len=4096"

cargo fuzz --version 2>/dev/null | grep -qF " $cargo_fuzz_version" ||
    cargo install cargo-fuzz --locked --version "$cargo_fuzz_version"

# The versions that the binary is made of. There is no `unsafe` of ours, and the sanitizer would not link with the C libraries.
cp ../Cargo.lock Cargo.lock
CARGO_TARGET_DIR=$PWD/target cargo +nightly fuzz build --fuzz-dir . --sanitizer none

fuzz() {
    local target=$1
    mkdir -p "target/corpus/$target" "artifacts/$target" "$logs"
    if "$binaries/$target" "target/corpus/$target" "corpus/$target" $limits -max_total_time="$seconds" \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$logs/$target" 2>&1 && minimise "$target"; then
        return
    fi
    touch "$logs/$target.failed"
}

# Beside the inputs that somebody named, the smallest of the fewest that reach every edge that all of them reach.
minimise() {
    local target=$1 kept="target/kept/$1"
    local by_hash=(-type f -regex ".*/$(printf '[0-9a-f]%.0s' {1..40})")
    rm -rf "$kept"
    mkdir -p "$kept"
    find "corpus/$target" -type f -not \( "${by_hash[@]}" \) -exec cp -t "$kept" {} +
    "$binaries/$target" -set_cover_merge=1 -use_counters=0 $limits "$kept" "corpus/$target" "target/corpus/$target" \
        >"$logs/$target.merge" 2>&1 || return
    find "corpus/$target" "${by_hash[@]}" -delete
    find "$kept" "${by_hash[@]}" -printf '%s %p\n' | sort -n | head -n "$kept_max" | cut -d ' ' -f 2- |
        xargs -r cp -t "corpus/$target"
}

export -f fuzz minimise
export seconds binaries logs limits kept_max
rm -f "$logs"/*.failed
printf '%s\n' $targets | xargs -P 2 -I {} bash -c 'fuzz {}'

failed=0
for target in $targets; do
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$logs/$target")
    if [ -e "$logs/$target.failed" ]; then
        failed=1
        echo "$target: FAILED: $(find "artifacts/$target" -type f | tr '\n' ' ')(fuzz/$logs/$target)"
    else
        echo "$target: $executions executions in $seconds s, no finding; $(find "corpus/$target" -type f | wc -l) inputs kept"
    fi
done
exit $failed
