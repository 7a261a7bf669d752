/* Long zstd frames: whatever the options and the pieces, what comes out is one frame of what went in. */
#include "tests/test.h"

#include <string.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/scope.h"
#include "store/compress_whole.h"

#define PLAIN_BYTES 300000

OWNED_DEFINE(owned_whole, struct store_whole, store_whole_free)

static int collect(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    return buf_add(ctx, data, len_bytes) < 0 ? err_set(err, ERR_NOMEM, "no memory") : 0;
}

static void make_plain(struct buf *plain)
{
    uint64_t state = 7;
    struct rng rng = rng_seeded(&state);
    while (plain->len < PLAIN_BYTES)
        buf_addf(plain, "%u of them\n", (unsigned)rng_below(&rng, 5000));
    plain->len = PLAIN_BYTES;
}

static void compress(const struct store_whole_options *options, const struct buf *plain, size_t step, struct buf *out)
{
    struct err err = {0};
    OWNED(owned_whole) struct store_whole *whole = NULL;
    assert_int_equal(store_whole_new(options, collect, out, &whole, &err), 0);
    for (size_t at = 0; at < plain->len; at += step)
        assert_int_equal(
            store_whole_write(whole, plain->data + at, plain->len - at < step ? plain->len - at : step, &err), 0);
    assert_int_equal(store_whole_finish(whole, &err), 0);
}

struct feed {
    const struct buf *buf;
    size_t at;
};

static ssize_t give(void *ctx, void *ret_data, size_t room_bytes, struct err *err)
{
    struct feed *feed = ctx;
    size_t left = feed->buf->len - feed->at, len = left < room_bytes ? left : room_bytes;
    (void)err;
    memcpy(ret_data, feed->buf->data + feed->at, len);
    feed->at += len;
    return (ssize_t)len;
}

static void assert_is(const struct buf *packed, const struct buf *plain)
{
    struct err err = {0};
    OWNED(buf_release) struct buf back = BUF(1u << 20);
    struct feed feed = {.buf = packed};
    assert_int_equal(store_archive_expand(give, &feed, collect, &back, 1u << 20, &err), 0);
    assert_true(back.len == plain->len && memcmp(back.data, plain->data, back.len) == 0);
}

static void test_compress_whole__options(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf plain = BUF(1u << 20);
    make_plain(&plain);
    for (unsigned bits = 0; bits < 8; bits++) {
        OWNED(buf_release) struct buf once = BUF(1u << 20), pieces = BUF(1u << 20);
        const struct store_whole_options options = {.level = bits == 7 ? 9 : 3,
                                                    .checksum = bits & 1,
                                                    .sized = bits & 2,
                                                    .jobs = bits & 4,
                                                    .plain_bytes = plain.len};
        compress(&options, &plain, plain.len, &once);
        compress(&options, &plain, 1021, &pieces);
        assert_true(once.len == pieces.len && memcmp(once.data, pieces.data, once.len) == 0);
        assert_is(&once, &plain);
        /* RFC 8878, section 3.1.1.1.1 */
        assert_int_equal(once.data[4] & 4, options.checksum ? 4 : 0);
        assert_int_equal(once.data[4] >> 5 != 0, options.sized);
    }
}

static void test_compress_whole__levels_have_bounds(void **state)
{
    static const int levels[] = {-5, 0, STORE_WHOLE_LEVEL_MAX + 1, 22, 1000};
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        struct err err = {0};
        struct store_whole *whole = NULL;
        const struct store_whole_options options = {.level = levels[i]};
        assert_int_equal(store_whole_new(&options, collect, NULL, &whole, &err), ERR_INVALID);
        assert_null(whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compress_whole__options),
        cmocka_unit_test(test_compress_whole__levels_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
