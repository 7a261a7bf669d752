#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/crypto_sha256x2.h"
#include "node/base/scope.h"

#define DATA_BYTES 4096u

static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static size_t below(size_t n)
{
    uint32_t word;
    crypto_random(&word, sizeof word);
    return word % n;
}

static void expect_state(const uint32_t state[8], const char *hex)
{
    struct id digest;
    char text[ID_HEX_SIZE];
    for (size_t i = 0; i < 8; i++)
        for (size_t k = 0; k < 4; k++)
            digest.b[4 * i + k] = (uint8_t)(state[i] >> (24 - 8 * k));
    assert_string_equal(id_hex(&digest, text), hex);
}

/* FIPS 180-2, appendix B.1 and B.2, as blocks with their padding: one stream of each, beside the other's. */
static void test_crypto_sha256x2__vectors(void **state)
{
    (void)state;
    static const char long_text[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    if (!crypto_sha256x2_works()) {
        print_message("this CPU has no instructions for SHA-256: nothing to try\n");
        skip();
    }
    uint8_t two_blocks[128] = {0};
    memcpy(two_blocks, long_text, 56);
    two_blocks[56] = 0x80;
    two_blocks[126] = 0x01, two_blocks[127] = 0xc0; /* 448 bits */
    uint8_t one_block[128] = {'a', 'b', 'c', 0x80, [63] = 24};
    uint32_t a[8], b[8];
    memcpy(a, START, sizeof a);
    memcpy(b, START, sizeof b);
    crypto_sha256x2_add(a, one_block, b, two_blocks, 1);
    expect_state(a, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256x2_add(b, two_blocks + 64, a, one_block, 1);
    expect_state(b, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    crypto_sha256x2_add(b, two_blocks, a, one_block, 0);
    expect_state(b, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/* Pieces of all lengths at all alignments, some added alone, some with their digest: as libcrypto has them. */
static void test_crypto_sha256x2__splits(void **state)
{
    (void)state;
    OWNED(owned_free) uint8_t *data = malloc(DATA_BYTES);
    crypto_random(data, DATA_BYTES);
    struct crypto_sha256 *hash;
    assert_int_equal(crypto_sha256_new(&hash, NULL), 0);
    for (int round = 0; round < 500; round++) {
        size_t start = below(130);
        size_t at = start;
        size_t end = start + below(DATA_BYTES - start);
        while (at < end) {
            size_t part = 1 + below(round % 2 ? 70 : 1500);
            part = part < end - at ? part : end - at;
            struct id expected, piece, wrong = {{0}};
            crypto_sha256(data + at, part, &expected);
            switch (below(3)) {
            case 0:
                crypto_sha256_add(hash, data + at, part);
                break;
            case 1:
                crypto_sha256_add_piece(hash, data + at, part, &piece);
                assert_true(id_equal(&piece, &expected));
                break;
            default:
                assert_false(crypto_sha256_add_if(hash, data + at, part, &wrong));
                assert_true(crypto_sha256_add_if(hash, data + at, part, &expected));
            }
            at += part;
        }
        struct id whole, expected;
        crypto_sha256_take(hash, &whole);
        crypto_sha256(data + start, end - start, &expected);
        assert_true(id_equal(&whole, &expected));
    }
    crypto_sha256_free(hash);
}

static void test_crypto_sha256x2__nothing(void **state)
{
    (void)state;
    struct crypto_sha256 *hash;
    struct id piece, whole, empty;
    crypto_sha256("", 0, &empty);
    assert_int_equal(crypto_sha256_new(&hash, NULL), 0);
    crypto_sha256_add_piece(hash, "", 0, &piece);
    crypto_sha256_take(hash, &whole);
    assert_true(id_equal(&piece, &empty) && id_equal(&whole, &empty));
    crypto_sha256_free(hash);
}

/* The length is counted in two words: past 512 MiB the second is needed. */
static void test_crypto_sha256x2__long_counts(void **state)
{
    (void)state;
    const size_t part = 8u << 20;
    OWNED(owned_free) uint8_t *data = calloc(1, part);
    struct crypto_sha256 *pairs, *alone;
    assert_int_equal(crypto_sha256_new(&pairs, NULL), 0);
    assert_int_equal(crypto_sha256_new(&alone, NULL), 0);
    struct id a, b;
    for (int i = 0; i < 65; i++) {
        crypto_sha256_add(alone, data, part);
        if (i == 63)
            crypto_sha256_add_piece(pairs, data, part, &a);
        else
            crypto_sha256_add(pairs, data, part);
    }
    crypto_sha256_take(pairs, &a);
    crypto_sha256_take(alone, &b);
    assert_true(id_equal(&a, &b));
    crypto_sha256_free(pairs);
    crypto_sha256_free(alone);
}

static int setup(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crypto_sha256x2__vectors),
        cmocka_unit_test(test_crypto_sha256x2__splits),
        cmocka_unit_test(test_crypto_sha256x2__nothing),
        cmocka_unit_test(test_crypto_sha256x2__long_counts),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
