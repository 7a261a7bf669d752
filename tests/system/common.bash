# For every system test: the lab, its end, and small helpers. A test skips itself by name where the machine lacks what
# it needs; in CI that is a failure (tests/run).
ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
source "$ROOT/tests/lab/mesh.bash"
source "$ROOT/tests/lab/image.bash"

need_root() { [ "$(id -u)" = 0 ] || skip "needs root: namespaces"; }

need_containers() {
    need_root
    command -v runc >/dev/null || skip "needs runc: tools/setup installs it"
    local criu=/opt/cmig/bin/criu
    [ -x "$criu" ] || criu=criu
    "$criu" check >/dev/null 2>&1 || skip "needs a CRIU that works on this kernel: tools/setup --criu-only"
}

teardown() {
    local log
    if [ -z "${BATS_TEST_COMPLETED:-}" ] && [ -n "${LAB_DIR:-}" ]; then
        for log in "$LAB_DIR"/*.log; do
            [ -f "$log" ] && { echo "--- $log"; tail -25 "$log"; }
        done
    fi
    [ -z "${CLIENT_PID:-}" ] || kill "$CLIENT_PID" 2>/dev/null || true
    lab_end
}

# A mesh of the nodes named, all linked with the rate: mesh RATE a b c
mesh() {
    local rate=$1 first=$2 i j nodes
    shift
    nodes=("$@")
    lab_init test
    for i in "${nodes[@]}"; do lab_node "$i"; done
    for ((i = 0; i < ${#nodes[@]}; i++)); do
        for ((j = i + 1; j < ${#nodes[@]}; j++)); do lab_link "${nodes[i]}" "${nodes[j]}" "$rate"; done
    done
    lab_found "$first"
    for i in "${nodes[@]:1}"; do lab_join "$i" "$first"; done
    for i in "${nodes[@]}"; do lab_wait 20 lab_sees "$i" $((${#nodes[@]} - 1)); done
}

# An image with a container that counts in memory onto /data, and one running of it at a node: counter NODE NAME GUID
counter_image() {
    busybox_tree "$LAB_DIR/base"
    head -c "${1:-2M}" /dev/urandom >"$LAB_DIR/base/etc/weights"
    mkdir -p "$LAB_DIR/app/app"
    cat >"$LAB_DIR/app/app/count" <<'SCRIPT'
#!/bin/sh
number=0
while :; do
    number=$((number + 1))
    echo "$number $EPOCHREALTIME" >>/data/numbers
    sleep 0.1
done
SCRIPT
    chmod +x "$LAB_DIR/app/app/count"
    oci_layout "$LAB_DIR/image.tar" counter:1 '["/app/count"]' "$LAB_DIR/base" "$LAB_DIR/app"
}

run_counter() {
    local node=$1 name=$2 guid=$3
    lab_cmig "$node" image import --name counter:1 "$LAB_DIR/image.tar"
    lab_cmig "$node" run --name "$name" -v "$guid:/data" counter:1
    lab_wait 10 test -s "$LAB_DIR/$node/volumes/$guid/numbers"
}

new_guid() { cat /proc/sys/kernel/random/uuid; }
state_of() { lab_cmig "$1" ps -a --json | jq -r --arg name "$2" '.containers[] | select(.name == $name).state'; }
is_running() { [ "$(state_of "$1" "$2")" = running ]; }
lines_of() { wc -l <"$1"; }

# Every number once and in order.
assert_whole() {
    awk '$1 != NR { print "line " NR " has " $1; bad = 1 } END { exit bad }' "$1"
}

# The file grows: the container really runs there.
assert_counts_on() {
    local file=$1 before
    before=$(lines_of "$file")
    grows() { [ "$(lines_of "$file")" -gt $((before + 3)) ]; }
    lab_wait 10 grows
}
