#include "tests/unit/dht/rig.h"

#define PEERS 10

/* Tick for so long; whoever was asked answers, as one who holds nothing. Messages of the type are counted, and the
 * lease in the last of them is taken. */
static unsigned serve(struct rig *rig, const struct rig_peer *peers, uint64_t ms, uint8_t type,
                      struct dht_record *ret_lease)
{
    unsigned count = 0;
    for (uint64_t end_ms = rig->now_ms + ms; rig->now_ms < end_ms;) {
        uint64_t next_ms = dht_next_ms(rig->dht);
        rig->sent_count = 0;
        rig->now_ms = next_ms < rig->now_ms ? rig->now_ms : next_ms < end_ms ? next_ms : end_ms;
        dht_tick(rig->dht, rig->now_ms);
        for (size_t at = 0; at < rig->sent_count; at++) {
            struct dht_message request = rig_message(rig, at);
            struct dht_message answer = {
                .type = (uint8_t)(request.type + 1), .transaction = request.transaction, .parts = 1};
            if (request.type == DHT_STORE)
                answer.record_count = request.record_count;
            if (request.type == type) {
                count++;
                assert_true(dht_record_decode(request.records[0].at, request.records[0].len, ret_lease));
            }
            for (size_t i = 0; i < PEERS && request.type % 2 == 1 && request.type != DHT_LEASE; i++)
                if (id_equal(&peers[i].contact.id, &rig->sent[at].to.id))
                    rig_input(rig, &peers[i], &answer);
        }
    }
    return count;
}

static void meet_all(struct rig *rig, struct rig_peer peers[PEERS])
{
    for (unsigned i = 0; i < PEERS; i++) {
        peers[i] = rig_peer(i);
        rig_meet(rig, &peers[i]);
    }
}

/* To eight with an answer when we join, to four without one each minute, each newer and good for two. */
static void test_lease__is_renewed_each_minute(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[PEERS];
    struct dht_record lease, next;
    meet_all(rig, peers);
    assert_int_equal(serve(rig, peers, 10000, DHT_STORE, &lease), 8);
    struct id key = dht_lease_key(&rig->dht->self.id);
    assert_true(id_equal(&lease.key, &key) && id_equal(&lease.member, &rig->dht->self.id));
    assert_true(addr_equal(&lease.addr, &rig->dht->self.addr));
    assert_in_range(lease.expiry_wall_ms - RIG_WALL_MS, DHT_LEASE_TTL_MS, DHT_LEASE_TTL_MS + 10000);
    unsigned told = serve(rig, peers, 10 * DHT_LEASE_RENEW_MS, DHT_LEASE, &next);
    assert_in_range(told, 4 * 10, 4 * 12);
    assert_true(dht_version_compare(&next.version, &lease.version) > 0);
    assert_true(next.expiry_wall_ms > RIG_WALL_MS + rig->now_ms + DHT_LEASE_RENEW_MS);
    assert_int_equal(serve(rig, peers, 10 * DHT_LEASE_RENEW_MS, DHT_STORE, &next), 0);
    rig_free(rig);
}

/* Who has moved says so at once. */
static void test_lease__follows_the_address(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[PEERS];
    struct dht_record lease;
    struct addr moved = {.family = 4, .port = 9, .ip = {172, 16, 0, 2}};
    meet_all(rig, peers);
    serve(rig, peers, 10000, DHT_STORE, &lease);
    dht_set_address(rig->dht, rig->now_ms, &moved);
    assert_int_equal(serve(rig, peers, 1000, DHT_STORE, &lease), 8);
    assert_true(addr_equal(&lease.addr, &moved));
    dht_set_address(rig->dht, rig->now_ms, &moved);
    assert_int_equal(serve(rig, peers, 1000, DHT_STORE, &lease), 0);
    rig_free(rig);
}

/* Who asks us whether we live is told our lease, by ourselves too. */
static void test_lease__is_held_here(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[PEERS];
    struct dht_record lease, held;
    meet_all(rig, peers);
    serve(rig, peers, 100000, DHT_LEASE, &lease);
    struct id key = dht_lease_key(&rig->dht->self.id);
    assert_int_equal(dht_hold_get(rig->dht, &key, &rig->dht->self.id, &held), 1);
    assert_int_equal(dht_record_compare(&held, &lease), 0);
    rig_free(rig);
}

/* Who stops on purpose takes its lease back: in a newer record, without waiting for answers, and makes no other. */
static void test_lease__is_taken_back(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[PEERS];
    struct dht_record lease, gone;
    meet_all(rig, peers);
    serve(rig, peers, 100000, DHT_LEASE, &lease);
    rig->sent_count = 0;
    dht_leave(rig->dht, rig->now_ms);
    assert_int_equal(rig->sent_count, 8);
    struct dht_message message = rig_last(rig);
    assert_int_equal(message.type, DHT_LEASE);
    assert_true(dht_record_decode(message.records[0].at, message.records[0].len, &gone));
    assert_true(gone.tombstone && dht_version_compare(&gone.version, &lease.version) > 0);
    assert_int_equal(serve(rig, peers, 600000, DHT_LEASE, &lease), 0);
    rig_free(rig);
}

static void send_lease(struct rig *rig, const struct rig_peer *from, const struct dht_record *lease)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    rig_input(rig, from,
              &(struct dht_message){.type = DHT_LEASE, .records = {rig_span(lease, &bytes)}, .record_count = 1});
}

/* faults 12, 13, 14: a neighbour's lease is held, from itself or with its signature; nothing answers it. One that is
 * forged, old, of another kind or good for too long is not. */
static void test_lease__of_a_neighbour_is_held(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peer = rig_peer(1), other = rig_peer(2);
    struct dht_record lease = rig_lease(&peer, 5, RIG_WALL_MS + rig->now_ms + DHT_LEASE_TTL_MS), held;
    struct id key = rig_key(1), lease_key = dht_lease_key(&peer.contact.id);

    struct dht_record forged = lease;
    forged.signature[0] ^= 1;
    send_lease(rig, &other, &forged);
    struct dht_record long_lived = rig_lease(&peer, 5, RIG_WALL_MS + rig->now_ms + DHT_RECORD_TTL_MS);
    send_lease(rig, &peer, &long_lived);
    struct dht_record no_lease = rig_record(&peer, &key, 1, 1);
    send_lease(rig, &peer, &no_lease);
    assert_int_equal(rig_stats(rig).records, 0);
    assert_int_equal(rig_stats(rig).bad_records, 3);

    send_lease(rig, &other, &lease);
    assert_int_equal(dht_hold_get(rig->dht, &lease_key, &peer.contact.id, &held), 1);
    struct dht_record older = rig_lease(&peer, 4, RIG_WALL_MS + rig->now_ms + DHT_LEASE_TTL_MS);
    send_lease(rig, &peer, &older);
    assert_int_equal(dht_hold_get(rig->dht, &lease_key, &peer.contact.id, &held), 1);
    assert_int_equal(held.version.counter, 5);
    struct dht_message answer;
    assert_false(rig_find(rig, DHT_STORED, NULL, &answer));
    assert_false(rig_find(rig, DHT_REFUSED, NULL, &answer));
    rig_free(rig);
}

/* faults 59, 60: holders know a later one, of a life whose clock we have lost */
static void test_lease__overtakes_an_earlier_life(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct rig_peer peers[PEERS], self = {.key = rig->key};
    struct dht_record lease;
    self.contact = rig->dht->self;
    meet_all(rig, peers);
    serve(rig, peers, 10000, DHT_STORE, &lease);
    struct dht_record earlier =
        rig_lease(&self, lease.version.counter + 1000000, RIG_WALL_MS + rig->now_ms + DHT_LEASE_TTL_MS);
    dht_publish_overtaken(rig->dht, &earlier);
    assert_true(serve(rig, peers, 1000, DHT_LEASE, &lease) > 0);
    assert_true(dht_version_compare(&lease.version, &earlier.version) > 0);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lease__is_renewed_each_minute), cmocka_unit_test(test_lease__follows_the_address),
        cmocka_unit_test(test_lease__is_held_here),           cmocka_unit_test(test_lease__is_taken_back),
        cmocka_unit_test(test_lease__of_a_neighbour_is_held), cmocka_unit_test(test_lease__overtakes_an_earlier_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
