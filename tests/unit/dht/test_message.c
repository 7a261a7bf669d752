#include "tests/unit/dht/rig.h"

static void fill_contacts(struct dht_message *message, size_t count)
{
    for (unsigned i = 0; i < count; i++)
        message->contacts[i] = rig_peer(i).contact;
    message->contact_count = count;
}

enum { SAMPLES = 32 };

/* One of each, with every field in use. Spans point into `record`. */
static size_t samples(struct dht_message messages[SAMPLES], struct buf *bytes)
{
    struct rig_peer peer = rig_peer(1);
    struct id key = rig_key(1), member = rig_key(2);
    struct dht_record record = rig_record(&peer, &key, 1, 1);
    struct dht_span span = rig_span(&record, bytes);
    struct dht_span brief = dht_record_brief(span.at, span.len);
    size_t n = 0;
    messages[n++] = (struct dht_message){.type = DHT_PING, .flags = DHT_FROM_CLIENT};
    messages[n++] = (struct dht_message){.type = DHT_PONG};
    messages[n++] = (struct dht_message){
        .type = DHT_PONG, .flags = DHT_PLACED, .place = {{-1, 2, INT16_MIN}, UINT16_MAX}, .place_error = 200};
    messages[n++] = (struct dht_message){.type = DHT_FIND_NODE, .target = key};
    messages[n] = (struct dht_message){.type = DHT_NODES};
    fill_contacts(&messages[n++], DHT_REPLICAS);
    messages[n++] = (struct dht_message){
        .type = DHT_FIND_VALUE, .target = key, .limit = 1000, .parts = DHT_PARTS_MAX, .contacts_wanted = 16};
    messages[n++] = (struct dht_message){.type = DHT_FIND_VALUE,
                                         .flags = DHT_PLACED,
                                         .place = {{1, 2, 3}, 4},
                                         .order = DHT_BY_DISTANCE,
                                         .parts = 1,
                                         .want_lease = true,
                                         .want_digest = true,
                                         .ranged = true,
                                         .after = {1, 2, key},
                                         .until = member};
    messages[n] = (struct dht_message){
        .type = DHT_VALUES, .part = 15, .parts = 16, .more = true, .deeper = true, .has_digest = true, .total = 9};
    fill_contacts(&messages[n], 4);
    messages[n].records[0] = brief;
    messages[n].leases[0] = span;
    messages[n].record_count = messages[n].lease_count = 1;
    memset(messages[n++].digest, 7, DHT_DIGEST_BYTES);
    messages[n] = (struct dht_message){.type = DHT_STORE, .record_count = 5};
    for (size_t i = 0; i < 5; i++)
        messages[n].records[i] = span;
    n++;
    messages[n++] = (struct dht_message){.type = DHT_STORED,
                                         .record_count = 3,
                                         .records = {{NULL, 0}, span, {NULL, 0}},
                                         .status = {DHT_ACCEPTED, DHT_STALE, DHT_SLOW_DOWN},
                                         .wait_ms = 5};
    messages[n++] = (struct dht_message){.type = DHT_LEASE, .record_count = 1, .records = {span}};
    messages[n++] = (struct dht_message){.type = DHT_REFUSED, .wait_ms = 100};
    messages[n] = (struct dht_message){.type = DHT_COMPARE, .target = key, .prefix_bits = 12};
    memset(messages[n++].digest, 8, DHT_DIGEST_BYTES);
    messages[n++] = (struct dht_message){.type = DHT_COMPARED, .compared = DHT_SAME};
    messages[n] = (struct dht_message){.type = DHT_COMPARED, .compared = DHT_BY_BRANCH};
    memset(messages[n++].branches, 9, sizeof messages->branches);
    messages[n] = (struct dht_message){.type = DHT_COMPARED, .compared = DHT_BY_KEY, .key_count = DHT_COMPARED_KEYS};
    for (unsigned i = 0; i < DHT_COMPARED_KEYS; i++)
        messages[n].keys[i].key = rig_key(i);
    n++;
    messages[n++] = (struct dht_message){.type = DHT_WATCH, .target = key, .stop = true};
    messages[n] = (struct dht_message){.type = DHT_WATCHED, .lease_ms = 120000, .sequence = 5, .total = 6};
    memset(messages[n++].digest, 10, DHT_DIGEST_BYTES);
    messages[n] = (struct dht_message){.type = DHT_NOTIFY, .target = key, .sequence = 7, .record_count = DHT_ITEMS_MAX};
    for (size_t i = 0; i < DHT_ITEMS_MAX; i++)
        messages[n].records[i] = brief;
    n++;
    messages[n++] = (struct dht_message){.type = DHT_NOTIFIED, .known = true};
    return n;
}

static void test_message__all_round_trip(void **state)
{
    (void)state;
    struct dht_message messages[SAMPLES], back;
    OWNED(buf_release) struct buf record = BUF(LIMIT_DHT_RECORD_BYTES);
    size_t count = samples(messages, &record);
    for (size_t i = 0; i < count; i++) {
        OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
        OWNED(buf_release) struct buf again = BUF(DHT_MESSAGE_MAX_BYTES);
        messages[i].transaction = 0x0102030405060708u + i;
        dht_message_encode(&messages[i], &bytes);
        assert_false(bytes.failed);
        assert_int_equal(dht_message_decode(NULL, bytes.data, bytes.len, &back), DHT_DECODED);
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
    struct dht_message messages[SAMPLES], back;
    OWNED(buf_release) struct buf record = BUF(LIMIT_DHT_RECORD_BYTES);
    size_t count = samples(messages, &record);
    for (size_t i = 0; i < count; i++) {
        OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES + 1);
        dht_message_encode(&messages[i], &bytes);
        for (size_t len = 0; len < bytes.len; len++)
            assert_int_equal(dht_message_decode(NULL, bytes.data, len, &back), DHT_MALFORMED);
        wire_put_u8(&bytes, 0);
        assert_int_equal(dht_message_decode(NULL, bytes.data, bytes.len, &back), DHT_MALFORMED);
    }
}

/* faults 1: version, type and flags that we do not know */
static void test_message__unknown_is_told_apart(void **state)
{
    (void)state;
    struct dht_message back;
    uint8_t ping[DHT_MESSAGE_HEADER_BYTES] = {DHT_MESSAGE_VERSION, DHT_PING};
    assert_int_equal(dht_message_decode(NULL, ping, sizeof ping, &back), DHT_DECODED);
    for (unsigned type = 0; type < 256; type++) {
        ping[1] = (uint8_t)type;
        bool known = type >= DHT_PING && type <= DHT_NOTIFIED;
        assert_int_equal(dht_message_decode(NULL, ping, sizeof ping, &back) == DHT_UNKNOWN, !known);
    }
    ping[1] = DHT_PING;
    ping[2] = 0x80;
    assert_int_equal(dht_message_decode(NULL, ping, sizeof ping, &back), DHT_UNKNOWN);
    ping[2] = 0;
    ping[0] = DHT_MESSAGE_VERSION + 1;
    assert_int_equal(dht_message_decode(NULL, ping, sizeof ping, &back), DHT_UNKNOWN);
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
    assert_int_equal(dht_message_decode(NULL, bytes, len, &back), DHT_MALFORMED);
    assert_int_equal(dht_message_decode(NULL, bytes, sizeof bytes, &back), DHT_MALFORMED);
    for (uint8_t type = DHT_STORE; type <= DHT_STORED; type++) {
        bytes[1] = type;
        bytes[DHT_MESSAGE_HEADER_BYTES + (type == DHT_STORED ? 4 : 0)] = DHT_ITEMS_MAX + 1;
        assert_int_equal(dht_message_decode(NULL, bytes, 1000, &back), DHT_MALFORMED);
    }
}

/* What a field may not be, in a message that is otherwise whole. */
static void assert_malformed(const struct dht_message *message)
{
    struct dht_message back;
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(message, &bytes);
    assert_false(bytes.failed);
    assert_int_equal(dht_message_decode(NULL, bytes.data, bytes.len, &back), DHT_MALFORMED);
}

/* faults 2 */
static void test_message__fields_out_of_range_are_malformed(void **state)
{
    (void)state;
    assert_malformed(&(struct dht_message){.type = DHT_FIND_VALUE, .parts = 0});
    assert_malformed(&(struct dht_message){.type = DHT_FIND_VALUE, .parts = DHT_PARTS_MAX + 1});
    assert_malformed(&(struct dht_message){.type = DHT_FIND_VALUE, .parts = 1, .order = DHT_ORDER_COUNT});
    assert_malformed(&(struct dht_message){.type = DHT_FIND_VALUE, .parts = 1, .contacts_wanted = DHT_REPLICAS + 1});
    assert_malformed(&(struct dht_message){.type = DHT_VALUES, .part = 0, .parts = 0});
    assert_malformed(&(struct dht_message){.type = DHT_VALUES, .part = 1, .parts = 1});
    assert_malformed(&(struct dht_message){.type = DHT_VALUES, .part = 1, .parts = DHT_PARTS_MAX + 1});
    assert_malformed(&(struct dht_message){.type = DHT_STORED, .record_count = 1, .status = {DHT_STATUS_COUNT}});
    assert_malformed(&(struct dht_message){.type = DHT_COMPARED, .compared = DHT_BY_KEY + 1});
}

/* The ids of contacts are derived from their keys, or come from the book: what a peer says of others does not matter.
 */
static void test_message__ids_come_from_the_book(void **state)
{
    (void)state;
    struct dht_message message = {.type = DHT_NODES}, back;
    struct dht_book *book;
    fill_contacts(&message, 2);
    struct dht_contact known = message.contacts[0];
    known.id = rig_key(1);
    OWNED(buf_release) struct buf bytes = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(&message, &bytes);
    assert_int_equal(dht_book_new(&book, NULL), 0);
    dht_book_ref(book, &known);
    assert_int_equal(dht_message_decode(book, bytes.data, bytes.len, &back), DHT_DECODED);
    assert_true(id_equal(&back.contacts[0].id, &known.id));
    assert_true(id_equal(&back.contacts[1].id, &message.contacts[1].id));
    dht_book_free(book);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message__all_round_trip),
        cmocka_unit_test(test_message__cut_or_padded_is_malformed),
        cmocka_unit_test(test_message__unknown_is_told_apart),
        cmocka_unit_test(test_message__too_much_is_malformed),
        cmocka_unit_test(test_message__fields_out_of_range_are_malformed),
        cmocka_unit_test(test_message__ids_come_from_the_book),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
