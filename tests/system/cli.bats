#!/usr/bin/env bats
# What the command line promises: usage, help and exit codes without a daemon, then with one. Needs no root; where it is
# root, containers are left to containers.bats.
bats_require_minimum_version 1.5.0

# start_node DIR FLAGS... : a node that is a mesh of its own, on a loopback address that nobody else has
start_node() {
    local dir=$1
    shift
    "$CMIG_BIN/cmig-node" init --config /dev/null --dir "$dir" >/dev/null 2>&1
    "$CMIG_BIN/cmig-node" start --config /dev/null --dir "$dir" --name live \
        --listen "127.$((RANDOM % 254 + 1)).$((RANDOM % 254 + 1)).$((RANDOM % 254 + 1)):7421" "$@" \
        >"$dir.log" 2>&1 </dev/null 3>&- &
    NODE_PID=$!
    for _ in $(seq 100); do
        "$CMIG_BIN/cmig" status --socket "$dir/node.sock" >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$dir.log"
    return 1
}

stop_node() {
    [ -n "${NODE_PID:-}" ] || return 0
    kill "$NODE_PID" 2>/dev/null || true
    wait "$NODE_PID" 2>/dev/null || true
    NODE_PID=
}

find_programs() {
    ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    CMIG_BIN=${CMIG_BIN:-$ROOT/build/release}
}

setup_file() {
    find_programs
    start_node "$BATS_FILE_TMPDIR/n"
    echo "$NODE_PID" >"$BATS_FILE_TMPDIR/pid"
}

teardown_file() {
    NODE_PID=$(cat "$BATS_FILE_TMPDIR/pid")
    stop_node
}

setup() {
    find_programs
    export CMIG_SOCKET=$BATS_TEST_TMPDIR/none.sock
    NODE_PID=
    cd "$BATS_TEST_TMPDIR"
}

teardown() { stop_node; }

live() { export CMIG_SOCKET=$BATS_FILE_TMPDIR/n/node.sock; }

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

# ---- against one live node, started for all of these ----

@test "objects: in and out by files, pipes and devices" {
    live
    head -c 300000 /dev/urandom >blob
    digest=$(cmig put blob)
    [ "$digest" = "sha256:$(sha256sum blob | cut -d' ' -f1)" ]
    [ "$(cmig put - <blob)" = "$digest" ]
    [ "$(cat blob | cmig put - --json | jq -r .digest)" = "$digest" ]
    [ "$(curl -sS --unix-socket "$CMIG_SOCKET" -X POST -T blob http://localhost/v1/objects | jq -r .digest)" = "$digest" ]
    [ "$(curl -sS --unix-socket "$CMIG_SOCKET" --data-binary @blob http://localhost/v1/objects | jq -r .digest)" = "$digest" ]
    cmig get "$digest" | cmp - blob
    cmig get "$digest" -o copy
    cmp copy blob
    cmig get "$digest" -o /dev/null
    [ -c /dev/null ]
    [ "$(cmig get "$digest" -o copy --json | jq .size_bytes)" = 300000 ]
    cmig ls | grep -q "^$digest"
    run cmig get "$digest" -o nowhere/copy
    [ "$status" -eq 3 ]
    [[ "$output" == *nowhere/copy.part* ]]
    run cmig get "$digest" --json
    [ "$status" -eq 2 ]
    run cmig get "$digest" -o /dev/full
    [ "$status" -eq 1 ]
}

@test "pins: only of what is here, and not removed" {
    live
    digest=$(echo pinned | cmig put -)
    absent=sha256:$(printf %064d 0)
    run cmig pin "$absent"
    [ "$status" -eq 3 ]
    cmig pin "$digest"
    run cmig rm "$digest"
    [ "$status" -eq 1 ]
    [[ "$output" == *unpin* ]]
    cmig unpin "$digest"
    cmig rm "$digest"
    run cmig rm "$digest"
    [ "$status" -eq 3 ]
    [[ "$output" == *"'cmig ls'"* ]]
    [ "$(cmig why "$absent")" = "no node is known to have it" ]
}

@test "hostile digests and names end at the door" { # faults 40, 47
    live
    local bad hex
    hex=$(printf %064d 0)
    for bad in "sha1:$hex" "sha256:$hex"0 "sha256:${hex:1}" "sha256:${hex:1}A" sha256:../../x "$hex" $'sha256:\n'; do
        for command in get pin unpin why; do
            [[ $command == why && $bad != sha256:* ]] && continue # it takes other names too
            run cmig $command "$bad"
            [ "$status" -eq 2 ]
            [[ "$output" == *"no digest"* ]]
        done
    done
    run cmig rm sha256:abc
    [ "$status" -eq 2 ]
    mkdir -p fs/etc
    tar -C fs -cf fs.tar .
    for bad in ../x a/../b ..  -oProxyCommand=x $'a\nb' 'a b' a:b:c "$(printf 'a%.0s' {1..4096})" $'\xff' ''; do
        run cmig image import --name="$bad" fs.tar
        [ "$status" -eq 1 ]
        [ -n "$output" ]
        run cmig run --name="$bad" none:1
        [ "$status" -ne 0 ]
        run cmig rm "x$bad/../y"
        [ "$status" -eq 3 ] || [ "$status" -eq 1 ]
    done
    [ "$(cmig image ls --json | jq '.images | length')" = 0 ]
}

@test "images: every form comes in, goes out and comes in as the same" {
    live
    mkdir -p fs/etc layout
    echo one >fs/etc/one
    tar -C fs -cf fs.tar .
    gzip -k fs.tar
    zstd -q fs.tar
    for form in tar tar.gz tar.zst; do [ "$(cmig image import --name "$form:1" "fs.$form")" = "$form:1" ]; done
    [ "$(cmig image import --name stdin:1 - <fs.tar.gz)" = stdin:1 ]
    [ "$(cmig image ls --json | jq '[.images[].size_bytes] | unique | length')" = 1 ]
    cmig image export tar:1 -o out.tar
    cmig image rm tar:1
    [ "$(cmig image import out.tar)" = tar:1 ]
    cmig image export tar:1 | cmp - out.tar
    [ "$(cmig image export tar:1 --json -o again.tar | jq .size_bytes)" = "$(stat -c %s out.tar)" ]
    tar -C layout -xf out.tar
    [ "$(cmig image import --name dir:1 layout)" = dir:1 ]
    # a layout with two images prints both names
    jq -c '.manifests += [.manifests[0] | .annotations |= map_values("second:1")]' layout/index.json >index.json
    mv index.json layout/index.json
    run cmig image import layout
    [ "$status" -eq 0 ]
    [[ "$output" == *second:1* ]]
    [ "${#lines[@]}" = 2 ]
    cmig image import --json layout | jq -e '.others | length == 1'
    cmig image rm tar:1 tar.gz:1 tar.zst:1 stdin:1 dir:1 second:1
}

@test "images: what is none says so, and leaves none" {
    live
    head -c 5000 /dev/urandom >junk
    mkdir -p fs/etc
    head -c 100000 /dev/urandom >fs/etc/data
    tar -C fs -cf fs.tar .
    head -c 60000 fs.tar >cut.tar
    while IFS='|' read -r words want; do
        run cmig image import $words
        [ "$status" -eq 1 ]
        [[ "$output" == *"$want"* ]]
    done <<END
--name x:1 junk|not a tar archive
--name x:1 cut.tar|get the archive again
--name x:1 --format oci fs.tar|has no 'oci-layout'
--name x:1 --format docker fs.tar|has no 'manifest.json'
--name x:1 fs|must be an OCI image layout
fs.tar|--name
END
    run cmig image import --name x:1 nowhere.tar
    [ "$status" -eq 3 ]
    [ "$(cmig image ls --json | jq '.images | length')" = 0 ]
}

@test "put of what the daemon does not read for others: the client sends the bytes" {
    live
    [ "$(cmig put /proc/sys/kernel/ostype)" = "sha256:$(sha256sum /proc/sys/kernel/ostype | cut -d' ' -f1)" ]
    [ "$(exec 9<<<here; cmig put /dev/fd/9)" = "sha256:$(sha256sum <<<here | cut -d' ' -f1)" ]
}

@test "Ctrl-C: exit code 130, and nothing is left of it" {
    live
    before=$(cmig ls --json)
    run timeout -s INT 0.5 "$CMIG_BIN/cmig" put - < <(sleep 0.1; echo half; sleep 2)
    [ "$status" -eq 124 ] # timeout's own word for it
    [[ "$output" == *interrupted* ]]
    truncate -s 40G large # which the daemon reads itself
    run timeout --preserve-status -s INT 0.5 "$CMIG_BIN/cmig" put large
    [ "$status" -eq 130 ]
    run bash -c 'timeout --preserve-status -s INT 0.5 "$0" image import --name cut:1 - < <(tar -c /etc/passwd 2>/dev/null; sleep 2)' "$CMIG_BIN/cmig"
    [ "$status" -eq 130 ]
    run timeout --preserve-status -s INT 0.5 "$CMIG_BIN/cmig" get sha256:"$(printf %064d 7)" -o out
    [ "$status" -eq 130 ] || [ "$status" -eq 1 ] # nobody has it, which may be known sooner
    [ ! -e out ] && [ ! -e out.part ]
    [ "$(cmig ls --json)" = "$before" ]
    [ "$(cmig image ls --json | jq '.images | length')" = 0 ]
}

@test "progress is drawn on a terminal and nowhere else" {
    live
    command -v script >/dev/null || skip "needs script(1)"
    truncate -s 50M large
    script -qec "'$CMIG_BIN/cmig' put large" drawn >/dev/null </dev/null
    grep -aqE 'storing \[[=> ]+\] +[0-9]+%.*MiB of 50\.0 MiB' drawn
    run --separate-stderr cmig put large
    [ -z "$stderr" ]
    script -qec "'$CMIG_BIN/cmig' put large --json" plain >/dev/null </dev/null
    ! grep -aq storing plain
}

@test "--json has the fields of docs/api.md" {
    live
    cmig status --json | jq -e '[.node, .name, .cluster, .version, .uptime_s, .listen[0], .address, .peers, .dht.contacts,
        .dht.records, .store.objects, .store.bytes, .store.quota_bytes, .store.disk_free_bytes, .containers,
        .runtime.runc, .runtime.criu] | all(. != null)'
    for pair in peers:peers "image ls:images" ps:containers "volume ls:volumes" ls:objects; do
        cmig ${pair%:*} --json | jq -e ".${pair#*:} | type == \"array\""
    done
    [ "$(cmig --json put /dev/null | jq -c 'keys')" = '["chunks","digest","size_bytes"]' ]
    [ "$(cmig loglevel debug --json)" = '{"level":"debug"}' ]
    [ "$(cmig loglevel info)" = info ]
    run cmig loglevel loud
    [ "$status" -eq 1 ]
    run --separate-stderr cmig rm nobody --json
    [ "$status" -eq 3 ]
    [ "$(jq -r .error.code <<<"$output")" = not-found ]
    [[ "$(jq -r .error.remedy <<<"$output")" == *"cmig ps"* ]]
}

@test "a socket that is not ours is exit code 5, and a user's own is found" {
    live
    [ "$(id -u)" = 0 ] || skip "needs root: to be somebody else"
    mkdir -p state/cmig
    cp "$CMIG_BIN/cmig" . # the build may be where nobody else may look
    ln -s "$CMIG_SOCKET" state/cmig/node.sock
    chmod 755 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR/n"
    run setpriv --reuid=65534 --regid=65534 --clear-groups env -u CMIG_SOCKET XDG_RUNTIME_DIR="$PWD/state" ./cmig status
    chmod 700 "$BATS_FILE_TMPDIR/n"
    [ "$status" -eq 5 ]
    [[ "$output" == *"$PWD/state/cmig/node.sock"* ]]
}

@test "cmig-node: what it is asked amiss" {
    live
    node="$CMIG_BIN/cmig-node" dir=$BATS_FILE_TMPDIR/n
    [[ "$("$node" --config /dev/null --dir "$dir" invite --uses 2 2>/dev/null)" == cmig://127.* ]]
    [ "$("$node" invite --config /dev/null --dir "$dir" --json | jq .uses)" = 1 ]
    run "$node" revoke --config /dev/null --dir "$dir" live
    [ "$status" -eq 1 ]
    [[ "$output" == *itself* ]]
    run "$node" start --config /dev/null --dir "$PWD/mistyped"
    [ "$status" -eq 1 ]
    [ ! -e mistyped ]
    run "$node" start --config /dev/null --dir "$dir"
    [ "$status" -eq 1 ]
    [[ "$output" == *"in use by pid"* ]]
    run "$node" fsck --config /dev/null --dir "$dir"
    [ "$status" -eq 1 ]
    [[ "$output" == *"stop the node first"* ]]
    run "$node" --frob start
    [ "$status" -eq 2 ]
    run "$node" frob
    [ "$status" -eq 2 ]
    [[ "$output" == *"'frob'"* ]]
}

@test "a quota that is too small fails cleanly, fsck finds a flipped byte" {
    node="$CMIG_BIN/cmig-node"
    export CMIG_SOCKET=$PWD/n/node.sock
    start_node n --quota 2M
    head -c 500000 /dev/urandom >small
    digest=$(cmig put small)
    head -c 9000000 /dev/urandom >big
    run bash -c 'cat big | "$0" put -' "$CMIG_BIN/cmig"
    [ "$status" -eq 1 ]
    [[ "$output" == *quota* ]]
    piped=$output
    run cmig put big
    [ "$status" -eq 1 ]
    [ "${output//[0-9]/}" = "${piped//[0-9]/}" ]
    [ "$(cmig put big --json | jq -c '.error | keys')" = '["code","message","remedy"]' ]
    [ "$(cmig ls --json | jq '.objects | length')" = 1 ]
    cmig get "$digest" | cmp - small
    stop_node
    "$node" fsck --config /dev/null --dir n | grep -q '^sound'
    pack=$(ls n/store/packs/*.pack | head -1)
    at=$(grep -obUaP "$(head -c 8 small | od -An -tx1 | sed 's/ /\\x/g')" "$pack" | head -1 | cut -d: -f1)
    at=${at:-300000} # compressed: anywhere in the first object
    printf "\\x$(printf %02x $((0x$(od -An -tx1 -j "$at" -N 1 "$pack" | tr -d ' ') ^ 255)))" |
        dd of="$pack" bs=1 seek="$at" conv=notrunc status=none
    run "$node" fsck --config /dev/null --dir n
    [ "$status" -eq 1 ]
    [[ "$output" == *rotted* ]]
    run "$node" fsck --config /dev/null --dir n --repair
    [ "$status" -eq 1 ]
    "$node" fsck --config /dev/null --dir n | grep -q '^sound'
}

@test "a store whose disk is not mounted is left alone" {
    node="$CMIG_BIN/cmig-node"
    export CMIG_SOCKET=$PWD/n/node.sock
    start_node n
    head -c 100000 /dev/urandom | cmig put -
    stop_node
    mv n/store/packs away
    mkdir n/store/packs
    run timeout 10 "$node" start --config /dev/null --dir n
    [ "$status" -eq 1 ]
    [[ "$output" == *"its disk is not mounted, so mount it"* ]]
    run "$node" fsck --config /dev/null --dir n
    [ "$status" -eq 1 ]
    [[ "$output" == *"not mounted"* ]]
    [ -z "$(ls n/store/packs)" ]
    rmdir n/store/packs
    mv away n/store/packs
    "$node" fsck --config /dev/null --dir n | grep -q '^sound'
}

@test "run: --as wins over the image's user, also for root" {
    [ "$(id -u)" = 0 ] || skip "needs root: containers"
    command -v runc >/dev/null || skip "needs runc: tools/setup installs it"
    export CMIG_SOCKET=$PWD/n/node.sock
    start_node n
    source "$ROOT/tests/lab/image.bash"
    busybox_tree fs
    ln -s busybox fs/bin/id
    tar -C fs -cf layer.tar .
    gzip -n layer.tar # as crane writes archives
    layer=$(sha256sum layer.tar.gz | cut -d' ' -f1)
    jq -nc --arg layer "sha256:$(zcat layer.tar.gz | sha256sum | cut -d' ' -f1)" --arg arch "$(dpkg --print-architecture)" \
        '{architecture: $arch, os: "linux", config: {User: "nobody", Cmd: ["/bin/id", "-u"]},
          rootfs: {type: "layers", diff_ids: [$layer]}}' >config.json
    config=sha256:$(sha256sum config.json | cut -d' ' -f1)
    mv config.json "$config"
    mv layer.tar.gz "$layer.tar.gz"
    echo "[{\"Config\": \"$config\", \"RepoTags\": [\"app:1\"], \"Layers\": [\"$layer.tar.gz\"]}]" >manifest.json
    tar -cf image.tar manifest.json ./"$config" "$layer.tar.gz" --force-local
    [ "$(cmig image import image.tar)" = app:1 ]
    while read -r want flags; do
        name=$(cmig run $flags app:1)
        [ "$(timeout 10 "$CMIG_BIN/cmig" logs -f "$name")" = "$want" ]
        cmig rm -f "$name"
    done <<END
65534
0 --as 0
7 -u 7:8
END
    run timeout --preserve-status -s INT 0.03 "$CMIG_BIN/cmig" run --name gone app:1 /bin/sleep 60
    if [ "$status" -eq 130 ] && [[ "$output" != *gone* ]]; then
        for _ in $(seq 50); do
            [ "$(cmig ps -a --json | jq '.containers | length')" = 0 ] && break
            sleep 0.1
        done
        [ "$(cmig ps -a --json | jq '.containers | length')" = 0 ]
    fi
    cmig rm -f gone || true
    ! grep -q " $PWD/" /proc/self/mountinfo
}
