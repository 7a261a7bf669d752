#!/usr/bin/env bats
# A database that is written to all along moves there and back.
load common

setup() { need_containers; }

# Writes key n = n as fast as it is acknowledged, at whichever node answers; each acknowledged n goes into the file.
client() {
    local n=0 at=0 hosts=("${LAB_ADDR[a]}" "${LAB_ADDR[c]}") answer
    while :; do
        n=$((n + 1))
        until answer=$(lab_in client timeout 5 redis-cli -h "${hosts[at]}" SET "client:$n" "$n" 2>/dev/null) &&
            [ "$answer" = OK ]; do
            at=$((1 - at))
            sleep 0.02
        done
        echo "$n" >>"$LAB_DIR/acknowledged"
    done
}

@test "redis with 50 MB of keys moves A to C to A without losing an acknowledged write" {
    mesh 1gbit a b c
    lab_node client
    lab_link client a
    lab_link client c
    busybox_tree "$LAB_DIR/redis"
    host_program "$LAB_DIR/redis" redis-server
    oci_layout "$LAB_DIR/redis.tar" redis:7 '["/usr/bin/redis-server"]' "$LAB_DIR/redis"
    lab_cmig a image import --name redis:7 "$LAB_DIR/redis.tar"
    guid=$(new_guid)
    lab_cmig a run --name redis -v "$guid:/data" redis:7 -- /usr/bin/redis-server --save "" --appendonly no \
        --protected-mode no --dir /data --enable-debug-command yes --bind 0.0.0.0
    ping_a() { [ "$(lab_in client redis-cli -h "${LAB_ADDR[a]}" PING)" = PONG ]; }
    lab_wait 10 ping_a
    [ "$(lab_in client redis-cli -h "${LAB_ADDR[a]}" DEBUG POPULATE 50000 bulk 1000)" = OK ]
    client 3>&- &
    CLIENT_PID=$!
    lab_wait 10 test -s "$LAB_DIR/acknowledged"
    lab_cmig a migrate redis --to c --json | tail -1 >"$LAB_DIR/there"
    sleep 1
    lab_cmig c migrate redis --to a --json | tail -1 >"$LAB_DIR/back"
    after=$(wc -l <"$LAB_DIR/acknowledged")
    more() { [ "$(wc -l <"$LAB_DIR/acknowledged")" -gt $((after + 10)) ]; }
    lab_wait 20 more
    kill $CLIENT_PID
    wait $CLIENT_PID || true
    CLIENT_PID=
    jq -e '.state == "complete"' "$LAB_DIR/there" "$LAB_DIR/back"
    sed 's/.*/GET client:&/' "$LAB_DIR/acknowledged" | lab_in client redis-cli -h "${LAB_ADDR[a]}" >"$LAB_DIR/values"
    cmp "$LAB_DIR/acknowledged" "$LAB_DIR/values"
    [ "$(lab_in client redis-cli -h "${LAB_ADDR[a]}" DBSIZE)" -ge 50000 ]
    [ "$(lab_in client redis-cli -h "${LAB_ADDR[a]}" GET bulk:777 | tr -d '\0' | head -c 9)" = value:777 ]
    echo "# downtime there $(jq .downtime_ms "$LAB_DIR/there") ms, back $(jq .downtime_ms "$LAB_DIR/back") ms," \
        "acknowledged $(wc -l <"$LAB_DIR/acknowledged")" >&3
}
