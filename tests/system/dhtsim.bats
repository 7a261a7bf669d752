#!/usr/bin/env bats
# The simulator: one seed is one run, whoever compiled it; what it cannot do it says. Needs no root.
bats_require_minimum_version 1.5.0

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
}

# hash_of PROGRAM ARGUMENTS... : the fingerprints of its runs, one a line
hash_of() { "$@" --quiet 2>/dev/null | grep -o 'hash [0-9a-f]*'; }

@test "dhtsim: two runs of one seed are the same, another seed is another run" {
    a=$(hash_of "$CMIG_BIN/dhtsim" hops --nodes 50,300 --keys 50 --gets 200 --loss 2 --duplicate 1 --reorder 5)
    b=$(hash_of "$CMIG_BIN/dhtsim" hops --nodes 50,300 --keys 50 --gets 200 --loss 2 --duplicate 1 --reorder 5)
    c=$(hash_of "$CMIG_BIN/dhtsim" hops --nodes 50,300 --keys 50 --gets 200 --loss 2 --duplicate 1 --reorder 5 --seed 1)
    [ -n "$a" ] && [ "$a" = "$b" ] && [ "$a" != "$c" ]
}

@test "dhtsim: what gcc compiled runs as what clang compiled" {
    other=$ROOT/build/clang/dhtsim
    [ -x "$other" ] || skip "needs build/clang: cmake --preset clang && cmake --build --preset clang"
    for arguments in "hops --nodes 300 --keys 50 --gets 200" "churn --nodes 60 --days 1 --keys 30 --gets 5" \
        "partition --nodes 60 --keys 20 --gets 20 --split-minutes 20"; do
        # shellcheck disable=SC2086 # words
        a=$(hash_of "$CMIG_BIN/dhtsim" $arguments)
        # shellcheck disable=SC2086
        b=$(hash_of "$other" $arguments)
        [ -n "$a" ] && [ "$a" = "$b" ] || { echo "$arguments: $a, with clang $b"; false; }
    done
}

@test "dhtsim: reads are right, and the figures are there as JSON" {
    "$CMIG_BIN/dhtsim" fail --nodes 500 --keys 100 --gets 500 --dead 0,30 --json --quiet |
        python3 -c 'import json, sys
rows = json.load(sys.stdin)["rows"]
assert [row["dead_%"] for row in rows] == [0, 30]
assert all(row["gets"] == 500 and row["right_%"] == 100 for row in rows), rows'
}

@test "dhtsim: writes plots that are well-formed" {
    "$CMIG_BIN/dhtsim" hops --nodes 50,100 --keys 20 --gets 50 --quiet --plots "$BATS_TEST_TMPDIR/plots" >/dev/null
    for name in hops latency; do
        python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$BATS_TEST_TMPDIR/plots/$name.svg"
    done
}

@test "dhtsim: says what it does not take" {
    run -2 "$CMIG_BIN/dhtsim" fly
    [[ $output == *"no command 'fly'"* ]]
    run -2 "$CMIG_BIN/dhtsim" hops --days 3
    [[ $output == *"'--days' is no flag of it"* ]]
    run -2 "$CMIG_BIN/dhtsim" hops --nodes 10,x
    [[ $output == *"--nodes does not take '10,x'"* ]]
    run -0 "$CMIG_BIN/dhtsim" --help
    [[ $output == *"dhtsim memory --nodes 1000000"* ]]
}
