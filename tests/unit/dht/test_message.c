#include "tests/unit/dht/rig.h"

static void fill_contacts(struct dht_message *message, size_t count)
{
    for (unsigned i = 0; i < count; i++)
        message->contacts[i] = rig_peer(i).contact;
    message->contact_count = count;
}

/* One of each, with every field in use. Spans point into `record`. */
static size_t samples(struct dht_message messages[16], struct buf *bytes)
{
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1);
    struct dht_record record = rig_record(&peer, &key, 1, 1);
    struct dht_span span = rig_span(&record, bytes);
    size_t n = 0;
    messages[n++] = (struct dht_message){.type = DHT_PING, .flags = DHT_FROM_CLIENT};
    messages[n++] = (struct dht_message){.type = DHT_PONG};
    messages[n++] = (struct dht_message){.type = DHT_FIND_NODE, .target = key};
    messages[n] = (struct dht_message){.type = DHT_NODES};
    fill_contacts(&messages[n++], DHT_REPLICAS);
    messages[n++] = (struct dht_message){.type = DHT_FIND_VALUE, .target = key, .limit = 16, .contacts_wanted = 16};
    messages[n++] = (struct dht_message){
        .type = DHT_FIND_VALUE, .order = DHT_BY_VERSION, .want_lease = true, .ranged = true, .after = {1, 2, key}};
    messages[n] = (struct dht_message){.type = DHT_VALUES, .more = true, .total = 9};
    fill_contacts(&messages[n], 4);
    messages[n].records[0] = messages[n].leases[0] = span;
    messages[n].record_count = messages[n].lease_count = 1;
    n++;
    messages[n] = (struct dht_message){.type = DHT_STORE, .record_count = DHT_ITEMS_MAX};
    for (size_t i = 0; i < DHT_ITEMS_MAX; i++)
        messages[n].records[i] = span;
    n++;
    messages[n++] = (struct dht_message){.type = DHT_STORED,
                                         .record_count = 3,
                                         .records = {{NULL, 0}, span, {NULL, 0}},
                                         .status = {DHT_ACCEPTED, DHT_STALE, DHT_SLOW_DOWN},
                                         .wait_ms = 5};
    messages[n++] = (struct dht_message){.type = DHT_REFUSED, .wait_ms = 100};
    return n;
}

static void test_message__all_round_trip(void **state)
{
    (void)state;
    struct dht_message messages[16], back;
    OWNED(buf_release) struct buf record = BUF(LIMIT_DHT_RECORD_BYTES);
    size_t count = samples(messages, &record);
    for (size_t i = 0; i < count; i++) {
        OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
        OWNED(buf_release) struct buf again = BUF(DHT_MESSAGE_MAX_BYTES);
        messages[i].transaction = 0x0102030405060708u + i;
        dht_message_encode(&messages[i], &bytes);
        assert_false(bytes.failed);
        assert_int_equal(dht_message_decode(bytes.data, bytes.len, &back), DHT_DECODED);
        assert_int_equal(back.type, messages[i].type);
        assert_true(back.transaction == messages[i].transaction);
        dht_message_encode(&back, &again);
        assert_int_equal(again.len, bytes.len);
        assert_memory_equal(again.data, bytes.data, bytes.len);
    }
}

/* faults 2: every message cut at every byte, and padded */
static void test_message__cut_or_padded_is_malformed(void **state)
{
    (void)state;
    struct dht_message messages[16], back;
    OWNED(buf_release) struct buf record = BUF(LIMIT_DHT_RECORD_BYTES);
    size_t count = samples(messages, &record);
    for (size_t i = 0; i < count; i++) {
        OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES + 1);
        dht_message_encode(&messages[i], &bytes);
        for (size_t len = 0; len < bytes.len; len++)
            assert_int_equal(dht_message_decode(bytes.data, len, &back), DHT_MALFORMED);
        wire_put_u8(&bytes, 0);
        assert_int_equal(dht_message_decode(bytes.data, bytes.len, &back), DHT_MALFORMED);
    }
}

/* faults 1: version, type and flags that we do not know */
static void test_message__unknown_is_told_apart(void **state)
{
    (void)state;
    struct dht_message back;
    uint8_t ping[DHT_MESSAGE_HEADER_BYTES] = {DHT_MESSAGE_VERSION, DHT_PING};
    assert_int_equal(dht_message_decode(ping, sizeof ping, &back), DHT_DECODED);
    for (unsigned type = 0; type < 256; type++) {
        ping[1] = (uint8_t)type;
        bool known = (type >= DHT_PING && type <= DHT_STORED) || type == DHT_REFUSED;
        assert_int_equal(dht_message_decode(ping, sizeof ping, &back) == DHT_UNKNOWN, !known);
    }
    ping[1] = DHT_PING;
    ping[2] = 0x80;
    assert_int_equal(dht_message_decode(ping, sizeof ping, &back), DHT_UNKNOWN);
    ping[2] = 0;
    ping[0] = DHT_MESSAGE_VERSION + 1;
    assert_int_equal(dht_message_decode(ping, sizeof ping, &back), DHT_UNKNOWN);
}

/* faults 2, 15: counts and sizes beyond the maxima, whatever follows */
static void test_message__too_much_is_malformed(void **state)
{
    (void)state;
    static uint8_t bytes[65507] = {DHT_MESSAGE_VERSION, DHT_NODES};
    struct dht_message back;
    bytes[DHT_MESSAGE_HEADER_BYTES] = DHT_REPLICAS + 1;
    for (size_t i = 0; i <= DHT_REPLICAS; i++) /* well-formed contacts, one too many */
        bytes[DHT_MESSAGE_HEADER_BYTES + 1 + i * DHT_CONTACT_WIRE_BYTES + 32] = 4;
    size_t len = DHT_MESSAGE_HEADER_BYTES + 1 + (DHT_REPLICAS + 1) * DHT_CONTACT_WIRE_BYTES;
    assert_int_equal(dht_message_decode(bytes, len, &back), DHT_MALFORMED);
    assert_int_equal(dht_message_decode(bytes, sizeof bytes, &back), DHT_MALFORMED);
    bytes[1] = DHT_STORE;
    bytes[DHT_MESSAGE_HEADER_BYTES] = DHT_ITEMS_MAX + 1;
    assert_int_equal(dht_message_decode(bytes, 1000, &back), DHT_MALFORMED);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message__all_round_trip),
        cmocka_unit_test(test_message__cut_or_padded_is_malformed),
        cmocka_unit_test(test_message__unknown_is_told_apart),
        cmocka_unit_test(test_message__too_much_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
