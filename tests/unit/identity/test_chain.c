#include "tests/unit/identity/forge.h"

static char why[IDENTITY_WHY_SIZE];

static bool good(const struct chain *chain)
{
    struct id cluster = forge_chain(0).cluster;
    return identity_chain_is_valid(chain, &cluster, 0, NOW + 1, why);
}

/* A chain of two whose second certificate was changed before it was signed. */
static struct chain changed(void (*change)(struct certificate *certificate))
{
    struct chain chain = forge_chain(1);
    struct crypto_sign_key issuer = forge_key(1);
    struct crypto_sign_key key = forge_key(2);
    struct certificate certificate = forge_certificate(&key, RIGHT_ADMIT);
    change(&certificate);
    identity_chain_append(&chain, &certificate, &issuer);
    return chain;
}

static void test_chain__every_length_round_trips(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= LIMIT_CHAIN_CERTS; count++) {
        struct chain chain = forge_chain(count);
        struct chain again;
        OWNED(buf_release) struct buf bytes = forge_bytes(&chain);
        assert_int_equal(bytes.len, 34 + count * LIMIT_CERT_BYTES);
        assert_true(identity_chain_decode(bytes.data, bytes.len, 1, &again));
        assert_true(good(&again));
        OWNED(buf_release) struct buf twice = forge_bytes(&again);
        assert_memory_equal(bytes.data, twice.data, bytes.len);
    }
}

static void test_chain__cut_or_longer_is_malformed(void **state)
{
    (void)state;
    struct chain chain = forge_chain(2);
    struct chain again;
    OWNED(buf_release) struct buf bytes = forge_bytes(&chain);
    for (size_t len = 0; len < bytes.len; len++)
        assert_false(identity_chain_decode(bytes.data, len, 1, &again));
    buf_add(&bytes, "", 1);
    assert_false(identity_chain_decode(bytes.data, bytes.len, 1, &again));
}

/* Nothing in the encoding is without meaning: whichever bit changes, the chain is malformed or not accepted. */
static void test_chain__every_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct chain chain = forge_chain(1);
    struct chain again;
    OWNED(buf_release) struct buf bytes = forge_bytes(&chain);
    for (size_t bit = 0; bit < 8 * bytes.len; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (identity_chain_decode(bytes.data, bytes.len, 1, &again))
            assert_false(good(&again));
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void test_chain__too_deep_is_malformed(void **state) /* faults 84 */
{
    (void)state;
    struct chain chain = forge_chain(LIMIT_CHAIN_CERTS);
    OWNED(buf_release) struct buf full = forge_bytes(&chain);
    OWNED(buf_release) struct buf bytes = BUF(2 * LIMIT_CHAIN_BYTES);
    buf_add(&bytes, full.data, full.len);
    buf_add(&bytes, full.data + full.len - LIMIT_CERT_BYTES, LIMIT_CERT_BYTES);
    bytes.data[1] = LIMIT_CHAIN_CERTS + 1;
    assert_false(identity_chain_decode(bytes.data, bytes.len, 1, &chain));
    bytes.data[1] = 0;
    assert_false(identity_chain_decode(bytes.data, 34, 1, &chain));
    assert_true(identity_chain_decode(bytes.data, 34, 0, &chain));
}

static void test_chain__times_decide_with_grace(void **state) /* faults 84 */
{
    (void)state;
    struct chain chain = forge_chain(2);
    struct id cluster = chain.cluster;
    assert_true(identity_chain_is_valid(&chain, &cluster, 0, NOW - IDENTITY_GRACE_S, why));
    assert_false(identity_chain_is_valid(&chain, &cluster, 0, NOW - IDENTITY_GRACE_S - 1, why));
    assert_non_null(strstr(why, "not yet valid"));
    assert_true(identity_chain_is_valid(&chain, &cluster, 0, NOW + YEAR + IDENTITY_GRACE_S, why));
    assert_false(identity_chain_is_valid(&chain, &cluster, 0, NOW + YEAR + IDENTITY_GRACE_S + 1, why));
    assert_non_null(strstr(why, "expired"));
}

static void test_chain__other_cluster_is_refused(void **state) /* faults 84 */
{
    (void)state;
    struct chain chain = forge_chain(1);
    struct id other = {{1}};
    assert_false(identity_chain_is_valid(&chain, &other, 0, NOW, why));
    assert_non_null(strstr(why, "another cluster"));
}

static void test_chain__self_signed_is_refused(void **state) /* faults 84 */
{
    (void)state;
    struct crypto_sign_key self = forge_key(9);
    struct certificate certificate = forge_certificate(&self, RIGHT_ALL);
    struct chain chain = forge_chain(0);
    identity_chain_append(&chain, &certificate, &self);
    assert_false(good(&chain));
    assert_non_null(strstr(why, "not signed"));

    /* A root of its own makes it another cluster. */
    identity_chain_init(&chain, self.public_key);
    identity_chain_append(&chain, &certificate, &self);
    assert_true(identity_chain_is_sound(&chain, why));
    assert_false(good(&chain));
}

static void test_chain__missing_right_is_refused(void **state) /* faults 84 */
{
    (void)state;
    struct chain chain = forge_chain(1);
    assert_true(identity_chain_is_valid(&chain, &chain.cluster, RIGHT_ADMIT, NOW, why));
    assert_false(identity_chain_is_valid(&chain, &chain.cluster, RIGHT_PROXY, NOW, why));
    assert_non_null(strstr(why, "lacks a right"));
}

static void more_rights(struct certificate *certificate)
{
    certificate->rights = RIGHT_ALL;
}

static void earlier_start(struct certificate *certificate)
{
    certificate->not_before--;
}

static void later_end(struct certificate *certificate)
{
    certificate->not_after++;
}

static void test_chain__nothing_grows_along_it(void **state) /* faults 84 */
{
    (void)state;
    struct chain chain = changed(more_rights);
    assert_false(good(&chain));
    assert_non_null(strstr(why, "rights that its issuer has not"));
    chain = changed(earlier_start);
    assert_false(good(&chain));
    chain = changed(later_end);
    assert_false(good(&chain));
    assert_non_null(strstr(why, "outside the validity"));
}

static void test_chain__issuer_needs_the_right_to_admit(void **state) /* faults 84 */
{
    (void)state;
    struct crypto_sign_key root = forge_key(0);
    struct crypto_sign_key first = forge_key(1);
    struct crypto_sign_key second = forge_key(2);
    struct chain chain = forge_chain(0);
    struct certificate certificate = forge_certificate(&first, 0);
    identity_chain_append(&chain, &certificate, &root);
    assert_true(good(&chain));
    certificate = forge_certificate(&second, 0);
    identity_chain_append(&chain, &certificate, &first);
    assert_false(good(&chain));
    assert_non_null(strstr(why, "without the right to admit"));
}

static void test_chain__unknown_rights_and_odd_times_are_malformed(void **state)
{
    (void)state;
    struct chain again;
    struct chain chain = forge_chain(1);
    chain.certs[0].rights = 0x80;
    OWNED(buf_release) struct buf rights = forge_bytes(&chain);
    assert_false(identity_chain_decode(rights.data, rights.len, 1, &again));
    chain = forge_chain(1);
    chain.certs[0].not_after = chain.certs[0].not_before;
    OWNED(buf_release) struct buf empty = forge_bytes(&chain);
    assert_false(identity_chain_decode(empty.data, empty.len, 1, &again));
    chain.certs[0].not_after = UINT64_MAX;
    OWNED(buf_release) struct buf endless = forge_bytes(&chain);
    assert_false(identity_chain_decode(endless.data, endless.len, 1, &again));
}

/* S + L verifies in a careless implementation and would be a second encoding of one certificate. L: RFC 8032, 5.1. */
static void test_chain__second_form_of_a_signature_is_refused(void **state) /* faults 85 */
{
    (void)state;
    static const uint8_t order[32] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58,       0xd6,
                                      0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, [31] = 0x10};
    struct chain chain = forge_chain(1);
    assert_true(good(&chain));
    unsigned carry = 0;
    for (size_t i = 0; i < 32; i++) {
        carry += chain.certs[0].signature[32 + i] + order[i];
        chain.certs[0].signature[32 + i] = (uint8_t)carry;
        carry >>= 8;
    }
    assert_int_equal(carry, 0);
    assert_false(good(&chain));
    assert_non_null(strstr(why, "not signed"));
}

/* The neutral element signs everything with R = identity, S = 0, if it is let in as a public key. */
static void test_chain__key_of_small_order_is_refused(void **state) /* faults 7, 84 */
{
    (void)state;
    struct chain chain;
    uint8_t neutral[32] = {1};
    struct crypto_sign_key key = forge_key(1);
    identity_chain_init(&chain, neutral);
    chain.count = 1;
    chain.certs[0] = forge_certificate(&key, RIGHT_ALL);
    chain.certs[0].signature[0] = 1;
    assert_false(identity_chain_is_sound(&chain, why));
}

static void test_chain__certificate_holds_at_its_depth_only(void **state)
{
    (void)state;
    struct chain chain = forge_chain(2);
    struct crypto_sign_key first = forge_key(1);
    struct chain shorter;
    identity_chain_init(&shorter, first.public_key);
    shorter.count = 1;
    shorter.certs[0] = chain.certs[1];
    assert_false(identity_chain_is_sound(&shorter, why));
}

/* The format is a promise to members of other versions: these bytes may not change. */
static void test_chain__bytes_are_what_they_were(void **state)
{
    (void)state;
    struct chain chain = forge_chain(2);
    OWNED(buf_release) struct buf bytes = forge_bytes(&chain);
    struct id digest;
    char text[ID_HEX_SIZE];
    crypto_id_of(bytes.data, bytes.len, &digest);
    assert_string_equal(id_hex(&digest, text), "9314710f83f8dc1981f64071a5f684e33194caf303d71890a7881e3dc8a33d40");
}

static void test_chain__document_tells_the_same(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(buf_release) struct buf text = BUF(65536);
    assert_int_equal(file_read("../docs/formats/identity.md", &text, &err), 0);
    const char *document = buf_str(&text);
    char grace[32], certificate[32];
    snprintf(grace, sizeof grace, "within %d seconds", IDENTITY_GRACE_S);
    snprintf(certificate, sizeof certificate, "| %d each | certificates", LIMIT_CERT_BYTES);
    const char *told[] = {CHAIN_SIGNED_PREFIX, CHAIN_REFUSED, grace, certificate};
    for (size_t i = 0; i < sizeof told / sizeof *told; i++)
        assert_non_null(strstr(document, told[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain__every_length_round_trips),
        cmocka_unit_test(test_chain__cut_or_longer_is_malformed),
        cmocka_unit_test(test_chain__every_flipped_bit_is_refused),
        cmocka_unit_test(test_chain__too_deep_is_malformed),
        cmocka_unit_test(test_chain__times_decide_with_grace),
        cmocka_unit_test(test_chain__other_cluster_is_refused),
        cmocka_unit_test(test_chain__self_signed_is_refused),
        cmocka_unit_test(test_chain__missing_right_is_refused),
        cmocka_unit_test(test_chain__nothing_grows_along_it),
        cmocka_unit_test(test_chain__issuer_needs_the_right_to_admit),
        cmocka_unit_test(test_chain__unknown_rights_and_odd_times_are_malformed),
        cmocka_unit_test(test_chain__second_form_of_a_signature_is_refused),
        cmocka_unit_test(test_chain__key_of_small_order_is_refused),
        cmocka_unit_test(test_chain__certificate_holds_at_its_depth_only),
        cmocka_unit_test(test_chain__bytes_are_what_they_were),
        cmocka_unit_test(test_chain__document_tells_the_same),
    };
    return crypto_init(NULL) < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
