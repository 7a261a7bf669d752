#!/usr/bin/env bats
# The simulator of swarms: one seed is one run; small crowds meet their figures. Needs no root.
bats_require_minimum_version 1.5.0

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
}

# rows ARGUMENTS... : the report as JSON is checked by the python on standard input, which finds the rows in `rows`
rows() {
    "$CMIG_BIN/swarmsim" "$@" --json --quiet >"$BATS_TEST_TMPDIR/report"
    { echo 'import json, sys; rows = json.load(open(sys.argv[1]))["rows"]'; cat; } |
        python3 - "$BATS_TEST_TMPDIR/report"
}

# hash_of PROGRAM ARGUMENTS... : the fingerprints of its runs, one a line
hash_of() { "$@" --quiet 2>/dev/null | grep -o 'hash [0-9a-f]*'; }

@test "swarmsim: two runs of one seed are the same, another seed is another run" {
    a=$(hash_of "$CMIG_BIN/swarmsim" faults --receivers 5,20 --size 16 --killed 2 --cut 1)
    b=$(hash_of "$CMIG_BIN/swarmsim" faults --receivers 5,20 --size 16 --killed 2 --cut 1)
    c=$(hash_of "$CMIG_BIN/swarmsim" faults --receivers 5,20 --size 16 --killed 2 --cut 1 --seed 1)
    [ -n "$a" ] && [ "$a" = "$b" ] && [ "$a" != "$c" ]
}

@test "swarmsim: eight receivers of 64 MiB have all within 1.25 times size / rate, and the seed sends 1.2 copies at most" {
    rows crowd --receivers 8 --size 64 <<'END'
assert rows[0]["done"] == 8 and rows[0]["last_x"] <= 1.25 and rows[0]["seed_copies"] <= 1.2, rows
END
}

@test "swarmsim: in a crowd of fifty nobody falls behind" {
    rows crowd --receivers 50 --size 256 <<'END'
assert rows[0]["done"] == 50 and rows[0]["last_x"] <= 1.17 and rows[0]["seed_copies"] <= 1.2, rows
END
}

# It was 1.62 when one source could be asked for all that a node may ask for.
@test "swarmsim: nor in one of a hundred, in which the last took half as long again" {
    rows crowd --receivers 100 --size 1024 <<'END'
assert rows[0]["done"] == 100 and rows[0]["last_x"] <= 1.3 and rows[0]["seed_copies"] <= 1.2, rows
END
}

# Of 600 the seed meets 256: the others have to find more than those. They took 0.45 longer when they did not.
@test "swarmsim: who comes late to a crowd is not a spoke of those who came first" {
    rows crowd --receivers 600 --size 64 --quantum 256 <<'END'
assert rows[0]["done"] == 600 and rows[0]["last_x"] <= rows[0]["p50_x"] + 0.3, rows
END
}

@test "swarmsim: with one killed, one that lies and one that stalls, within 1.5 times" {
    rows faults --receivers 8 --size 64 --killed 1 --liars 1 --stalled 1 <<'END'
assert rows[0]["done"] == 6 and rows[0]["failed"] == 0 and rows[0]["last_x"] <= 1.5, rows
END
}

@test "swarmsim: whoever comes, goes, is slow or wants much gets it" {
    rows arrivals --receivers 20 --size 16 --over 10 --stay 2 <<'END'
assert rows[0]["done"] == 20, rows
END
    rows mixed --receivers 10 --size 16 <<'END'
assert [row["done"] for row in rows] == [5, 5], rows
END
    rows churn --receivers 10 --size 16 --minutes 1 --life 20 <<'END'
assert rows[0]["done"] > 10 and rows[0]["failed"] == 0, rows
END
}

@test "swarmsim: what is urgent comes first, and nothing waits for good" {
    rows classes --receivers 5 --size 16 <<'END'
assert all(row["done"] == 5 for row in rows), rows
assert rows[0]["p50_s"] == min(row["p50_s"] for row in rows), rows
END
}

@test "swarmsim: writes plots that are well-formed" {
    "$CMIG_BIN/swarmsim" crowd --receivers 4 --size 8 --quiet --plots "$BATS_TEST_TMPDIR/plots" >/dev/null
    python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$BATS_TEST_TMPDIR/plots/crowd-4.svg"
}

@test "swarmsim: says what it does not take" {
    run -2 "$CMIG_BIN/swarmsim" fly
    [[ $output == *"no command 'fly'"* ]]
    run -2 "$CMIG_BIN/swarmsim" crowd --killed 3
    [[ $output == *"'--killed' is no flag of it"* ]]
    run -2 "$CMIG_BIN/swarmsim" crowd --receivers 0
    [[ $output == *"--receivers does not take '0'"* ]]
    run -0 "$CMIG_BIN/swarmsim" --help
    [[ $output == *"swarmsim crowd --receivers 10000 --size 1024"* ]]
}
