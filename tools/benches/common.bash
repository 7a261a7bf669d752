# shellcheck shell=bash
# What the benchmarks share: options, the build, results with their medians, tables, JSON and plots; rivals and what they
# are asked. Sourced.
#
#   bench_begin NAME "$@"          options that all have; the rest stays in BENCH_ARGS
#   note SUBJECT FIGURE VALUE      one measurement; the median of a figure's is what is reported
#   row FIGURE AIM TEXT            a line of the table of all $subjects
#   bench_end [FIGURE TITLE]       JSON, and a plot of that figure
#
# Who measures says what it measures on standard error; standard output is only for --json.

benches=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=/usr/bin/python3 # Debian's, which has libtorrent
runs=5 quick=no only='' json=no plot=''
BENCH_ARGS=()
pids=()

say() { echo "$*" >&2; }
die() { say "$*" && exit 1; }

bench_options() {
    cat <<'END'
  --runs N     how often (default 5); medians are reported
  --quick      smaller, and one run: to see that it works
  --only LIST  of the subjects only these, separated by commas
  --json       one object on standard output
  --plot FILE  draw an SVG picture
END
}

# Takes usage() of the caller.
bench_begin() {
    local name=$1
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --runs) runs=$2 && shift ;;
        --quick) quick=yes runs=1 ;;
        --only) only=,$2, && shift ;;
        --json) json=yes ;;
        --plot) plot=$2 && shift ;;
        --help) usage && exit 0 ;;
        *) BENCH_ARGS+=("$1") ;;
        esac
        shift
    done
    dir=$(mktemp -d "${TMPDIR:-/tmp}/cmig-bench-$name-XXXXXX")
    trap bench_clean_up EXIT
    trap 'exit 130' INT TERM
}

bad_option() { usage >&2 && exit 2; }
need_root() { [ "$(id -u)" = 0 ] || die "tools/bench: takes root, for network namespaces"; }

bench_clean_up() {
    trap - EXIT
    bench_stop "${pids[@]}"
    [ -z "${BENCH_KEEP:-}" ] || cp -a "$dir" "$BENCH_KEEP"
    [ -z "${LAB_DIR:-}" ] || lab_end
    rm -rf "$dir"
}

bench_stop() {
    local pid
    for pid in "$@"; do kill "$pid" 2>/dev/null || true; done
    for pid in "$@"; do wait "$pid" 2>/dev/null || true; done
}

# $CMIG_BIN, if it is set, is taken as it is.
bench_build() {
    [ "$only" = ,cmig, ] || [ "$(id -u)" != 0 ] || tools/setup --bench >&2
    if [ -z "${CMIG_BIN:-}" ]; then
        say "== building"
        [ "$(id -u)" != 0 ] || tools/setup >&2
        cmake --preset release >/dev/null
        cmake --build --preset release --target cmig cmig-node cmig-exec cmig-lab-relay >/dev/null
        CMIG_BIN=$PWD/build/release
    fi
    export CMIG_BIN
}

# Of the subjects named, those that were asked for, in $subjects.
bench_subjects() {
    local subject
    subjects=()
    for subject in "$@"; do
        if [ -z "$only" ] || [[ $only == *",$subject,"* ]]; then subjects+=("$subject"); fi
    done
    [ ${#subjects[@]} -gt 0 ] || die "of these it has none: ${only//,/ }"
}

# ---- results ----

note() {
    printf '%s %s %s\n' "$1" "$2" "$3" >>"$dir/results"
    say "   $1 $2 $3"
}

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'; }
of() { awk -v s="$1" -v f="$2" '$1 == s && $2 == f { print $3 }' "$dir/results" 2>/dev/null | median; }
calc() { awk "BEGIN { printf \"%.6g\", $1 }"; }
subjects_seen() { awk '!seen[$1]++ { print $1 }' "$dir/results"; }

table_head() {
    local subject
    printf '\n%-52s %10s' "" aim >&2
    for subject in $(subjects_seen); do printf ' %12s' "$subject" >&2; done
    printf '\n' >&2
}
row() {
    local subject value
    printf '%-52s %10s' "$3" "$2" >&2
    for subject in $(subjects_seen); do
        value=$(of "$subject" "$1")
        [ "$value" = - ] || value=$(awk -v v="$value" 'BEGIN { printf (v >= 1000 ? "%.0f" : "%.3g"), v }')
        printf ' %12s' "$value" >&2
    done
    printf '\n' >&2
}

# {"SUBJECT": {"FIGURE": {"median": x, "least": x, "most": x, "runs": n}}}
results_json() {
    jq -Rn '[inputs | split(" ") | {subject: .[0], figure: .[1], value: (.[2] | tonumber)}]
        | group_by(.subject) | map({key: .[0].subject, value: (group_by(.figure) | map({key: .[0].figure, value:
            (map(.value) | sort | {median: (if length % 2 == 1 then .[(length - 1) / 2] else (.[length / 2 - 1] + .[length / 2]) / 2 end),
             least: .[0], most: .[-1], runs: length})}) | from_entries)}) | from_entries' <"$dir/results"
}

bench_end() {
    results_json >"$dir/json"
    if [ -n "$plot" ] && [ $# -ge 2 ]; then "$python" "$benches/plot.py" "$2" "$1" <"$dir/json" >"$plot"; fi
    [ "$json" = no ] || jq -c . "$dir/json"
}

# ---- time ----

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.4f", b - a }'; }

hertz=$(getconf CLK_TCK)
# CPU seconds of processes so far, of those of their children that have ended as well.
cpu_of() {
    local pid
    for pid in "$@"; do cat "/proc/$pid/stat" 2>/dev/null || true; done |
        awk -v hz="$hertz" '{ sub(/.*\) /, ""); s += $12 + $13 + $14 + $15 } END { printf "%.3f", s / hz }'
}
cpu_since() { awk -v a="$1" -v b="$(cpu_of "${@:2}")" 'BEGIN { printf "%.3f", b - a }'; }

# timed COMMAND...: the seconds that it takes in $took, its CPU time in $own_cpu
timed() {
    local begin=$EPOCHREALTIME spent TIMEFORMAT='%U %S'
    spent=$({ time "$@" >"$dir/out" 2>"$dir/err"; } 2>&1) || { tail -5 "$dir/err" >&2 && die "failed: $*"; }
    took=$(seconds_since "$begin")
    own_cpu=$(awk -v s="$spent" 'BEGIN { split(s, t, " "); print t[1] + t[2] }')
}

# ---- a node ----

# fetch SOCKET DIGEST [JSON]: by the API, without a copy to another file. Its last event goes to standard output.
fetch() {
    local body=${3-} event
    [ -n "$body" ] || body='{}'
    event=$(curl -sS --unix-socket "$1" -H 'Content-Type: application/json' -d "$body" "http://localhost/v1/objects/$2/fetch" | tail -1)
    printf '%s\n' "$event"
    [[ $event == *'"result"'* ]]
}
content() { curl -sS --unix-socket "$1" "http://localhost/v1/objects/$2"; }
same_content() { [ "sha256:$(content "$1" "$2" | sha256sum | cut -d' ' -f1)" = "$2" ]; }

random_file() { head -c "$2" /dev/urandom >"$1"; }
