#!/usr/bin/env bats
# Containers on one node, and the daemon's death beside them.
load common

setup() { need_containers; }

@test "run, ps, logs, stop and rm" {
    mesh none a
    counter_image
    lab_cmig a image import --name counter:1 "$LAB_DIR/image.tar"
    lab_cmig a image ls | grep counter:1
    lab_cmig a run --name talker -e GREETING=hi counter:1 -- sh -c 'echo "$GREETING there"; echo oops >&2; sleep 60'
    said() { lab_cmig a logs talker | grep -q "hi there"; }
    lab_wait 5 said
    lab_cmig a logs talker | grep -q oops
    is_running a talker
    lab_cmig a stop -t 1 talker
    [ "$(state_of a talker)" = stopped ]
    lab_cmig a rm talker
    [ -z "$(state_of a talker)" ]
    lab_cmig a run --name short counter:1 -- sh -c 'exit 7'
    ended() { [ "$(lab_cmig a ps -a --json | jq '.containers[] | select(.name == "short").exit_code')" = 7 ]; }
    lab_wait 5 ended
}

@test "volumes keep what is written, read-only ones refuse it" {
    mesh none a
    counter_image
    lab_cmig a image import --name counter:1 "$LAB_DIR/image.tar"
    guid=$(new_guid)
    lab_cmig a run --name w -v "$guid:/data" counter:1 -- sh -c 'echo kept >/data/file'
    lab_wait 5 test -s "$LAB_DIR/a/volumes/$guid/file"
    stopped() { [ "$(state_of a w)" = exited ]; }
    lab_wait 5 stopped
    lab_cmig a run --name r -v "$guid:/data:ro" counter:1 -- sh -c 'cat /data/file; echo no >/data/file || echo refused'
    refused() { lab_cmig a logs r | grep -q refused; }
    lab_wait 5 refused
    lab_cmig a logs r | grep -q kept
    [ "$(cat "$LAB_DIR/a/volumes/$guid/file")" = kept ]
}

@test "after a SIGKILL of the daemon its container still runs, and ps says so" {
    mesh none a
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_kill a
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    lab_start a
    is_running a counter
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/a/volumes/$guid/numbers"
    lab_cmig a stop -t 1 counter
    [ "$(state_of a counter)" = stopped ]
}

@test "a graceful stop leaves containers running too" {
    mesh none a
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_stop a
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    lab_start a
    is_running a counter
}
