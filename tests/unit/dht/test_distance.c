#include "tests/unit/dht/rig.h"

/* As the paper says it, bit by bit. */
static bool bit_of(const struct id *id, unsigned bit)
{
    return id->b[bit / 8] >> (7 - bit % 8) & 1;
}

static struct id any_id(unsigned number)
{
    struct id id;
    crypto_id_of(&number, sizeof number, &id);
    return id;
}

static void test_distance__is_xor(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        struct id target = any_id(i), a = any_id(i + 1), b = any_id(i + 2);
        if (i % 2)
            memcpy(b.b, a.b, i % ID_BYTES);
        unsigned bit = 0;
        while (bit_of(&a, bit) == bit_of(&b, bit))
            assert_false(dht_differ_at(&a, &b, bit++));
        assert_true(dht_differ_at(&a, &b, bit));
        assert_int_equal(dht_shared_bits(&a, &b), bit);
        bool a_is_closer = bit_of(&a, bit) == bit_of(&target, bit);
        assert_int_equal(dht_closer(&target, &a, &b) < 0, a_is_closer);
        assert_int_equal(dht_closer(&target, &b, &a) > 0, a_is_closer);
    }
    struct id same = rig_key(1);
    assert_int_equal(dht_shared_bits(&same, &same), 256);
    assert_int_equal(dht_closer(&same, &same, &same), 0);
}

static void test_distance__ids_apart(void **state)
{
    (void)state;
    uint64_t seed = RIG_SEED;
    struct rng rng = rng_seeded(&seed);
    struct id self = rig_key(1);
    for (unsigned bits = 0; bits < 256; bits++) {
        struct id apart = dht_id_apart(&self, bits, &rng);
        assert_int_equal(dht_shared_bits(&self, &apart), bits);
    }
}

int main(void)
{
    assert_int_equal(crypto_init(NULL), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance__is_xor),
        cmocka_unit_test(test_distance__ids_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
