#!/usr/bin/env bats
# Containers between nodes, and what dies on the way (faults 74, 79, 80).
load common

setup() { need_containers; }

members_of() { lab_cmig "$1" registry get "cmig:object:$2" --json | jq '.members | length'; }
offers() { [ "$(members_of "$1" "$2")" -gt 0 ]; }
offers_not() { [ "$(members_of "$1" "$2")" -eq 0 ]; }

@test "a counting container moves without losing or repeating a number" {
    mesh 100mbit a b c
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to c --json >"$LAB_DIR/report"
    tail -1 "$LAB_DIR/report" | jq -e '.state == "complete" and .downtime_ms > 0 and (.phases | length) > 3'
    assert_counts_on "$LAB_DIR/c/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/c/volumes/$guid/numbers"
    is_running c counter
    [ -z "$(state_of a counter)" ]
    snapshot=$(lab_cmig c volume ls --json | jq -r --arg guid "$guid" '.volumes[] | select(.guid == $guid).snapshots[0].digest')
    lab_wait 10 offers b "$snapshot"
    # And back again, asked for at a third node, by a policy; most of it is still there.
    lab_cmig b migrate counter --from c --to a --policy 0.5*nearest+0.5*money --json >"$LAB_DIR/report"
    tail -1 "$LAB_DIR/report" | jq -e '.state == "complete" and .local_bytes > 0'
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/a/volumes/$guid/numbers"
    # The older snapshots have made way for newer ones, and nobody is sent for them any more.
    lab_wait 20 offers_not b "$snapshot"
}

@test "killing a helper in the middle of the copy does no harm" {
    mesh 50mbit a b c
    counter_image 16M
    lab_cmig b image import --name counter:1 "$LAB_DIR/image.tar"
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to c --json >"$LAB_DIR/report" &
    mover=$!
    sleep 1.5
    kill -0 $mover
    lab_kill b
    wait $mover
    assert_counts_on "$LAB_DIR/c/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/c/volumes/$guid/numbers"
}

@test "killing the destination in the middle of the copy leaves the container at the source and names the destination" {
    mesh 50mbit a b c
    counter_image 16M
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to c >"$LAB_DIR/report" 2>&1 &
    mover=$!
    sleep 1.5
    kill -0 $mover
    lab_kill c
    ! wait $mover
    grep -q 'destination c ' "$LAB_DIR/report"
    is_running a counter
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/a/volumes/$guid/numbers"
    # C comes back without a trace of it, and the next try succeeds.
    lab_start c
    lab_wait 20 lab_sees c 2
    lab_wait 20 sh -c "'$CMIG_BIN/cmig' --socket '$LAB_DIR/c/node.sock' ps -a --json | jq -e '.containers | length == 0'"
    lab_cmig a migrate counter --to c
    assert_counts_on "$LAB_DIR/c/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/c/volumes/$guid/numbers"
}

@test "a link that is down for 3 s delays the migration and nothing else" {
    mesh 50mbit a b c
    counter_image 16M
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to c --json >"$LAB_DIR/report" &
    mover=$!
    sleep 1
    kill -0 $mover
    lab_cut a c
    sleep 3
    lab_heal a c
    wait $mover
    assert_counts_on "$LAB_DIR/c/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/c/volumes/$guid/numbers"
}

@test "a restore that fails leaves the container running at the source, faults 80" {
    mesh none a c
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    # At C a program takes the place of CRIU that checks well and restores badly.
    cat >"$LAB_DIR/criu" <<'SCRIPT'
#!/bin/sh
case "$*" in *swrk*) exit 1 ;; esac
exec /opt/cmig/bin/criu "$@"
SCRIPT
    chmod +x "$LAB_DIR/criu"
    lab_stop c
    lab_start c --criu "$LAB_DIR/criu"
    lab_wait 20 lab_sees c 1
    run lab_cmig a migrate counter --to c
    [ "$status" -ne 0 ]
    is_running a counter
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/a/volumes/$guid/numbers"
    [ -z "$(state_of c counter)" ]
}

@test "killing the source's daemon while the container stands still: it is taken back after the restart" {
    mesh 10mbit a c
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to c --json >"$LAB_DIR/report" 2>&1 &
    mover=$!
    stopped() { grep -q '"difference"' "$LAB_DIR/report" || grep -q '"stop"' "$LAB_DIR/report"; }
    lab_wait 60 stopped
    lab_kill a
    run wait $mover
    lab_start a
    runs_once() { [ $(($(is_running a counter && echo 1 || echo 0) + $(is_running c counter && echo 1 || echo 0))) -eq 1 ]; }
    lab_wait 40 runs_once
    node=a
    is_running c counter && node=c
    assert_counts_on "$LAB_DIR/$node/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/$node/volumes/$guid/numbers"
}

@test "what cannot work is refused before anything stops" {
    mesh none a c
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    run lab_cmig a migrate counter --to nobody
    [ "$status" -ne 0 ] && [[ "$output" == *nobody* ]]
    run lab_cmig a migrate missing --to c
    [ "$status" -ne 0 ] && [[ "$output" == *missing* ]]
    run lab_cmig a migrate counter --to c --policy cheap
    [[ "$status" -eq 1 && "$output" == *"'cheap' is none of score, version, cost, nearest, money"* ]]
    run lab_cmig a migrate counter --to a
    [ "$status" -ne 0 ]
    run_counter c counter "$(new_guid)"
    run lab_cmig a migrate counter --to c
    [ "$status" -ne 0 ] && [[ "$output" == *counter* ]]
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
}
