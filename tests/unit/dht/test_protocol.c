/* docs/protocol-dht.md says what the code does; the bytes stay what they are. */
#include "tests/unit/dht/rig.h"

#include "node/base/file.h"

#define GOLDEN_RECORD "5faf3d0774e510319c5baf1b56b5bd1db809f694468480f5fda54294fcc57a02"

static const char *document(struct buf *buf)
{
    struct err err = {0};
    if (file_read("../docs/protocol-dht.md", buf, &err) < 0)
        fail_msg("%s", err.text);
    return buf_str(buf);
}

/* The number as it is written in prose: 1,048,576. */
static void grouped(unsigned long number, char text[32])
{
    char digits[32];
    size_t len = (size_t)snprintf(digits, sizeof digits, "%lu", number), out = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            text[out++] = ',';
        text[out++] = digits[i];
    }
    text[out] = '\0';
}

static void says(const char *text, const char *before, unsigned long number, const char *behind)
{
    char digits[32], sentence[160];
    grouped(number, digits);
    snprintf(sentence, sizeof sentence, "%s%s%s", before, digits, behind);
    if (!strstr(text, sentence))
        fail_msg("docs/protocol-dht.md does not say \"%s\"", sentence);
}

static void test_protocol__document_has_the_numbers(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(1u << 20);
    const char *text = document(&buf);
    says(text, "at most ", DHT_MESSAGE_MAX_BYTES, " bytes");
    says(text, "", DHT_RECORD_FIXED_BYTES, " bytes and at most 512 of data: 715.");
    says(text, "and at most 512 of data: ", LIMIT_DHT_RECORD_BYTES, ".");
    says(text, "now + ", DHT_EXPIRY_MAX_MS / 86400000, " days + 60 s");
    says(text, "now + ", (DHT_LEASE_TTL_MS + DHT_SKEW_MS) / 1000, " s`");
    says(text, "count(u8 <= ", DHT_REPLICAS, ") contact*");
    says(text, "count(u8 <= ", DHT_ITEMS_MAX, ") short*");
    says(text, "k = ", DHT_REPLICAS, ", alpha = 4, beta = 4");
    says(text, "At most ", DHT_QUERIES_MAX, " requests a lookup");
    says(text, "A key has at most ", LIMIT_DHT_RECORDS_PER_KEY, " records");
    says(text, "a writer that is alone ", LIMIT_DHT_RECORDS / 4, ".");
    says(text, "a holder ", LIMIT_DHT_RECORDS, ".");
    says(text, "safe when ", DHT_ACKED, " holders");
    says(text, "more than ", DHT_COMPARED_KEYS, " keys");
    says(text, "down to ", DHT_SHARD_DEPTH_MAX, ".");
}

static void test_protocol__document_has_the_tables(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf buf = BUF(1u << 20);
    const char *text = document(&buf);
    static const char *const kinds[] = {
        [DHT_OBJECT] = "object", [DHT_VOLUME] = "volume",  [DHT_SERVICE] = "service", [DHT_APP] = "app",
        [DHT_IMAGE] = "image",   [DHT_ROUTE] = "route",    [DHT_NODE] = "node",       [DHT_REVOCATION] = "revocation",
        [DHT_SET] = "set",       [DHT_CHANNEL] = "channel"};
    static const char *const types[] = {
        [DHT_PING] = "PING",        [DHT_PONG] = "PONG",       [DHT_FIND_NODE] = "FIND_NODE",
        [DHT_NODES] = "NODES",      [DHT_STORE] = "STORE",     [DHT_FIND_VALUE] = "FIND_VALUE",
        [DHT_VALUES] = "VALUES",    [DHT_STORED] = "STORED",   [DHT_LEASE] = "LEASE",
        [DHT_REFUSED] = "REFUSED",  [DHT_COMPARE] = "COMPARE", [DHT_COMPARED] = "COMPARED",
        [DHT_WATCH] = "WATCH",      [DHT_WATCHED] = "WATCHED", [DHT_NOTIFY] = "NOTIFY",
        [DHT_NOTIFIED] = "NOTIFIED"};
    for (unsigned i = DHT_OBJECT; i < DHT_KIND_COUNT; i++) {
        says(text, "| ", i, " | ");
        assert_non_null(strstr(text, kinds[i]));
    }
    for (unsigned i = DHT_PING; i <= DHT_NOTIFIED; i++) {
        char row[40];
        snprintf(row, sizeof row, "| %u | %s |", i, types[i]);
        if (types[i] && !strstr(text, row))
            fail_msg("docs/protocol-dht.md has no row \"%s\"", row);
    }
}

/* Golden bytes, laid out by hand from the document; only the signature is taken from the code. */
static void test_protocol__bytes_stay(void **state)
{
    (void)state;
    struct rig_peer peer = rig_peer(1);
    struct id key = dht_key(DHT_VOLUME, "0123456789abcdef", 16);
    struct dht_record record = {.key = key,
                                .kind = DHT_VOLUME,
                                .tombstone = true,
                                .score = -2,
                                .version = {3, 4},
                                .expiry_wall_ms = 5,
                                .size = 6,
                                .place = {{1, -2, 3}, 7},
                                .addr = {.family = 4, .port = 7421, .ip = {10, 0, 0, 1}},
                                .data_len = 2,
                                .data = "ab"};
    assert_int_equal(rig_sign(&record, &peer.key), 0);
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_DHT_RECORD_BYTES);
    struct dht_span span = rig_span(&record, &bytes);
    assert_memory_equal(span.at, "cmr2", 4);
    assert_memory_equal(span.at + 4, key.b, 32);
    assert_memory_equal(span.at + 36, "\x02\x01", 2);
    assert_memory_equal(span.at + 38, peer.key.public_key, 32);
    assert_memory_equal(span.at + 70,
                        "\xc0\0\0\0\0\0\0\0"
                        "\0\0\0\0\0\0\0\3"
                        "\0\0\0\0\0\0\0\4",
                        24);
    assert_memory_equal(span.at + 94,
                        "\0\0\0\0\0\0\0\5"
                        "\0\0\0\0\0\0\0\6"
                        "\0\1\xff\xfe\0\3\0\7"
                        "\4\x1c\xfd\x0a\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0"
                        "\0\2"
                        "ab",
                        47);
    assert_int_equal(span.len, 141 + 64);
    assert_true(crypto_signature_check(span.at + 141, span.at, 141, peer.key.public_key));

    char hex[ID_HEX_SIZE];
    struct id hash;
    crypto_id_of(span.at, span.len, &hash);
    assert_string_equal(id_hex(&hash, hex), GOLDEN_RECORD);

    struct dht_message ask = {.type = DHT_FIND_VALUE,
                              .flags = DHT_FROM_CLIENT,
                              .transaction = 0x0102030405060708u,
                              .target = key,
                              .order = DHT_BY_VERSION,
                              .limit = 9,
                              .parts = 3,
                              .contacts_wanted = 16,
                              .want_lease = true,
                              .ranged = true,
                              .after = {1, 2, key},
                              .until = key};
    OWNED(buf_release) struct buf message = BUF(DHT_MESSAGE_MAX_BYTES);
    dht_message_encode(&ask, &message);
    assert_memory_equal(message.data, "\2\5\1\1\2\3\4\5\6\7\x8", 11);
    assert_memory_equal(message.data + 11, key.b, 32);
    assert_memory_equal(message.data + 43,
                        "\2\0\x9\3\x10\3"
                        "\0\0\0\0\0\0\0\1"
                        "\0\0\0\0\0\0\0\2",
                        22);
    assert_memory_equal(message.data + 65, key.b, 32);
    assert_memory_equal(message.data + 97, key.b, 32);
    assert_int_equal(message.len, 129);
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol__document_has_the_numbers),
        cmocka_unit_test(test_protocol__document_has_the_tables),
        cmocka_unit_test(test_protocol__bytes_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
