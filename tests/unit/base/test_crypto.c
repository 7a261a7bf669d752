#include "tests/test.h"

#include <string.h>

#include "node/base/crypto.h"

static void from_hex(const char *hex, uint8_t *out, size_t len)
{
    assert_true(hex_decode(hex, strlen(hex), out, len));
}

/* FIPS 180-2, appendix B.1; RFC 7693, appendix A (its 512-bit vector for "abc"). */
static void test_crypto__hashes(void **state)
{
    (void)state;
    struct id digest;
    char text[ID_HEX_SIZE];
    crypto_sha256("abc", 3, &digest);
    assert_string_equal(id_hex(&digest, text), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");

    struct crypto_sha256 *hash;
    assert_int_equal(crypto_sha256_new(&hash, NULL), 0);
    for (int round = 0; round < 2; round++) {
        crypto_sha256_add(hash, "a", 1);
        crypto_sha256_add(hash, "bc", 2);
        struct id again;
        crypto_sha256_take(hash, &again);
        assert_true(id_equal(&digest, &again));
    }
    crypto_sha256_free(hash);

    uint8_t blake[64], expected[64];
    crypto_blake2b(blake, 64, NULL, 0, "a", 1, "bc", 2);
    from_hex("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
             "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
             expected, 64);
    assert_memory_equal(blake, expected, 64);
}

/* RFC 8032, section 7.1, test 2. */
static void test_crypto__signatures(void **state)
{
    (void)state;
    uint8_t seed[32], expected[64], signature[64];
    from_hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", seed, 32);
    from_hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
             "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
             expected, 64);
    struct crypto_sign_key key;
    crypto_sign_key_from_seed(seed, &key);
    crypto_signature_make(signature, "\x72", 1, &key);
    assert_memory_equal(signature, expected, 64);
    assert_true(crypto_signature_check(signature, "\x72", 1, key.public_key));
    assert_false(crypto_signature_check(signature, "\x73", 1, key.public_key));
    uint8_t zero[32] = {0};
    assert_false(crypto_signature_check(signature, "\x72", 1, zero));
}

/* faults 7: points of small order end the agreement */
static void test_crypto__agreement(void **state)
{
    (void)state;
    uint8_t a_secret[32], a_public[32], b_secret[32], b_public[32], left[32], right[32];
    crypto_dh_keygen(a_secret, a_public);
    crypto_dh_keygen(b_secret, b_public);
    assert_true(crypto_dh(a_secret, b_public, left));
    assert_true(crypto_dh(b_secret, a_public, right));
    assert_memory_equal(left, right, 32);
    uint8_t zero[32] = {0}, one[32] = {1};
    assert_false(crypto_dh(a_secret, zero, left));
    assert_false(crypto_dh(a_secret, one, left));

    struct crypto_sign_key key;
    crypto_sign_keygen(&key);
    uint8_t secret[32], public_key[32], derived[32];
    crypto_dh_secret_of_sign(&key, secret);
    assert_true(crypto_dh_public_of_sign(key.public_key, public_key));
    crypto_dh_public(secret, derived);
    assert_memory_equal(public_key, derived, 32);
}

/* RFC 8439, section 2.8.2. */
static void test_crypto__aead(void **state)
{
    (void)state;
    uint8_t key[32], nonce[12], ad[12], tag[16], sealed[200];
    from_hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", key, 32);
    from_hex("070000004041424344454647", nonce, 12);
    from_hex("50515253c0c1c2c3c4c5c6c7", ad, 12);
    from_hex("1ae10b594f09e26a7e902ecbd0600691", tag, 16);
    const char plain[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                         "sunscreen would be it.";
    size_t len = sizeof plain - 1;
    struct crypto_aead *aead;
    assert_int_equal(crypto_aead_new(CRYPTO_CHACHA20_POLY1305, key, &aead, NULL), 0);
    assert_int_equal(crypto_aead_seal(aead, nonce, ad, 12, plain, len, sealed, NULL), 0);
    assert_memory_equal(sealed + len, tag, 16);
    sealed[3] ^= 1;
    uint8_t back[200];
    assert_int_equal(crypto_aead_open(aead, nonce, ad, 12, sealed, len + 16, back, NULL), ERR_AUTH);
    sealed[3] ^= 1;
    assert_int_equal(crypto_aead_open(aead, nonce, ad, 12, sealed, len + 16, sealed, NULL), 0);
    assert_int_equal(memcmp(sealed, plain, len), 0);
    assert_int_equal(crypto_aead_open(aead, nonce, ad, 12, sealed, 15, back, NULL), ERR_AUTH);
    crypto_aead_free(aead);
}

/* McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B, test case 16; by whichever code this CPU
 * takes. */
static void test_crypto__aes_gcm(void **state)
{
    (void)state;
    uint8_t key[32], nonce[12], ad[20], plain[60], expected[76], sealed[76], back[76];
    from_hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key, 32);
    from_hex("cafebabefacedbaddecaf888", nonce, 12);
    from_hex("feedfacedeadbeeffeedfacedeadbeefabaddad2", ad, 20);
    from_hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
             "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
             plain, 60);
    from_hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
             "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
             "76fc6ece0f4e1768cddf8853bb2d551b",
             expected, 76);
    struct crypto_aead *aead;
    uint8_t other[32] = {0};
    assert_int_equal(crypto_aead_new(CRYPTO_AES256_GCM, other, &aead, NULL), 0);
    assert_int_equal(crypto_aead_rekey(aead, key, NULL), 0);
    assert_int_equal(crypto_aead_seal(aead, nonce, ad, 20, plain, 60, sealed, NULL), 0);
    assert_memory_equal(sealed, expected, 76);
    for (size_t head = 0; head <= 60; head++) {
        memset(sealed, 0, sizeof sealed);
        assert_int_equal(
            crypto_aead_seal_parts(aead, nonce, ad, 20, plain, head, plain + head, 60 - head, sealed, NULL), 0);
        assert_memory_equal(sealed, expected, 76);
    }
    for (size_t i = 0; i < 76; i++) {
        sealed[i] ^= 0x80;
        assert_int_equal(crypto_aead_open(aead, nonce, ad, 20, sealed, 76, back, NULL), ERR_AUTH);
        sealed[i] ^= 0x80;
        assert_int_equal(crypto_aead_open(aead, nonce, ad, 20, sealed, i, back, NULL), ERR_AUTH);
    }
    assert_int_equal(crypto_aead_open(aead, nonce, ad, 19, sealed, 76, back, NULL), ERR_AUTH);
    assert_int_equal(crypto_aead_open(aead, nonce, ad, 20, sealed, 76, sealed, NULL), 0);
    assert_memory_equal(sealed, plain, 60);
    crypto_aead_free(aead);
}

/* draft-irtf-cfrg-xchacha-03, A.3.1 */
static void test_crypto__xchacha_vector(void **state)
{
    (void)state;
    uint8_t key[32], nonce[24], ad[12], tag[16], sealed[200], back[200];
    from_hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", key, 32);
    from_hex("404142434445464748494a4b4c4d4e4f5051525354555657", nonce, 24);
    from_hex("50515253c0c1c2c3c4c5c6c7", ad, 12);
    from_hex("c0875924c1c7987947deafd8780acf49", tag, 16);
    const char plain[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
                         "sunscreen would be it.";
    size_t len = sizeof plain - 1;
    struct crypto_aead *aead;
    uint8_t none[32] = {0};
    assert_int_equal(crypto_aead_new(CRYPTO_CHACHA20_POLY1305, none, &aead, NULL), 0);
    crypto_xchacha_key(key, nonce, key);
    const uint8_t *tail = nonce + CRYPTO_XCHACHA_HEAD_BYTES;
    assert_int_equal(crypto_xchacha_seal(aead, key, tail, ad, 12, plain, len, sealed, NULL), 0);
    assert_memory_equal(sealed + len, tag, 16);
    assert_int_equal(crypto_xchacha_open(aead, none, tail, ad, 12, sealed, len + 16, back, NULL), ERR_AUTH);
    assert_int_equal(crypto_xchacha_open(aead, key, tail, ad, 12, sealed, len + 16, back, NULL), 0);
    assert_memory_equal(back, plain, len);
    for (size_t i = 0; i < len + 16; i++) {
        sealed[i] ^= 0x80;
        assert_int_equal(crypto_xchacha_open(aead, key, tail, ad, 12, sealed, len + 16, back, NULL), ERR_AUTH);
        sealed[i] ^= 0x80;
        assert_int_equal(crypto_xchacha_open(aead, key, tail, ad, 12, sealed, i, back, NULL), ERR_AUTH);
    }
    nonce[23] ^= 1;
    assert_int_equal(crypto_xchacha_open(aead, key, tail, ad, 12, sealed, len + 16, back, NULL), ERR_AUTH);
    crypto_aead_free(aead);
}

static int setup(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crypto__hashes),    cmocka_unit_test(test_crypto__signatures),
        cmocka_unit_test(test_crypto__agreement), cmocka_unit_test(test_crypto__aead),
        cmocka_unit_test(test_crypto__aes_gcm),   cmocka_unit_test(test_crypto__xchacha_vector),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
