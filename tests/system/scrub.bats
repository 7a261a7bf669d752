#!/usr/bin/env bats
# Bytes that rot on the disk of a node that runs are found, told, and fetched again (faults 56).
load common

setup() { need_root; }

# Overwrite some bytes in the middle of each pack of a node.
rot() {
    local pack size at
    for pack in "$LAB_DIR/$1"/store/packs/*.pack; do
        size=$(stat -c %s "$pack")
        for at in 3 5 7; do
            printf rotten | dd of="$pack" bs=1 seek=$((size * at / 10)) conv=notrunc status=none
        done
    done
}

is_whole() { lab_cmig "$1" ls --json | jq -e --arg d "$2" '.objects | any(.digest == $d)'; }

@test "a scrub finds what has rotted, and the object is fetched again" {
    mesh none a b
    head -c 8M /dev/urandom >"$LAB_DIR/file"
    digest=$(lab_cmig a put "$LAB_DIR/file")
    lab_cmig b get "$digest" -o /dev/null
    rot b
    lab_cmig b scrub --json >"$LAB_DIR/result"
    [ "$(jq .rotten "$LAB_DIR/result")" -ge 1 ]
    grep -q "stored bytes have rotted" "$LAB_DIR/b.log"
    lab_wait 20 is_whole b "$digest"
    lab_kill a
    lab_cmig b get "$digest" -o "$LAB_DIR/back"
    cmp "$LAB_DIR/file" "$LAB_DIR/back"
    [ "$(lab_cmig b scrub --status --json | jq '.repaired')" -ge 1 ]
    lab_cmig b scrub --json | jq -e '.last_rotten == 0'
}

@test "a provider whose disk has rotted is no liar: it says what it has not, and others give it" {
    mesh none a b c
    head -c 8M /dev/urandom >"$LAB_DIR/file"
    digest=$(lab_cmig a put "$LAB_DIR/file")
    lab_cmig b get "$digest" -o /dev/null
    rot b
    lab_cmig c get "$digest" -o "$LAB_DIR/back"
    cmp "$LAB_DIR/file" "$LAB_DIR/back"
    run grep "gave wrong bytes" "$LAB_DIR/c.log"
    [ "$status" -ne 0 ]
}

is_unbroken() { lab_cmig "$1" scrub --status --json | jq -e '.broken == 0'; }

@test "what has rotted and nobody else has can be removed" {
    mesh none a
    head -c 2M /dev/urandom >"$LAB_DIR/file"
    digest=$(lab_cmig a put "$LAB_DIR/file")
    rot a
    lab_cmig a scrub
    lab_cmig a scrub --status --json | jq -e '.broken == 1'
    lab_cmig a rm "$digest"
    lab_wait 20 is_unbroken a
    run lab_cmig a rm "$digest"
    [ "$status" -ne 0 ]
}
