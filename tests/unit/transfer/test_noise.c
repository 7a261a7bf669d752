#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/id.h"
#include "transfer/noise.h"

/* ---- the published vectors: a flat file of "key": "hex" lines is all the JSON that this needs ---- */

/* The string after the next `"key": "` within this vector, which ends where the next "name" begins. NULL if none. */
static const char *find_text(const char *from, const char *end, const char *key, size_t *ret_len)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\": \"", key);
    const char *found = strstr(from, wanted);
    if (!found || found >= end)
        return NULL;
    found += strlen(wanted);
    *ret_len = (size_t)(strchr(found, '"') - found);
    return found;
}

static size_t find_hex(const char *from, const char *end, const char *key, uint8_t *ret_data, size_t cap)
{
    size_t len = 0;
    const char *text = find_text(from, end, key, &len);
    if (!text)
        return 0;
    assert_true(len / 2 <= cap);
    assert_true(hex_decode(text, len, ret_data, len / 2));
    return len / 2;
}

static enum crypto_cipher cipher_of(const char *from, const char *end)
{
    size_t len = 0;
    const char *cipher = find_text(from, end, "cipher", &len);
    bool aes = len == 6 && memcmp(cipher, "AESGCM", 6) == 0;
    assert_true(aes || (len == 10 && memcmp(cipher, "ChaChaPoly", 10) == 0));
    return aes ? CRYPTO_AES256_GCM : CRYPTO_CHACHA20_POLY1305;
}

static struct noise *start(const char *from, const char *end, bool initiator)
{
    const char *side = initiator ? "init" : "resp";
    char key[32];
    uint8_t prologue[64];
    uint8_t static_secret[32];
    uint8_t ephemeral_secret[32];
    uint8_t remote_static[32];
    snprintf(key, sizeof key, "%s_prologue", side);
    size_t prologue_len = find_hex(from, end, key, prologue, sizeof prologue);
    snprintf(key, sizeof key, "%s_static", side);
    assert_int_equal(find_hex(from, end, key, static_secret, 32), 32);
    snprintf(key, sizeof key, "%s_ephemeral", side);
    assert_int_equal(find_hex(from, end, key, ephemeral_secret, 32), 32);
    bool known = initiator && find_hex(from, end, "init_remote_static", remote_static, 32) == 32;
    size_t len;
    const char *pattern = find_text(from, end, "pattern", &len);
    assert_true(memcmp(pattern, "XX", 2) == 0 || memcmp(pattern, "IK", 2) == 0);

    struct noise_config config = {.pattern = pattern[0] == 'X' ? NOISE_XX : NOISE_IK,
                                  .cipher = cipher_of(from, end),
                                  .initiator = initiator,
                                  .prologue = prologue,
                                  .prologue_bytes = prologue_len,
                                  .static_secret = static_secret,
                                  .ephemeral_secret = ephemeral_secret,
                                  .remote_static = known ? remote_static : NULL};
    struct noise *noise = NULL;
    struct err err = {0};
    assert_int_equal(noise_new(&config, &noise, &err), 0);
    return noise;
}

struct pair {
    struct noise *noise[2];
    struct noise_cipher send[2];
    struct noise_cipher receive[2];
    bool split;
};

static void handshake_step(struct pair *pair, unsigned writer, const uint8_t *payload, size_t len,
                           const uint8_t *expected, size_t expected_len)
{
    OWNED(buf_release) struct buf message = BUF(NOISE_MESSAGE_BYTES);
    OWNED(buf_release) struct buf read = BUF(NOISE_MESSAGE_BYTES);
    struct err err = {0};
    assert_int_equal(noise_write(pair->noise[writer], payload, len, &message, &err), 0);
    assert_int_equal(message.len, expected_len);
    assert_memory_equal(message.data, expected, expected_len);
    assert_int_equal(noise_read(pair->noise[!writer], message.data, message.len, &read, &err), 0);
    assert_int_equal(read.len, len);
    assert_memory_equal(read.data, payload, len);
}

static void transport_step(struct pair *pair, unsigned writer, const uint8_t *payload, size_t len,
                           const uint8_t *expected, size_t expected_len)
{
    uint8_t sealed[256];
    assert_int_equal(noise_cipher_seal(&pair->send[writer], payload, 3, payload + 3, len - 3, sealed, NULL), 0);
    assert_int_equal(expected_len, len + NOISE_TAG_BYTES);
    assert_memory_equal(sealed, expected, expected_len);
    assert_int_equal(noise_cipher_open(&pair->receive[!writer], sealed, expected_len, NULL), 0);
    assert_memory_equal(sealed, payload, len);
}

static void run_vector(const char *from, const char *end)
{
    struct pair pair = {.noise = {start(from, end, true), start(from, end, false)}};
    unsigned n = 0;
    for (const char *at = strstr(from, "\"messages\""); (at = strstr(at + 1, "\"payload\"")) && at < end; n++) {
        uint8_t payload[128];
        uint8_t expected[256];
        size_t len = find_hex(at, end, "payload", payload, sizeof payload);
        size_t expected_len = find_hex(at, end, "ciphertext", expected, sizeof expected);
        if (!noise_is_done(pair.noise[0])) {
            handshake_step(&pair, n % 2, payload, len, expected, expected_len);
            continue;
        }
        for (unsigned i = 0; !pair.split && i < 2; i++)
            assert_int_equal(noise_split(pair.noise[i], cipher_of(from, end), &pair.send[i], &pair.receive[i], NULL),
                             0);
        pair.split = true;
        transport_step(&pair, n % 2, payload, len, expected, expected_len);
    }
    assert_int_equal(n, 6);
    assert_memory_equal(noise_hash(pair.noise[0]), noise_hash(pair.noise[1]), NOISE_HASH_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        noise_free(pair.noise[i]);
        noise_cipher_release(&pair.send[i]);
        noise_cipher_release(&pair.receive[i]);
    }
}

static void test_noise__published_vectors(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf file = BUF(1 << 20);
    struct err err = {0};
    assert_int_equal(file_read("vectors/noise.json", &file, &err), 0);
    const char *text = buf_str(&file);
    unsigned n = 0;
    for (const char *at = strstr(text, "\"name\""); at; n++) {
        const char *next = strstr(at + 1, "\"name\"");
        run_vector(at, next ? next : text + file.len);
        at = next;
    }
    assert_int_equal(n, 3);
}

/* ---- what the vectors do not show ---- */

static struct noise *fresh(bool initiator)
{
    uint8_t secret[32];
    uint8_t public_key[32];
    crypto_dh_keygen(secret, public_key);
    struct noise *noise = NULL;
    struct noise_config config = {.pattern = NOISE_XX, .initiator = initiator, .static_secret = secret};
    assert_int_equal(noise_new(&config, &noise, NULL), 0);
    return noise;
}

/* faults 7: the points of small order on Curve25519 (cr.yp.to/ecdh.html#validate), as an ephemeral key */
static void test_noise__small_order_keys_abort(void **state)
{
    (void)state;
    static const char *const POINTS[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    };
    for (size_t i = 0; i < sizeof POINTS / sizeof POINTS[0]; i++) {
        uint8_t first[32];
        assert_true(hex_decode(POINTS[i], 64, first, sizeof first));
        OWNED(owned_noise) struct noise *listener = fresh(false);
        OWNED(buf_release) struct buf scratch = BUF(4096);
        assert_int_equal(noise_read(listener, first, sizeof first, &scratch, NULL), 0);
        struct err err = {0};
        assert_int_equal(noise_write(listener, NULL, 0, &scratch, &err), ERR_AUTH);
        assert_int_equal(noise_write(listener, NULL, 0, &scratch, &err), ERR_INTERNAL);
    }
}

/* Every byte of every handshake message matters, and none may be missing. */
static void test_noise__changed_or_cut_messages_fail(void **state)
{
    (void)state;
    for (size_t damage = 0; damage < 2 * (32 + 48 + 16 + 4); damage++) {
        OWNED(owned_noise) struct noise *dialer = fresh(true);
        OWNED(owned_noise) struct noise *listener = fresh(false);
        OWNED(buf_release) struct buf first = BUF(4096);
        OWNED(buf_release) struct buf second = BUF(4096);
        OWNED(buf_release) struct buf scratch = BUF(4096);
        assert_int_equal(noise_write(dialer, NULL, 0, &first, NULL), 0);
        assert_int_equal(noise_read(listener, first.data, first.len, &scratch, NULL), 0);
        assert_int_equal(noise_write(listener, "four", 4, &second, NULL), 0);
        size_t len = second.len;
        assert_int_equal(len, 32 + 48 + 16 + 4);
        if (damage % 2)
            len = damage / 2;
        else
            second.data[damage / 2] ^= 0x40;
        assert_true(noise_read(dialer, second.data, len, &scratch, NULL) < 0);
        assert_false(noise_may_write(dialer));
    }
}

/* A handshake with ChaChaPoly may end in either. */
static void make_ciphers(enum crypto_cipher kind, struct noise_cipher ret_send[2], struct noise_cipher ret_receive[2])
{
    OWNED(owned_noise) struct noise *dialer = fresh(true);
    OWNED(owned_noise) struct noise *listener = fresh(false);
    OWNED(buf_release) struct buf scratch = BUF(4096);
    struct noise *both[2] = {dialer, listener};
    for (unsigned i = 0; i < 3; i++) {
        OWNED(buf_release) struct buf message = BUF(4096);
        assert_int_equal(noise_write(both[i % 2], NULL, 0, &message, NULL), 0);
        assert_int_equal(noise_read(both[!(i % 2)], message.data, message.len, &scratch, NULL), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(noise_split(both[i], kind, &ret_send[i], &ret_receive[i], NULL), 0);
}

static void release_ciphers(struct noise_cipher send[2], struct noise_cipher receive[2])
{
    for (unsigned i = 0; i < 2; i++) {
        noise_cipher_release(&send[i]);
        noise_cipher_release(&receive[i]);
    }
}

/* faults 23: the key changes after 2^16 messages, on both sides at the same one, and the nonce goes on */
static void rekey_by_messages(enum crypto_cipher kind)
{
    struct noise_cipher send[2];
    struct noise_cipher receive[2];
    make_ciphers(kind, send, receive);
    uint8_t old_key[32];
    memcpy(old_key, send[0].key, sizeof old_key);
    for (uint32_t i = 0; i < NOISE_REKEY_MESSAGES + 3; i++) {
        uint8_t sealed[4 + NOISE_TAG_BYTES];
        uint8_t plain[4];
        memcpy(plain, &i, sizeof plain);
        assert_int_equal(noise_cipher_seal(&send[0], NULL, 0, plain, sizeof plain, sealed, NULL), 0);
        bool changed = memcmp(old_key, send[0].key, sizeof old_key) != 0;
        assert_int_equal(changed, i >= NOISE_REKEY_MESSAGES - 1);
        assert_int_equal(noise_cipher_open(&receive[1], sealed, sizeof sealed, NULL), 0);
        assert_memory_equal(sealed, plain, sizeof plain);
    }
    assert_int_equal(send[0].nonce, NOISE_REKEY_MESSAGES + 3);
    assert_memory_equal(send[0].key, receive[1].key, sizeof old_key);
    assert_memory_not_equal(send[0].key, send[1].key, sizeof old_key);
    release_ciphers(send, receive);
}

static void test_noise__rekey_by_messages(void **state)
{
    (void)state;
    rekey_by_messages(CRYPTO_CHACHA20_POLY1305);
    rekey_by_messages(CRYPTO_AES256_GCM);
}

/* faults 23: and after 1 GiB, whichever comes first */
static void rekey_by_bytes(enum crypto_cipher kind)
{
    struct noise_cipher send[2];
    struct noise_cipher receive[2];
    make_ciphers(kind, send, receive);
    uint8_t old_key[32];
    memcpy(old_key, send[0].key, sizeof old_key);
    send[0].key_bytes = receive[1].key_bytes = NOISE_REKEY_BYTES - 5;
    for (unsigned i = 0; i < 3; i++) {
        uint8_t sealed[4 + NOISE_TAG_BYTES];
        assert_int_equal(noise_cipher_seal(&send[0], "ab", 2, "cd", 2, sealed, NULL), 0);
        assert_int_equal(noise_cipher_open(&receive[1], sealed, sizeof sealed, NULL), 0);
        assert_memory_equal(sealed, "abcd", 4);
        assert_int_equal(memcmp(old_key, send[0].key, sizeof old_key) != 0, i >= 1);
    }
    release_ciphers(send, receive);
}

static void test_noise__rekey_by_bytes(void **state)
{
    (void)state;
    rekey_by_bytes(CRYPTO_CHACHA20_POLY1305);
    rekey_by_bytes(CRYPTO_AES256_GCM);
}

/* faults 23: a nonce that would wrap is refused, and 2^64 - 1 belongs to the rekey */
static void nonce_never_wraps(enum crypto_cipher kind)
{
    struct noise_cipher send[2];
    struct noise_cipher receive[2];
    make_ciphers(kind, send, receive);
    send[0].nonce = UINT64_MAX - 1;
    uint8_t sealed[1 + NOISE_TAG_BYTES];
    assert_int_equal(noise_cipher_seal(&send[0], NULL, 0, "x", 1, sealed, NULL), 0);
    assert_int_equal(noise_cipher_seal(&send[0], NULL, 0, "x", 1, sealed, NULL), ERR_LIMIT);
    assert_int_equal(send[0].nonce, UINT64_MAX);
    release_ciphers(send, receive);
}

static void test_noise__nonce_never_wraps(void **state)
{
    (void)state;
    nonce_never_wraps(CRYPTO_CHACHA20_POLY1305);
    nonce_never_wraps(CRYPTO_AES256_GCM);
}

/* Section 12: how the counter stands in a nonce; section 4.2: the next key comes from the last nonce. */
static void test_noise__nonces_and_keys_of_aes(void **state)
{
    (void)state;
    struct noise_cipher send[2];
    struct noise_cipher receive[2];
    make_ciphers(CRYPTO_AES256_GCM, send, receive);
    struct crypto_aead *aead;
    assert_int_equal(crypto_aead_new(CRYPTO_AES256_GCM, send[0].key, &aead, NULL), 0);
    send[0].nonce = 0x0102030405060708;
    send[0].key_bytes = NOISE_REKEY_BYTES - 1;
    static const uint8_t nonce[12] = {0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t sealed[5 + NOISE_TAG_BYTES], expected[32 + NOISE_TAG_BYTES];
    assert_int_equal(noise_cipher_seal(&send[0], NULL, 0, "hello", 5, sealed, NULL), 0);
    assert_int_equal(crypto_aead_seal(aead, nonce, NULL, 0, "hello", 5, expected, NULL), 0);
    assert_memory_equal(sealed, expected, sizeof sealed);
    static const uint8_t last[12] = {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t zeros[32];
    assert_int_equal(crypto_aead_seal(aead, last, NULL, 0, zeros, sizeof zeros, expected, NULL), 0);
    assert_memory_equal(send[0].key, expected, sizeof zeros);
    crypto_aead_free(aead);
    release_ciphers(send, receive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise__published_vectors),
        cmocka_unit_test(test_noise__small_order_keys_abort),
        cmocka_unit_test(test_noise__changed_or_cut_messages_fail),
        cmocka_unit_test(test_noise__rekey_by_messages),
        cmocka_unit_test(test_noise__rekey_by_bytes),
        cmocka_unit_test(test_noise__nonce_never_wraps),
        cmocka_unit_test(test_noise__nonces_and_keys_of_aes),
    };
    return crypto_init(NULL) < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
