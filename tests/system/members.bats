#!/usr/bin/env bats
# Who belongs to the mesh: invitations, refusals, revocation (faults 24, 58, 84, 86).
load common

setup() { need_root; }

@test "five nodes join one after another, each by a single-use invitation" {
    mesh none n1 n2 n3 n4 n5
    for node in n1 n2 n3 n4 n5; do [ "$(lab_peer_count $node)" -eq 4 ]; done
    # By another member than the first, too.
    lab_node n6
    lab_link n6 n3
    lab_link n6 n1
    lab_join n6 n3
    lab_wait 20 lab_sees n6 1
}

@test "a used, an expired and a mistyped invitation are refused alike, faults 86" {
    mesh none a b
    lab_node c
    lab_link c a
    lab_link c b
    refused() {
        run lab_in c timeout 30 "$CMIG_BIN/cmig-node" join "$1" --dir "$LAB_DIR/c" --listen "${LAB_ADDR[c]}:7421"
        [ "$status" -ne 0 ] && [ "$status" -ne 124 ]
        [[ "$output" == *"invitation"* ]]
        echo "$output" | tail -1 | sed 's/^.*cmig-node: //' >>"$LAB_DIR/refusals"
    }
    used=$(lab_invite a)
    lab_node d
    lab_link d a
    lab_daemon d join "$used"
    refused "$used"
    late=$(lab_invite a --ttl 1s)
    sleep 1.5
    refused "$late"
    good=$(lab_invite a)
    last=${good: -1}
    [ "$last" = 0 ] && typo="${good%?}1" || typo="${good%?}0"
    refused "$typo"
    [ "$(sort -u "$LAB_DIR/refusals" | wc -l)" -eq 1 ]
    # What is cut short is not even tried.
    run lab_in c "$CMIG_BIN/cmig-node" join "${good%???}" --dir "$LAB_DIR/c"
    [ "$status" -ne 0 ]
    # The good one still is.
    lab_daemon c join "$good"
}

@test "a revoked node is cut off within 5 s and finds no peer again" {
    mesh none a b c
    victim=$(lab_cmig c status --json | jq -r .node)
    start=$SECONDS
    lab_in a "$CMIG_BIN/cmig-node" revoke "$victim" --dir "$LAB_DIR/a"
    alone() { [ "$(lab_peer_count c)" -eq 0 ]; }
    lab_wait 5 alone
    [ $((SECONDS - start)) -le 6 ]
    for node in a b; do [ "$(lab_peer_count $node)" -eq 1 ]; done
    # It tries, again and after a restart, and stays alone; what it asks for does not arrive.
    echo secret >"$LAB_DIR/secret"
    digest=$(lab_cmig a put "$LAB_DIR/secret")
    lab_stop c
    lab_start c
    for _ in 1 2 3 4 5 6; do
        sleep 1
        alone
    done
    run timeout 60 "$CMIG_BIN/cmig" --socket "$LAB_DIR/c/node.sock" get "$digest" -o "$LAB_DIR/stolen"
    [ "$status" -ne 0 ]
    [ ! -e "$LAB_DIR/stolen" ]
    # A member that was away when it happened hears of it.
    lab_stop b
    lab_start b
    lab_wait 10 lab_sees b 1
    [ "$(lab_peer_count c)" -eq 0 ]
}

@test "a node of another cluster is not let in, faults 84" {
    mesh none a b
    lab_node x
    lab_link x a
    lab_found x
    run lab_in x "$CMIG_BIN/cmig-node" join "$(lab_invite a)" --dir "$LAB_DIR/x" --socket "$LAB_DIR/x/other.sock"
    [ "$status" -ne 0 ]
    lab_stop x
    lab_start x --peers "${LAB_ADDR[a]}:7421"
    sleep 3
    [ "$(lab_peer_count x)" -eq 0 ]
    [ "$(lab_peer_count a)" -eq 1 ]
}

@test "silent and slow strangers are closed by the deadline, others go on, faults 24" {
    mesh none a b
    # One says nothing at all, the other a byte now and then of a frame that never ends.
    lab_in a bash -c '
        trap "" PIPE
        exec 3<>/dev/tcp/'"${LAB_ADDR[a]}"'/7421 4<>/dev/tcp/'"${LAB_ADDR[a]}"'/7421
        for i in 1 2 3 4 5 6 7; do printf "\\0" >&3 2>/dev/null || true; sleep 1; done
        timeout 1 cat <&3 >/dev/null && timeout 1 cat <&4 >/dev/null'
    lab_sees a 1
}

@test "a second daemon on the same state says who has it, faults 58" {
    mesh none a
    run lab_in a "$CMIG_BIN/cmig-node" start --dir "$LAB_DIR/a" --listen 127.0.0.1:7999 --socket "$LAB_DIR/other.sock"
    [ "$status" -ne 0 ]
    [[ "$output" == *"in use by pid ${LAB_PID[a]}"* ]]
    lab_cmig a status
}
