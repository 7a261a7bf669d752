# A mesh on one machine: nodes in network namespaces of their own. Sourced by tools/demo, tools/bench and the system tests.
# docs/lab.md tells how to use it.
#
#   lab_init NAME              begin; everything lives in $LAB_DIR and in namespaces NAME-<node>
#   lab_net_begin [SEED]       before the nodes: all of them are joined by the relay, whose links lab_net changes
#   lab_node a                 a namespace with the address of the node
#   lab_net COMMAND...         tell the relay: rate a up=100mbit down=100mbit, set a b delay=5ms loss=1%, show
#   lab_link a b 100mbit       without a relay: join two of them by a veth pair of that rate (tbf)
#   lab_cut a b / lab_heal a b drop all packets between two nodes, and let them pass again
#   lab_start a [FLAGS...]     run cmig-node in it, wait until it answers
#   lab_kill a / lab_stop a    SIGKILL, or SIGTERM and wait
#   lab_cmig a ARGS...         cmig against that node
#   lab_in a / lab_spawn a     run a command in the network of the node, or in the background, with its pid in $!
#   lab_end                    stop all that was started, remove all that was made
#
# $CMIG_BIN is the directory of the programs. Only processes and namespaces made here are touched.

LAB_NODES=()
LAB_RELAY=

lab_say() { printf '%s\n' "$*" >&2; }

lab_init() {
    LAB_NAME="$1-$$"
    LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/cmig-$1-XXXXXX")
    LAB_NODES=()
    LAB_RELAY=
    declare -gA LAB_PID=() LAB_ADDR=()
}

lab_ns() { printf '%s-%s' "$LAB_NAME" "$1"; }

lab_node() {
    local node=$1 number=$((${#LAB_NODES[@]} + 1)) ns
    ns=$(lab_ns "$node")
    ip netns add "$ns"
    LAB_NODES+=("$node")
    LAB_ADDR[$node]="10.77.0.$number"
    ip -n "$ns" link set lo up
    mkdir -p "$LAB_DIR/$node"
    if [ -n "$LAB_RELAY" ]; then lab_net_attach "$node"; else ip -n "$ns" address add "${LAB_ADDR[$node]}/32" dev lo; fi
}

# ---- joined by the relay ----

# The relay dies with this shell. It hears of its nodes one by one, at its socket.
# shellcheck disable=SC2120 # the seed may be left out
lab_net_begin() {
    "$CMIG_BIN/cmig-lab-relay" serve "$LAB_DIR/net.sock" "${1:-7421}" >>"$LAB_DIR/net.log" 2>&1 </dev/null 3>&- &
    LAB_RELAY=$!
    for _ in $(seq 100); do
        [ ! -S "$LAB_DIR/net.sock" ] || return 0
        sleep 0.02
    done
    lab_say "the relay did not start: $(tail -1 "$LAB_DIR/net.log")"
    return 1
}

lab_net() { "$CMIG_BIN/cmig-lab-relay" tell "$LAB_DIR/net.sock" "$@"; }

# TCP's congestion control is what the machine has by default: only it can say which ones a namespace may use.
lab_net_attach() {
    local node=$1 ns
    ns=$(lab_ns "$node")
    lab_net node "$node" "/run/netns/$ns" "${LAB_ADDR[$node]}"
    ip netns exec "$ns" sysctl -qw net.ipv6.conf.net0.disable_ipv6=1
    ip -n "$ns" address add "${LAB_ADDR[$node]}/24" dev net0
    ip -n "$ns" link set net0 up mtu 1500
}

# Bytes that went from a node into the network, or to another node: lab_net_sent a [b]; what came: lab_net_received a.
lab_net_sent() {
    lab_net show | jq --arg a "$1" --arg b "${2-}" 'if $b == "" then .nodes[$a] else .paths[$a][$b] end | .sent_bytes'
}
lab_net_received() { lab_net show | jq --arg a "$1" '.nodes[$a].received_bytes'; }

# ---- joined pair by pair ----

# tbf: a queue of 50 ms at the rate, so that a thin link behaves like one.
lab_shape() {
    [ "$3" = none ] && return
    tc -n "$1" qdisc replace dev "$2" root tbf rate "$3" burst 64kb latency 50ms
}

lab_link() {
    local a=$1 b=$2 rate=${3:-none} na nb
    na=$(lab_ns "$a") nb=$(lab_ns "$b")
    ip link add "to-$b" netns "$na" type veth peer name "to-$a" netns "$nb"
    ip -n "$na" link set "to-$b" up
    ip -n "$nb" link set "to-$a" up
    lab_shape "$na" "to-$b" "$rate"
    lab_shape "$nb" "to-$a" "$rate"
    ip -n "$na" route add "${LAB_ADDR[$b]}/32" dev "to-$b" src "${LAB_ADDR[$a]}"
    ip -n "$nb" route add "${LAB_ADDR[$a]}/32" dev "to-$a" src "${LAB_ADDR[$b]}"
}

lab_cut() {
    local one other
    if [ -n "$LAB_RELAY" ]; then
        lab_net cut "$1" "$2"
        return
    fi
    for one in "$1 $2" "$2 $1"; do
        other=${one#* }
        ip netns exec "$(lab_ns "${one% *}")" nft -f - <<RULES
table inet cut_$other {
    chain in { type filter hook input priority 0; iifname "to-$other" drop; }
    chain out { type filter hook output priority 0; oifname "to-$other" drop; }
}
RULES
    done
}

lab_heal() {
    if [ -n "$LAB_RELAY" ]; then
        lab_net heal "$1" "$2"
        return
    fi
    ip netns exec "$(lab_ns "$1")" nft delete table inet "cut_$2"
    ip netns exec "$(lab_ns "$2")" nft delete table inet "cut_$1"
}

# Run a command inside a node's network namespace, in this process's mount namespace.
lab_in() {
    local node=$1
    shift
    nsenter --net="/run/netns/$(lab_ns "$node")" -- "$@"
}

# Not by lab_in: $! has to be the pid of the command, not of a shell that waits for it.
lab_spawn() {
    local node=$1
    shift
    nsenter --net="/run/netns/$(lab_ns "$node")" -- "$@" <&0 3>&- &
}

lab_cmig() {
    local node=$1
    shift
    "$CMIG_BIN/cmig" --socket "$LAB_DIR/$node/node.sock" "$@"
}

# Wait until a command succeeds: lab_wait SECONDS COMMAND...
lab_wait() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            lab_say "gave up waiting for: $*"
            return 1
        fi
        sleep 0.1
    done
}

lab_flags() { printf '%s\n' --dir "$LAB_DIR/$1" --listen "${LAB_ADDR[$1]}:7421" --name "$1"; }

# lab_daemon NODE COMMAND... : cmig-node COMMAND with the node's flags, in the background
lab_daemon() {
    local node=$1 flags
    shift
    mapfile -t flags < <(lab_flags "$node")
    # Not through a function: $! has to be the daemon's own pid.
    nsenter --net="/run/netns/$(lab_ns "$node")" -- "$CMIG_BIN/cmig-node" "$@" "${flags[@]}" \
        >>"$LAB_DIR/$node.log" 2>&1 </dev/null 3>&- &
    LAB_PID[$node]=$!
    lab_wait 20 lab_cmig "$node" status || {
        lab_say "node $node did not start:"
        tail -5 "$LAB_DIR/$node.log" >&2
        return 1
    }
}

lab_start() {
    local node=$1
    shift
    lab_daemon "$node" start "$@"
}

# The first node makes the cluster, the others join through it with an invitation each.
lab_found() {
    local flags
    mapfile -t flags < <(lab_flags "$1")
    lab_in "$1" "$CMIG_BIN/cmig-node" init "${flags[@]}" >>"$LAB_DIR/$1.log" 2>&1
    lab_start "$1"
}

lab_invite() {
    local node=$1
    shift
    lab_in "$node" "$CMIG_BIN/cmig-node" invite --dir "$LAB_DIR/$node" "$@" 2>>"$LAB_DIR/$node.log" | grep -o 'cmig://[^ ]*' | head -1
}

lab_join() {
    local node=$1 through=$2
    lab_daemon "$node" join "$(lab_invite "$through")"
}

lab_peer_count() { lab_cmig "$1" peers --json | jq "[.peers[] | select(.state == \"up\")] | length"; }
lab_sees() { [ "$(lab_peer_count "$1")" -ge "$2" ]; }

lab_signal() {
    local node=$1 signal=$2 pid=${LAB_PID[$1]:-}
    [ -n "$pid" ] || return 0
    kill -s "$signal" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    unset "LAB_PID[$node]"
}
lab_kill() { lab_signal "$1" KILL; }
lab_stop() { lab_signal "$1" TERM; }

# End the containers of a node: they outlive their daemon by design.
lab_remove_containers() {
    local dir=$LAB_DIR/$1 root id
    for root in "$dir"/runc "$dir"/run/runc; do
        [ -d "$root" ] || continue
        for id in $(runc --root "$root" list -q 2>/dev/null); do
            runc --root "$root" kill "$id" KILL 2>/dev/null || true
            runc --root "$root" resume "$id" 2>/dev/null || true
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                [ "$(runc --root "$root" state "$id" 2>/dev/null | jq -r .status)" = stopped ] && break
                sleep 0.1
            done
            runc --root "$root" delete --force "$id" 2>/dev/null || true
        done
    done
}

lab_end() {
    local node mount
    [ -n "${LAB_DIR:-}" ] || return 0
    for node in "${LAB_NODES[@]}"; do lab_stop "$node"; done
    if [ -n "$LAB_RELAY" ]; then
        kill -KILL "$LAB_RELAY" 2>/dev/null || true
        wait "$LAB_RELAY" 2>/dev/null || true
        LAB_RELAY=
    fi
    for node in "${LAB_NODES[@]}"; do
        lab_remove_containers "$node"
        ip netns delete "$(lab_ns "$node")" 2>/dev/null || true
    done
    # Mounts beneath our directory, innermost first; the directory is removed only when none is left.
    while read -r mount; do umount -l "$mount" 2>/dev/null || true; done \
        < <(awk -v dir="$LAB_DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    if ! grep -q " $LAB_DIR/" /proc/self/mountinfo; then rm -rf --one-file-system "$LAB_DIR"; fi
    LAB_DIR=
}
