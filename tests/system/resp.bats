#!/usr/bin/env bats
# The RESP gateway: the same answers as redis-server, durable before they are given, the same sets at every node
# (faults 90, 92).
load common

setup() {
    need_root
    command -v redis-server >/dev/null || skip "needs redis-server: tools/setup installs it"
}

PORT=7379
redis() { lab_in "$1" redis-cli -p $PORT "${@:2}"; }
answers() { [ "$(redis "$1" PING 2>/dev/null)" = PONG ]; }
start_resp() {
    lab_start "$1" --resp 127.0.0.1:$PORT
    lab_wait 10 answers "$1"
}

# A mesh of nodes that all have the gateway: resp_mesh a b
resp_mesh() {
    local node
    mesh none "$@"
    for node in "$@"; do
        lab_stop "$node"
        start_resp "$node"
    done
    for node in "$@"; do lab_wait 20 lab_sees "$node" $(($# - 1)); done
}

# The set has these members at the node: members NODE SET "a b c"
members() { [ "$(redis "$1" ZRANGE "$2" 0 -1 | tr '\n' ' ')" = "$3 " ]; }

@test "18,000 random commands are answered as redis-server answers them" {
    resp_mesh a
    lab_in a redis-server --port 7380 --bind 127.0.0.1 --save "" --dir "$LAB_DIR" 3>&- >"$LAB_DIR/redis.log" &
    CLIENT_PID=$!
    real() { lab_in a redis-cli -p 7380 "$@"; }
    is_up() { [ "$(real PING 2>/dev/null)" = PONG ]; }
    lab_wait 10 is_up
    for seed in 1 2 3 4 5 6; do
        members=$((seed % 3 ? 12 : 1000))
        awk -v seed=$seed -v count=3000 -v members=$members -f "$BATS_TEST_DIRNAME/resp_commands.awk" >"$LAB_DIR/commands"
        redis a --no-raw <"$LAB_DIR/commands" >"$LAB_DIR/ours"
        real --no-raw <"$LAB_DIR/commands" >"$LAB_DIR/theirs"
        [ "$(wc -l <"$LAB_DIR/theirs")" -gt 3000 ]
        diff "$LAB_DIR/ours" "$LAB_DIR/theirs"
    done
}

@test "what is written at one node is seen at the others, and a removal too" {
    resp_mesh a b c
    [ "$(redis a ZADD jobs 1 one 2 two)" = 2 ]
    lab_wait 5 members b jobs "one two"
    lab_wait 5 members c jobs "one two"
    [ "$(redis c ZADD jobs 0 zero)" = 1 ]
    lab_wait 5 members a jobs "zero one two"
    [ "$(redis b ZREM jobs one)" = 1 ]
    lab_wait 5 members a jobs "zero two"
    [ "$(redis a DEL jobs)" = 1 ]
    lab_wait 5 members c jobs ""
    [ "$(redis c ZADD jobs 5 five)" = 1 ]
    lab_wait 5 members b jobs "five"
}

@test "an acknowledged write survives SIGKILL" {
    resp_mesh a
    for i in $(seq 1 200); do echo "ZADD kept $i member$i"; done | redis a >"$LAB_DIR/replies"
    lab_kill a
    [ "$(sort -u "$LAB_DIR/replies")" = 1 ]
    start_resp a
    [ "$(redis a ZCARD kept)" = "$(wc -l <"$LAB_DIR/replies")" ]
    [ "$(redis a ZSCORE kept member200)" = 200 ]
}

@test "messages reach subscribers at other nodes, once" {
    resp_mesh a b
    redis b SUBSCRIBE news 3>&- >"$LAB_DIR/heard" &
    CLIENT_PID=$!
    subscribed() { [ "$(wc -l <"$LAB_DIR/heard")" -ge 3 ]; }
    lab_wait 5 subscribed
    sleep 1
    [ "$(redis a PUBLISH news hello)" = 0 ]
    heard() { grep -q hello "$LAB_DIR/heard"; }
    lab_wait 5 heard
    sleep 1
    [ "$(grep -c hello "$LAB_DIR/heard")" = 1 ]
}

@test "a checkpoint's providers are a view" {
    resp_mesh a b
    head -c 1M /dev/urandom >"$LAB_DIR/file"
    digest=$(lab_cmig a put "$LAB_DIR/file")
    id=$(lab_cmig a status --json | jq -r .node)
    provided() { [ "$(redis b ZRANGE "cmig:object:$digest" 0 -1)" = "$id" ]; }
    lab_wait 5 provided
    run redis b ZADD "cmig:object:$digest" 1 me
    [[ $output == *READONLY* ]]
}

@test "redis-cli --scan and redis-benchmark work" {
    resp_mesh a
    for i in $(seq 1 100); do echo "ZADD set:$i 1 a"; done | redis a >"$LAB_DIR/replies"
    [ "$(redis a --scan --pattern 'set:*' | sort -u | wc -l)" = 100 ]
    lab_in a redis-benchmark -p $PORT -n 2000 -r 1000 -P 16 -q ZADD bench __rand_int__ m >"$LAB_DIR/bench"
    lab_in a redis-benchmark -p $PORT -n 2000 -q -t ping,zadd,zpopmin >>"$LAB_DIR/bench"
    grep -q 'requests per second' "$LAB_DIR/bench"
    [ "$(grep -ci error "$LAB_DIR/bench")" = 0 ]
}

@test "HTTP on the port is closed without an answer, faults 90" {
    resp_mesh a
    run lab_in a curl -s -m 5 -d x http://127.0.0.1:$PORT/
    [ "$status" = 52 ] || [ "$status" = 56 ] # an empty reply, or a reset
    [ -z "$output" ]
    grep -q 'speaks HTTP or TLS' "$LAB_DIR/a.log"
    answers a
}
