#!/usr/bin/env bats
# The registry from the command line and from Redis clients: three nodes on loopback. Needs no root.
bats_require_minimum_version 1.5.0

# start NODE COMMAND... : cmig-node COMMAND of this node, in the background
start() {
    local node=$1
    shift
    "$CMIG_BIN/cmig-node" "$@" --config /dev/null --dir "$BATS_FILE_TMPDIR/$node" --name "$node" \
        --listen "$(cat "$BATS_FILE_TMPDIR/$node.addr")" --resp "${RESP_OF[$node]:-off}" --policy cost \
        >>"$BATS_FILE_TMPDIR/$node.log" 2>&1 </dev/null 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/$node.pid"
    wait_for 20 cmig "$node" status
}

stop() {
    local pid
    pid=$(cat "$BATS_FILE_TMPDIR/$1.pid")
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

# wait_for SECONDS COMMAND...
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "gave up waiting for: $*"; tail -20 "$BATS_FILE_TMPDIR"/*.log; return 1; }
        sleep 0.1
    done
}

cmig() {
    local node=$1
    shift
    CMIG_SOCKET=$BATS_FILE_TMPDIR/$node/node.sock "$CMIG_BIN/cmig" "$@"
}

sees() { [ "$(cmig "$1" peers --json | jq '.peers | length')" -ge "$2" ]; }
# has NODE KEY MEMBER SCORE : does this node read it so?
has() { cmig "$1" registry get "$2" --json | jq -e --arg m "$3" --argjson s "$4" '.members[] | select(.member == $m and .score == $s)'; }
has_not() { cmig "$1" registry get "$2" --json | jq -e --arg m "$3" '[.members[] | select(.member == $m)] == []'; }

# resp COMMAND... : one command to the Redis port of a; the reply, raw
resp() {
    local word text="*$#"$'\r\n'
    for word in "$@"; do text+="\$${#word}"$'\r\n'"$word"$'\r\n'; done
    exec 9<>"/dev/tcp/${RESP_OF[a]%:*}/${RESP_OF[a]#*:}"
    printf %s "$text" >&9
    timeout 0.5 cat <&9 || true # the connection stays open
    exec 9>&-
}

find_programs() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
    declare -gA RESP_OF=()
    [ ! -f "$BATS_FILE_TMPDIR/resp" ] || RESP_OF[a]=$(cat "$BATS_FILE_TMPDIR/resp")
}

setup_file() {
    find_programs
    local net="127.$((RANDOM % 254 + 1)).$((RANDOM % 254 + 1))" number=1 node invitation
    for node in a b c; do echo "$net.$((number++)):7421" >"$BATS_FILE_TMPDIR/$node.addr"; done
    echo "$net.1:6379" >"$BATS_FILE_TMPDIR/resp"
    RESP_OF[a]=$net.1:6379
    "$CMIG_BIN/cmig-node" init --config /dev/null --dir "$BATS_FILE_TMPDIR/a" >/dev/null 2>&1
    start a start
    for node in b c; do
        invitation=$("$CMIG_BIN/cmig-node" invite --dir "$BATS_FILE_TMPDIR/a" 2>/dev/null | grep -o 'cmig://[^ ]*' | head -1)
        start "$node" join "$invitation"
    done
    for node in a b c; do wait_for 20 sees "$node" 2; done
}

teardown_file() {
    local node
    for node in a b c; do kill "$(cat "$BATS_FILE_TMPDIR/$node.pid")" 2>/dev/null || true; done
}

setup() { find_programs; }

@test "set on one node, read on another, seen by a watch on the third" {
    "$CMIG_BIN/cmig" registry watch models --socket "$BATS_FILE_TMPDIR/c/node.sock" --json \
        >"$BATS_TEST_TMPDIR/seen" 3>&- &
    watch=$!
    wait_for 10 sh -c "'$CMIG_BIN/cmig' status --json --socket '$BATS_FILE_TMPDIR/c/node.sock' | jq -e '.dht.watches == 1'"
    run cmig a registry set models resnet 0.93
    [ "$status" -eq 0 ]
    [[ "$output" == "written, and given to 2 other nodes" ]]
    wait_for 5 has b models resnet 0.93
    wait_for 5 has c models resnet 0.93
    cmig b registry set models resnet 0.95
    cmig b registry set models bert 2
    wait_for 5 has a models resnet 0.95
    [ "$(cmig a registry get models --json | jq -r '[.members[].member] | join(" ")')" = "bert resnet" ]
    [ "$(cmig a registry get models --low --limit 1 --json | jq -r '[.members[].member] | join(" ")')" = resnet ]
    cmig c registry rm models bert
    wait_for 5 has_not a models bert
    wait_for 5 jq -se 'any(.member == "resnet" and .score == 0.95) and any(.member == "bert" and .removed)' "$BATS_TEST_TMPDIR/seen"
    kill -INT "$watch"
    wait "$watch" || [ $? -eq 130 ]
}

@test "what was set survives restarts, of one node and of all" {
    cmig b registry set kept here 7
    stop b
    start b start
    wait_for 20 has b kept here 7
    local node
    for node in a b c; do stop "$node"; done
    for node in a b c; do start "$node" start; done
    for node in a b c; do wait_for 30 has "$node" kept here 7; done
}

@test "scores of all kinds, and words that are none" {
    cmig a registry set odd low -- -1.5e300
    cmig a registry set odd high inf
    [ "$(cmig a registry get odd --json | jq -c '[.members[] | [.member, .score]]')" = '[["high","inf"],["low",-1.5e+300]]' ]
    for score in nan '' x 1x; do
        run cmig a registry set odd bad "$score"
        [ "$status" -eq 2 ]
    done
    run cmig a registry rm odd nobody
    [ "$status" -eq 3 ]
    run cmig a registry set cmig:odd bad 1
    [ "$status" -eq 1 ]
    run cmig a registry get cmig:odd
    [ "$status" -eq 1 ]
    run cmig a registry set "$(printf 'x%.0s' {1..1025})" bad 1
    [ "$status" -eq 1 ]
    run cmig a registry get odd --by score --low --limit 0
    [ "$status" -eq 1 ]
}

@test "why and get say who provides an object, by a policy" {
    head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/file"
    digest=$(cmig a put "$BATS_TEST_TMPDIR/file")
    candidates() { [ "$(cmig c why "$digest" --json | jq '.candidates | length')" -eq "$1" ]; }
    wait_for 10 candidates 1
    cmig b get "$digest" --policy nearest -o "$BATS_TEST_TMPDIR/copy"
    cmp "$BATS_TEST_TMPDIR/file" "$BATS_TEST_TMPDIR/copy"
    wait_for 10 candidates 2
    run cmig c why "$digest" --policy '0.6*cost+0.3*score+0.1*version'
    [ "$status" -eq 0 ]
    [[ "$output" == *"policy: 0.3*score+0.1*version+0.6*cost"* ]]
    [ "$(cmig c why "$digest" --policy version --json | jq -r '.candidates[0] | [.name, .chosen, .rank] | @csv')" = '"b",true,1' ]
    cmig c why "$digest" --json | jq -e '.candidates | all(.cost > 0 and .value > 0 and .measured.rtt_ms >= 0)'
    [ "$(cmig b why "$digest" --json | jq -r '[.candidates[] | select(.chosen) | .name] | join(" ")')" = b ] # it is here
    [ "$(cmig c registry get "cmig:object:$digest" --json | jq -r '[.members[].name] | sort | join(" ")')" = "a b" ]
    run cmig c why "$digest" --policy cheap
    [ "$status" -eq 1 ]
    [[ "$output" == *"'cheap' is none of score, version, cost, nearest, money"* ]]
}

@test "Redis clients and the command line see the same sets" {
    [[ "$(resp ZADD shared 4 by-redis)" == ":1"* ]]
    wait_for 5 has c shared by-redis 4
    cmig c registry set shared by-hand 5
    wait_for 5 has a shared by-hand 5
    [[ "$(resp ZREVRANGE shared 0 -1)" == *by-hand*by-redis* ]]
}
