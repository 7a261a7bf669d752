#!/usr/bin/env bats
# Nodes that lie, among honest ones: what is fetched is right, liars are named, nobody waits long (faults 21, 22, 30, 33 to 37).
load common

MIBS=16
HONEST=(a b c d e f)

setup() {
    need_root
    [ -x "$CMIG_BIN/cmig-lab-adversary" ] || skip "needs cmig-lab-adversary, which the build makes"
}

# A seed and six others on links of 100 Mbit/s.
honest_mesh() {
    local node
    lab_init liars
    lab_net_begin
    for node in seed "${HONEST[@]}" "$@"; do lab_node "$node"; done
    lab_net rate all up=100mbit down=100mbit
    lab_net set all all delay=2ms
    lab_found seed
    for node in "${HONEST[@]}"; do lab_join "$node" seed; done
    for node in seed "${HONEST[@]}"; do lab_wait 30 lab_sees "$node" ${#HONEST[@]}; done
}

# liar NODE LIE: it joins, as any node does
liar() {
    local bin=$LAB_DIR/liars
    mkdir -p "$bin"
    ln -sf "$CMIG_BIN/cmig" "$bin/cmig"
    ln -sf "$CMIG_BIN/cmig-lab-adversary" "$bin/cmig-node"
    local invitation
    invitation=$(lab_invite seed)
    CMIG_BIN=$bin CMIG_LIE=$2 lab_daemon "$1" join "$invitation"
    for node in seed "${HONEST[@]}"; do lab_wait 30 lab_linked "$node" "$1"; done
}
lab_linked() { lab_cmig "$1" peers --json | jq -e --arg name "$2" '.peers[] | select(.name == $name and .state == "up")'; }

new_object() {
    head -c ${MIBS}M /dev/urandom >"$LAB_DIR/file"
    digest=$(lab_cmig seed put "$LAB_DIR/file")
}

# All honest nodes fetch it at once. How long that took is in `took`.
all_fetch() {
    local node begin=$EPOCHREALTIME getters=() getter
    for node in "${HONEST[@]}"; do
        timeout 120 "$CMIG_BIN/cmig" --socket "$LAB_DIR/$node/node.sock" get "$digest" -o "$LAB_DIR/$node/back" &
        getters+=($!)
    done
    for getter in "${getters[@]}"; do wait "$getter"; done
    took=$(echo "$EPOCHREALTIME - $begin" | bc)
    for node in "${HONEST[@]}"; do cmp "$LAB_DIR/file" "$LAB_DIR/$node/back"; done
}

named() { cat "$LAB_DIR"/{a,b,c,d,e,f}.log | grep "gave wrong bytes" | grep -c "node=\"$1 "; }

nobody_honest_is_named() {
    local node
    for node in seed "${HONEST[@]}"; do [ "$(named "$node")" -eq 0 ]; done
}

# three_lie LIE LIE LIE: of ten nodes three have the object, and lie
three_lie() {
    local i without
    honest_mesh x1 x2 x3
    new_object
    all_fetch
    without=$took
    for i in 1 2 3; do liar "x$i" "${!i}"; done
    new_object
    for i in 1 2 3; do lab_cmig "x$i" get "$digest" -o /dev/null; done
    all_fetch
    echo "# without liars $without s, among $* $took s: goodput $(echo "scale=2; $without / $took" | bc)" >&3
    nobody_honest_is_named
}

@test "three of ten give wrong bytes, at wrong places: they are named, faults 33 and 34" {
    three_lie bytes index bytes
    [ "$(named x1)" -gt 0 ]
    [ "$(named x2)" -gt 0 ]
    [ "$(named x3)" -gt 0 ]
}

@test "three of ten give too little, too much, and frames that never end: they are named, faults 30 and 33" {
    three_lie short long bomb
    [ "$(named x1)" -gt 0 ]
    [ "$(named x2)" -gt 0 ]
    [ "$(named x3)" -gt 0 ]
}

@test "three of ten stall, claim what they do not give, and say that it is gone, faults 35" {
    three_lie stall claims gone
}

@test "three of ten claim everything and give nothing, faults 35" {
    three_lie claims claims claims
}

@test "three of ten give a little and stall, faults 35" {
    three_lie stall stall stall
}

@test "three of ten flood, deal what nobody asked for, and send what is no message, faults 21, 22 and 37" {
    three_lie flood dealt malformed
}

@test "all who have it lie but one, faults 36" {
    honest_mesh x1 x2 x3
    new_object
    for i in 1 2 3; do liar "x$i" bytes; done
    for i in 1 2 3; do lab_cmig "x$i" get "$digest" -o /dev/null; done
    HONEST=(a)
    all_fetch
    nobody_honest_is_named
}
