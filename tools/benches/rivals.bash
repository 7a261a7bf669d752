# shellcheck shell=bash
# shellcheck disable=SC2154 # dir, python, benches are of common.bash
# Rivals of cmig, each started in a place of its own and asked in the same way. Sourced after common.bash.
#
# A place is a name. Where it is, the benchmark says by these, which here are for places on one loopback:
#   at PLACE COMMAND...        run in it
#   spawn_at PLACE COMMAND...  the same in the background, its pid in $!
#   address_of PLACE, folder_of PLACE, offset_of PLACE (added to ports, where places share an address)
# Files come from $RIVAL_FILE, and the moment at which a place has it goes to $dir/ends.PLACE.

at() { shift && "$@"; }
spawn_at() {
    shift
    "$@" <&0 &
}
address_of() { echo 127.0.0.1; }
folder_of() { mkdir -p "$dir/$1" && echo "$dir/$1"; }
offset_of() { echo 0; }

wait_for() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "gave up waiting for: $*"
        sleep 0.05
    done
}
had_by() { echo "$EPOCHREALTIME" >"$dir/ends.$1"; }
# The last of those who were to have it.
last_end() {
    local place
    for place in "$@"; do cat "$dir/ends.$place"; done | sort -n | tail -1
}

# ---- BitTorrent ----

# The torrent of $RIVAL_FILE and a tracker at the place.
torrent_begin() {
    local url
    url="http://$(address_of "$1"):6969/announce"
    spawn_at "$1" "$python" "$benches/tracker.py" "$(address_of "$1")" 6969
    pids+=($!)
    "$python" "$benches/rival_libtorrent.py" make "$RIVAL_FILE" "$url" "$dir/torrent"
}

# libtorrent_begin SEED RECEIVER...: they are up and wait; their pids are in RIVAL_PIDS, the seed's first
libtorrent_begin() {
    local seed=$1 place addresses=()
    shift
    torrent_begin "$seed"
    RIVAL_PIDS=()
    spawn_at "$seed" "$python" "$benches/rival_libtorrent.py" seed "$dir/torrent" "$RIVAL_FILE" "$(address_of "$seed")" >"$dir/out.$seed"
    RIVAL_PIDS+=($!)
    wait_for 20 grep -q ready "$dir/out.$seed"
    addresses=("$(address_of "$seed")")
    for place in "$@"; do
        libtorrent_join "$place" "${addresses[@]}"
        addresses+=("$(address_of "$place")") # of each two the later one connects: at once, both would be refused
    done
    pids+=("${RIVAL_PIDS[@]}")
    for place in "$@"; do wait_for 20 grep -q ready "$dir/out.$place"; done
    sleep 1
}
libtorrent_join() { # PLACE ADDRESS...
    local place=$1
    shift
    rm -f "$dir/in.$place" && mkfifo "$dir/in.$place"
    spawn_at "$place" "$python" "$benches/rival_libtorrent.py" get "$dir/torrent" "$(folder_of "$place")" "$(address_of "$place")" \
        "$@" <>"$dir/in.$place" >"$dir/out.$place"
    RIVAL_PIDS+=($!)
}
libtorrent_go() { echo go >"$dir/in.$1"; }
libtorrent_has() { # PLACE BEGIN
    wait_for 300 grep -q '^done' "$dir/out.$1"
    awk -v b="$2" '/^done/ { printf "%.4f\n", b + $2 }' "$dir/out.$1" >"$dir/ends.$1"
}

aria2_flags=(--no-conf --quiet --enable-rpc --enable-dht=false --bt-enable-lpd=false --file-allocation=none --seed-ratio=0.0
    --bt-max-peers=0 --bt-request-peer-speed-limit=1000M --bt-tracker-interval=1 --check-integrity=true)
aria2_call() { # PLACE METHOD PARAMETERS
    at "$1" curl -sS -d "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"aria2.$2\", \"params\": [$3]}" \
        "http://127.0.0.1:$((6800 + $(offset_of "$1")))/jsonrpc"
}
aria2_add() { # on standard input of curl, as the torrent is long
    { printf '{"jsonrpc": "2.0", "id": 1, "method": "aria2.addTorrent", "params": ["' && base64 -w0 "$dir/torrent" && printf '"]}'; } |
        at "$1" curl -sS -d @- "http://127.0.0.1:$((6800 + $(offset_of "$1")))/jsonrpc" >/dev/null
}
aria2_complete() { [ "$(aria2_call "$1" tellActive '["completedLength"]' | jq '.result[0].completedLength | tonumber')" = "$(stat -c %s "$RIVAL_FILE")" ]; }

aria2_join() { # PLACE FOLDER
    spawn_at "$1" aria2c "${aria2_flags[@]}" --rpc-listen-port=$((6800 + $(offset_of "$1"))) --listen-port=$((6881 + $(offset_of "$1"))) \
        --bt-external-ip="$(address_of "$1")" --dir="$2" >"$dir/log.$1" 2>&1
    RIVAL_PIDS+=($!)
}
aria2_begin() { # SEED RECEIVER...
    local seed=$1 place
    shift
    torrent_begin "$seed"
    RIVAL_PIDS=()
    aria2_join "$seed" "$(dirname "$RIVAL_FILE")"
    for place in "$@"; do aria2_join "$place" "$(folder_of "$place")"; done
    pids+=("${RIVAL_PIDS[@]}")
    for place in "$seed" "$@"; do wait_for 20 aria2_call "$place" getVersion ""; done
    aria2_add "$seed"
    wait_for 60 aria2_complete "$seed"
    sleep 1
}
aria2_get() {
    aria2_add "$1"
    until aria2_complete "$1" 2>/dev/null; do sleep 0.02; done
    had_by "$1"
}

# ---- a file from a server ----

# nginx_begin PLACE: it serves the folder of $RIVAL_FILE at port 17425; its processes are in RIVAL_PIDS
nginx_begin() {
    local place=$1 folder
    folder=$(dirname "$RIVAL_FILE")
    chmod 711 "$dir"
    cat >"$dir/nginx.conf" <<END
daemon off; pid $dir/nginx.pid; error_log $dir/nginx.log; worker_processes 1; user root;
events {}
http { access_log off; sendfile on; server { listen $(address_of "$place"):17425; root $folder; } }
END
    spawn_at "$place" nginx -p "$dir" -c "$dir/nginx.conf" 2>/dev/null
    pids+=($!)
    wait_for 10 at "$place" curl -sS -I "http://$(address_of "$place"):17425/"
    mapfile -t RIVAL_PIDS < <(printf '%s\n' "$!" && pgrep -P "$!")
}
curl_get() { # FROM TO FILE
    at "$2" curl -sS -o "$3" "http://$(address_of "$1"):17425/$(basename "$RIVAL_FILE")"
}

sshd_begin() { # PLACE
    local place=$1
    [ -e "$dir/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
    [ -e "$dir/user" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/user"
    cp "$dir/user.pub" "$dir/authorized"
    mkdir -p /run/sshd 2>/dev/null || true
    spawn_at "$place" "$(command -v sshd || echo /usr/sbin/sshd)" -D -f /dev/null -p 17424 -o ListenAddress="$(address_of "$place")" \
        -h "$dir/host" -o AuthorizedKeysFile="$dir/authorized" -o StrictModes=no -o PidFile=none -o UsePAM=no \
        -o Subsystem="sftp internal-sftp" 2>"$dir/sshd.log"
    RIVAL_PIDS=($!)
    pids+=($!)
    sleep 0.5
}
scp_get() { # FROM TO FILE
    at "$2" scp -q -P 17424 -i "$dir/user" -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o BatchMode=yes \
        "$(address_of "$1"):$RIVAL_FILE" "$3"
}
