#!/usr/bin/env bats
bats_require_minimum_version 1.5.0
# The README's first command, with what it promises.
load common

setup() { need_containers; }

@test "the demo moves its container, keeps every number, and B helps" {
    run --separate-stderr "$ROOT/tools/demo" --json
    [ "$status" -eq 0 ]
    result=${lines[${#lines[@]} - 1]}
    jq -e '.ok and .missing == 0 and .duplicated == 0 and .downtime_ms > 0 and .total_ms > .downtime_ms
           and (.bytes | has("layers") and has("volumes") and has("checkpoint")) and .bytes_by_peer.b > 0' <<<"$result"
    # It leaves nothing behind.
    ! ip netns list | grep -q "^demo-"
    ! grep -q /cmig-demo- /proc/self/mountinfo
}

@test "the demo cleans up after Ctrl-C" {
    # In a session of its own, so that the signal reaches what a terminal's would.
    setsid env --default-signal=INT "$ROOT/tools/demo" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
    demo=$!
    lab_wait 60 grep -q 'counts ten times' "$BATS_TEST_TMPDIR/out"
    kill -INT -- "-$demo"
    code=0
    wait $demo || code=$?
    [ "$code" -eq 130 ]
    ! ip netns list | grep -q "^demo-$demo"
    ! grep -q /cmig-demo- /proc/self/mountinfo
}
