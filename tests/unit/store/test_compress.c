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

/* Bytes that a higher level finds more in than level 1: each line is a variation of one further back. */
static void fill_lines(uint8_t *data, size_t len)
{
    uint64_t seed = 5;
    for (size_t at = 0; at < len; at++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        data[at] = at < 700 || seed >> 60 == 0 ? (uint8_t)(seed >> 56) : data[at - 300 - 40 * (at / 300 % 10)];
    }
}

/* A better frame gives the same bytes, one that is no better leaves the old, and what is no frame stays as it is. */
static void test_compress__again(void **state)
{
    (void)state;
    struct err err = {0};
    size_t raw_len = 100000, len;
    uint8_t *data = malloc(raw_len), *frame = malloc(raw_len), *back = malloc(raw_len);
    fill_lines(data, raw_len);
    struct store_compress *press;
    must(store_compress_new(&press, &err));
    const uint8_t *pressed = store_compress_chunk(press, data, raw_len, &len);
    assert_non_null(pressed);
    memcpy(frame, pressed, len);
    size_t better = store_compress_again(frame, len, raw_len, 15);
    assert_true(better <= len - len / 50);
    must(store_compress_undo(frame, better, back, raw_len, &err));
    assert_memory_equal(back, data, raw_len);
    assert_int_equal(store_compress_again(frame, better, raw_len, 1), better);
    must(store_compress_undo(frame, better, back, raw_len, &err));
    memset(frame, 0xa5, 1000);
    assert_int_equal(store_compress_again(frame, 1000, raw_len, 15), 1000);
    assert_int_equal(frame[0], 0xa5);
    store_compress_free(press);
    free(back);
    free(frame);
    free(data);
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
        cmocka_unit_test(test_compress__again),
        cmocka_unit_test(test_compress__undo_is_bounded_by_the_declared_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
