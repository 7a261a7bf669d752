#!/usr/bin/env bats
# What the command line promises without a daemon: usage, help, exit codes.
bats_require_minimum_version 1.5.0

setup() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
    export CMIG_SOCKET=$BATS_TEST_TMPDIR/none.sock
}

cmig() { "$CMIG_BIN/cmig" "$@"; }
digest=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

@test "without a daemon every command says how to start one, with exit code 4" {
    for words in status peers ls ps "volume ls" "image ls" "rm x" "stop x" "logs x" "why $digest" "pin $digest" "run app:1"; do
        run cmig $words
        [ "$status" -eq 4 ]
        [[ "$output" == *"$CMIG_SOCKET: start it with 'cmig-node start', or give --socket"* ]]
    done
}

@test "errors are JSON on standard output with --json" {
    run --separate-stderr cmig status --json
    [ "$status" -eq 4 ]
    [ "$(jq -r .error.code <<<"$output")" = unavailable ]
    [ -z "$stderr" ]
}

@test "--socket wins over the environment" {
    run cmig status --socket /nowhere/x.sock
    [[ "$output" == */nowhere/x.sock* ]]
    run cmig status --socket=/nowhere/y.sock
    [[ "$output" == */nowhere/y.sock* ]]
}

@test "wrong usage is exit code 2 and names what is wrong" {
    while IFS='|' read -r words want; do
        run cmig $words
        [ "$status" -eq 2 ]
        [[ "$output" == *"$want"* ]]
    done <<END
frob|no command 'frob'
image|image import
image frob|image import
get|something is missing
get x|no digest
get sha256:E3|no digest
status x|'x' is too much
status --frob|'--frob' is no flag
ps --all=1|takes no value
logs --tail x c|whole number
logs --tail|needs a value
logs --tail -1 c|whole number
stop -t99999 c|from 0 to 3600
migrate c|--to NODE
run -v nowhere app|no volume
run -v 6f1c0d5e-0000-4000-8000-000000000001:rel app|no volume
run -e NOVALUE app|NAME=VALUE
image import --format zip x|oci, docker, rootfs or auto
END
}

@test "what follows the image is the container's, flags too" {
    run cmig run app:1 sh --frob --json
    [ "$status" -eq 4 ]
    run cmig run app:1 -- sh --help
    [ "$status" -eq 4 ]
    run cmig run --frob app:1
    [ "$status" -eq 2 ]
}

@test "every command has a help with an example" {
    while read -r command; do
        run cmig $command --help
        [ "$status" -eq 0 ]
        [[ "$output" == "usage: cmig $command"* && "$output" == *examples:* ]]
        [ "$(cmig help $command)" = "$output" ]
    done < <(cmig help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\( [a-z]\+\)\?\)  .*/\1/p' | grep -v help)
}

@test "a failed get leaves no file" {
    run cmig get $digest -o "$BATS_TEST_TMPDIR/out"
    [ "$status" -eq 4 ]
    [ -z "$(ls "$BATS_TEST_TMPDIR")" ]
}
