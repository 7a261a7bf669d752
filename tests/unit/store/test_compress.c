#include "store/compress.h"

#include "fixture.h"

static void test_compress__a_chunk_comes_back(void **state)
{
    (void)state;
    struct err err = {0};
    uint8_t *zeros = calloc(1, LIMIT_CHUNK_BYTES);
    struct store_compress *press;
    must(store_compress_new(&press, &err));
    size_t len;
    const uint8_t *pressed = store_compress_chunk(press, zeros, LIMIT_CHUNK_BYTES, &len);
    assert_non_null(pressed);
    assert_true(len < 1000);
    uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
    must(store_compress_undo(pressed, len, back, LIMIT_CHUNK_BYTES, &err));
    assert_memory_equal(back, zeros, LIMIT_CHUNK_BYTES);
    free(back);
    store_compress_free(press);
    free(zeros);
}

static void test_compress__incompressible_streams_are_tried_seldom(void **state)
{
    (void)state;
    struct err err = {0};
    uint8_t *noise = fixture_bytes(1, 65536);
    uint8_t *zeros = calloc(1, 65536);
    struct store_compress *press;
    must(store_compress_new(&press, &err));
    size_t len;
    for (int i = 0; i < 200; i++)
        assert_null(store_compress_chunk(press, noise, 65536, &len));
    int until = 0;
    while (!store_compress_chunk(press, zeros, 65536, &len)) /* it recovers, but not at once */
        until++;
    assert_in_range(until, 1, 64);
    assert_non_null(store_compress_chunk(press, zeros, 65536, &len));
    store_compress_free(press);
    free(zeros);
    free(noise);
}

/* faults 30 */
static void test_compress__undo_is_bounded_by_the_declared_length(void **state)
{
    (void)state;
    struct err err = {0};
    uint8_t *zeros = calloc(1, LIMIT_CHUNK_BYTES);
    uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
    struct store_compress *press;
    must(store_compress_new(&press, &err));
    size_t len;
    const uint8_t *pressed = store_compress_chunk(press, zeros, 100000, &len);
    assert_int_equal(store_compress_undo(pressed, len, back, 99999, &err), ERR_CORRUPT);
    assert_int_equal(store_compress_undo(pressed, len, back, 100001, &err), ERR_CORRUPT);
    assert_int_equal(store_compress_undo(pressed, len, back, LIMIT_CHUNK_BYTES + 1, &err), ERR_CORRUPT);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(store_compress_undo(pressed, cut, back, 100000, &err), ERR_CORRUPT);
    uint8_t twice[2048];
    memcpy(twice, pressed, len);
    memcpy(twice + len, pressed, len);
    assert_int_equal(store_compress_undo(twice, 2 * len, back, LIMIT_CHUNK_BYTES, &err), ERR_CORRUPT);
    assert_int_equal(store_compress_undo("garbage", 7, back, 100, &err), ERR_CORRUPT);
    store_compress_free(press);
    free(zeros);
    free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compress__a_chunk_comes_back),
        cmocka_unit_test(test_compress__incompressible_streams_are_tried_seldom),
        cmocka_unit_test(test_compress__undo_is_bounded_by_the_declared_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
