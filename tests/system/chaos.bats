#!/usr/bin/env bats
# What goes wrong at random moments (tests/lab/chaos), and what needs an operator.
load common

setup() { need_containers; }

@test "daemons are killed and the link is cut at random moments: one copy runs and loses nothing" {
    run "$ROOT/tests/lab/chaos" --seed 7 --rounds 12
    echo "$output"
    [ "$status" -eq 0 ]
}

# A runc that restores nothing as long as the file "broken" is there.
breakable_runc() {
    cat >"$LAB_DIR/runc" <<SCRIPT
#!/bin/sh
case " \$* " in *" restore "*) [ ! -e "$LAB_DIR/broken" ] || exit 1 ;; esac
exec runc "\$@"
SCRIPT
    chmod +x "$LAB_DIR/runc"
    for node in a c; do
        lab_stop "$node"
        lab_start "$node" --runc "$LAB_DIR/runc"
    done
    lab_wait 20 lab_sees a 1
    lab_wait 20 lab_sees c 1
}

@test "a container that neither node can restore: it is kept, tried again at the next start, and given up by rm -f" {
    mesh none a c
    counter_image
    guid=$(new_guid)
    run_counter a counter "$guid"
    breakable_runc
    : >"$LAB_DIR/broken"
    run lab_cmig a migrate counter --to c
    [ "$status" -ne 0 ] && [[ "$output" == *"rm -f"* ]]
    [ "$(state_of a counter)" = outgoing ]
    run lab_cmig a rm counter
    [ "$status" -ne 0 ] && [[ "$output" == *"rm -f"* ]]

    rm "$LAB_DIR/broken"
    lab_kill a
    lab_start a --runc "$LAB_DIR/runc"
    lab_wait 20 is_running a counter
    assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    assert_whole "$LAB_DIR/a/volumes/$guid/numbers"

    : >"$LAB_DIR/broken"
    lab_wait 20 lab_sees a 1
    run lab_cmig a migrate counter --to c
    [ "$status" -ne 0 ] && [ "$(state_of a counter)" = outgoing ]
    run lab_cmig a rm -f counter
    [ "$status" -eq 0 ] && [[ "$output" == *"between two nodes"* ]]
    [ -z "$(state_of a counter)" ]
    [ -z "$(ls "$LAB_DIR/a/migrate" "$LAB_DIR/a/volumes" "$LAB_DIR/a/containers" | grep -v :)" ]
    # A container that runs is none of its business, and a migration under way is not given up.
    rm "$LAB_DIR/broken"
    lab_cmig a run --name counter -v "$guid:/data" counter:1
    lab_cmig a migrate counter --to c
    is_running c counter
}

@test "a disk that is full at the source: the container runs on, wherever the migration had come" {
    lab_init test
    for node in a c; do lab_node $node; done
    lab_link a c none
    mount -t tmpfs -o size=96m cmig "$LAB_DIR/a"
    lab_found a
    lab_join c a
    lab_stop a
    lab_start a --floor 0
    lab_wait 20 lab_sees a 1
    counter_image 64k
    guid=$(new_guid)
    run_counter a counter "$guid"
    for free_kib in 0 300 900 1180 1210 1240 1270 1300 1330 1360; do
        rm -f "$LAB_DIR/a/fill"
        before=$(df --output=avail -k "$LAB_DIR/a" | tail -1)
        fallocate -l $((before - free_kib))k "$LAB_DIR/a/fill"
        lab_cmig a migrate counter --to c || true
        if is_running c counter; then
            break
        fi
        [ "$(state_of a counter)" = running ]
        [ -z "$(state_of c counter)" ]
        rm -f "$LAB_DIR/a/fill"
        assert_counts_on "$LAB_DIR/a/volumes/$guid/numbers"
    done
    rm -f "$LAB_DIR/a/fill"
    is_running c counter || lab_cmig a migrate counter --to c
    assert_counts_on "$LAB_DIR/c/volumes/$guid/numbers"
}
