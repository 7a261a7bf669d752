#include "tests/test.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/crypto_aesgcm.h"
#include "node/base/scope.h"

#define MOST_BYTES 5000u

static void must_work(void)
{
    if (!crypto_aesgcm_works()) {
        print_message("this CPU has no instructions for sixteen blocks at a time: nothing to try\n");
        skip();
    }
}

static size_t below(size_t n)
{
    uint32_t word;
    crypto_random(&word, sizeof word);
    return word % n;
}

static void expect(const char *key_hex, const char *nonce_hex, const char *ad_hex, const char *plain_hex,
                   const char *sealed_hex)
{
    uint8_t key[32], nonce[12], ad[32], plain[64], expected[80], sealed[80], tag[16];
    size_t ad_len = strlen(ad_hex) / 2;
    size_t len = strlen(plain_hex) / 2;
    assert_true(hex_decode(key_hex, 64, key, 32) && hex_decode(nonce_hex, 24, nonce, 12));
    assert_true(hex_decode(ad_hex, 2 * ad_len, ad, ad_len) && hex_decode(plain_hex, 2 * len, plain, len));
    assert_true(hex_decode(sealed_hex, 2 * (len + 16), expected, len + 16));
    struct crypto_aesgcm gcm;
    crypto_aesgcm_set_key(&gcm, key);
    crypto_aesgcm_seal(&gcm, nonce, ad, ad_len, NULL, 0, plain, len, sealed);
    assert_memory_equal(sealed, expected, len + 16);
    crypto_aesgcm_open(&gcm, nonce, ad, ad_len, sealed, len, sealed, tag);
    assert_int_equal(memcmp(sealed, plain, len), 0);
    assert_memory_equal(tag, expected + len, 16);
}

#define ZEROS "00000000000000000000000000000000"
#define KEY "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define PLAIN                                                                                                          \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657" \
    "ba637b39"
#define SEALED                                                                                                         \
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a" \
    "bcc9f662"

/* McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test cases 13 to 16. */
static void test_crypto_aesgcm__vectors(void **state)
{
    (void)state;
    must_work();
    expect(ZEROS ZEROS, "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b");
    expect(ZEROS ZEROS, "000000000000000000000000", "", ZEROS,
           "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    expect(KEY, "cafebabefacedbaddecaf888", "", PLAIN "1aafd255", SEALED "898015adb094dac5d93471bdec1a502270e3cc6c");
    expect(KEY, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", PLAIN,
           SEALED "76fc6ece0f4e1768cddf8853bb2d551b");
}

/* By libcrypto. */
static void seal(const uint8_t key[32], const uint8_t nonce[12], const uint8_t *ad, size_t ad_len, const uint8_t *plain,
                 size_t len, uint8_t *ret_sealed)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done;
    assert_int_equal(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(context, NULL, &done, ad, (int)ad_len), 1);
    assert_int_equal(EVP_EncryptUpdate(context, ret_sealed, &done, plain, (int)len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(context, ret_sealed + len, &done), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, ret_sealed + len), 1);
    EVP_CIPHER_CTX_free(context);
}

static uint8_t *copy_of(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len); /* of exact size, so that a read past the end is seen */
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

/* Any key, all lengths, heads of all lengths, in place: as libcrypto has it. */
static void test_crypto_aesgcm__as_libcrypto(void **state)
{
    (void)state;
    must_work();
    OWNED(owned_free) uint8_t *whole = malloc(MOST_BYTES);
    OWNED(owned_free) uint8_t *expected = malloc(MOST_BYTES + 16);
    for (unsigned round = 0; round < 2000; round++) {
        uint8_t key[32], nonce[12], tag[16];
        size_t len = round < 600 ? round : below(MOST_BYTES);
        size_t head_len = below(len < 300 ? len + 1 : 300);
        size_t ad_len = below(70);
        crypto_random(key, sizeof key);
        crypto_random(nonce, sizeof nonce);
        crypto_random(whole, len);
        OWNED(owned_free) uint8_t *ad = malloc(ad_len);
        crypto_random(ad, ad_len);
        seal(key, nonce, ad, ad_len, whole, len, expected);

        struct crypto_aesgcm gcm;
        crypto_aesgcm_set_key(&gcm, key);
        OWNED(owned_free) uint8_t *head = copy_of(whole, head_len);
        OWNED(owned_free) uint8_t *sealed = malloc(len + 16);
        memcpy(sealed + head_len, whole + head_len, len - head_len);
        crypto_aesgcm_seal(&gcm, nonce, ad, ad_len, head, head_len, sealed + head_len, len - head_len, sealed);
        assert_memory_equal(sealed, expected, len + 16);
        OWNED(owned_free) uint8_t *plain = copy_of(sealed, len);
        crypto_aesgcm_open(&gcm, nonce, ad, ad_len, plain, len, plain, tag);
        assert_int_equal(memcmp(plain, whole, len), 0);
        assert_memory_equal(tag, expected + len, 16);
    }
}

static int setup(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crypto_aesgcm__vectors),
        cmocka_unit_test(test_crypto_aesgcm__as_libcrypto),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
