#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/clock.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "transfer/rsync.h"

#define RANGE_BYTES 100000u

static uint8_t *make_bytes(size_t len, uint64_t seed)
{
    uint8_t *data = malloc(len + 1);
    struct rng rng = rng_seeded(&seed);
    rng.fill(rng.ctx, data, len);
    return data;
}

static void sign(const uint8_t *range, size_t len, struct buf *ret_signature)
{
    struct err err = {0};
    *ret_signature = BUF(1u << 20);
    if (transfer_rsync_sign(range, len, ret_signature, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(transfer_rsync_check(ret_signature->data, ret_signature->len, len, &err), 0);
}

/* What `rdiff -b 1024 -S 4 -H blake2 -R rabinkarp` of librsync 2.3.2 says of bytes i * i / 8. */
static void test_rsync__signature_as_rdiff_makes_it(void **state)
{
    (void)state;
    static const uint8_t RDIFF[] = {0x72, 0x73, 0x01, 0x47, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x04,
                                    0x0c, 0x8c, 0x88, 0x01, 0x87, 0x54, 0xe8, 0xa3, 0x0c, 0x8c, 0x88, 0x01,
                                    0x87, 0x54, 0xe8, 0xa3, 0x86, 0x84, 0xaa, 0xe9, 0xdc, 0xea, 0x46, 0x7e};
    uint8_t data[3000];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i >> 3);
    struct buf signature;
    sign(data, sizeof data, &signature);
    assert_int_equal(signature.len, sizeof RDIFF);
    assert_memory_equal(signature.data, RDIFF, sizeof RDIFF);
    buf_release(&signature);
}

static void test_rsync__delta_of_a_change_anywhere(void **state)
{
    (void)state;
    OWNED(owned_free) uint8_t *range = make_bytes(RANGE_BYTES, 1);
    static const struct {
        size_t at;
        size_t cut;
        const char *put;
    } CHANGES[] = {
        {0, 0, "x"},    {0, 5, ""},  {50000, 0, "inserted"}, {50000, 3000, "shorter"}, {RANGE_BYTES, 0, "end"},
        {99999, 1, ""}, {500, 0, ""}};
    for (size_t i = 0; i < sizeof CHANGES / sizeof CHANGES[0]; i++) {
        struct buf data = BUF(2 * RANGE_BYTES);
        buf_add(&data, range, CHANGES[i].at);
        buf_add_str(&data, CHANGES[i].put);
        buf_add(&data, range + CHANGES[i].at + CHANGES[i].cut, RANGE_BYTES - CHANGES[i].at - CHANGES[i].cut);
        struct buf signature;
        struct buf delta = BUF(1u << 20);
        struct err err = {0};
        sign(range, RANGE_BYTES, &signature);
        assert_int_equal(transfer_rsync_delta(signature.data, signature.len, data.data, data.len, &delta, &err), 0);
        assert_in_range(delta.len, 5, 2 * RSYNC_BLOCK_BYTES + 100);
        OWNED(owned_free) uint8_t *back = malloc(data.len);
        assert_int_equal(transfer_rsync_patch(range, RANGE_BYTES, delta.data, delta.len, back, data.len, &err), 0);
        assert_memory_equal(back, data.data, data.len);
        buf_release(&data);
        buf_release(&signature);
        buf_release(&delta);
    }
}

/* Bytes that have nothing in common with the basis are given up soon. */
static void test_rsync__unlike_bytes_are_not_worth_it(void **state)
{
    (void)state;
    OWNED(owned_free) uint8_t *range = make_bytes(RANGE_BYTES, 1);
    OWNED(owned_free) uint8_t *data = make_bytes(LIMIT_GAP_BYTES, 2);
    struct buf signature;
    struct buf delta = BUF(1u << 20);
    sign(range, RANGE_BYTES, &signature);
    assert_int_equal(transfer_rsync_delta(signature.data, signature.len, data, LIMIT_GAP_BYTES, &delta, NULL),
                     ERR_LIMIT);
    assert_int_equal(delta.len, 0);
    buf_release(&signature);
    buf_release(&delta);
}

/* faults 44: signatures that librsync must not see. */
static void test_rsync__bad_signatures(void **state)
{
    (void)state;
    OWNED(owned_free) uint8_t *range = make_bytes(RANGE_BYTES, 1);
    struct buf good;
    sign(range, RANGE_BYTES, &good);
    static const struct {
        size_t at;
        uint32_t value;
    } CHANGES[] = {
        {0, 0x72730136}, /* MD4 and the old sum */
        {0, 0x72730146}, /* MD4 */
        {0, 0},          {4, 0},    {4, 1},  {4, 255},        {4, 0x80000000},
        {4, 65536},      {4, 2048},                                   /* then there are too many blocks */
        {8, 0},          {8, 3},    {8, 33}, {8, UINT32_MAX}, {8, 8}, /* then they are too short */
    };
    for (size_t i = 0; i < sizeof CHANGES / sizeof CHANGES[0]; i++) {
        uint8_t before[4];
        memcpy(before, good.data + CHANGES[i].at, 4);
        wire_store_u32(good.data + CHANGES[i].at, CHANGES[i].value);
        assert_int_equal(transfer_rsync_check(good.data, good.len, RANGE_BYTES, NULL), ERR_INVALID);
        memcpy(good.data + CHANGES[i].at, before, 4);
    }
    for (size_t len = 0; len < good.len; len += len < 30 ? 1 : 97)
        assert_int_equal(transfer_rsync_check(good.data, len, RANGE_BYTES, NULL), ERR_INVALID);
    assert_int_equal(transfer_rsync_check(good.data, good.len, RANGE_BYTES + RSYNC_BLOCK_BYTES, NULL), ERR_INVALID);
    assert_int_equal(transfer_rsync_check(good.data, good.len, 0, NULL), ERR_INVALID);
    assert_int_equal(transfer_rsync_check(good.data, good.len, RANGE_BYTES, NULL), 0);
    buf_release(&good);
}

/* A signature of n blocks with one weak sum, that of zeros, and strong sums that never fit. */
static void forge_chain(unsigned n, struct buf *ret_signature)
{
    OWNED(owned_free) uint8_t *zeros = calloc(1, RSYNC_BLOCK_BYTES);
    struct buf real;
    sign(zeros, RSYNC_BLOCK_BYTES, &real);
    *ret_signature = BUF(1u << 20);
    buf_add(ret_signature, real.data, RSYNC_HEAD_BYTES);
    for (unsigned i = 0; i < n; i++) {
        buf_add(ret_signature, real.data + RSYNC_HEAD_BYTES, RSYNC_WEAK_BYTES);
        wire_put_u32(ret_signature, i);
    }
    buf_release(&real);
}

/* faults 45: every byte of zeros would be compared with every block. */
static void test_rsync__chain_of_equal_weak_sums(void **state)
{
    (void)state;
    struct buf chain;
    forge_chain(512, &chain);
    assert_int_equal(transfer_rsync_check(chain.data, chain.len, 512 * RSYNC_BLOCK_BYTES, NULL), ERR_INVALID);
    buf_release(&chain);
    /* a short one passes; then a strong sum for every byte costs time, and is given up */
    forge_chain(4, &chain);
    assert_int_equal(transfer_rsync_check(chain.data, chain.len, 4 * RSYNC_BLOCK_BYTES, NULL), 0);
    OWNED(owned_free) uint8_t *zeros = calloc(1, LIMIT_GAP_BYTES);
    struct buf delta = BUF(1u << 20);
    assert_int_equal(transfer_rsync_delta(chain.data, chain.len, zeros, LIMIT_GAP_BYTES, &delta, NULL), ERR_LIMIT);
    buf_release(&chain);
    buf_release(&delta);
    /* many equal blocks are no chain */
    struct buf signature;
    sign(zeros, LIMIT_GAP_BYTES, &signature);
    buf_release(&signature);
}

static int patch(const uint8_t *commands, size_t len, size_t want)
{
    static const uint8_t RANGE[] = "0123456789";
    struct buf delta = BUF(64);
    uint8_t *out = malloc(want + 1); /* exactly, for the sanitizer */
    wire_put_u32(&delta, 0x72730236);
    buf_add(&delta, commands, len);
    int status = transfer_rsync_patch(RANGE, 10, delta.data, delta.len, out, want, NULL);
    free(out);
    buf_release(&delta);
    return status;
}

/* faults 44: deltas of a peer. */
static void test_rsync__bad_deltas(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint8_t commands[20];
        size_t len;
        size_t want;
        int status;
    } CASES[] = {
        {"copy all", {69, 0, 10, 0}, 4, 10, 0},
        {"literal and copy", {2, 'a', 'b', 69, 8, 2, 0}, 7, 4, 0},
        {"copy with wide numbers", {84, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0}, 18, 9, 0},
        {"literal with a length", {65, 3, 'a', 'b', 'c', 0}, 6, 3, 0},
        {"copy beyond the basis", {69, 5, 6, 0}, 4, 6, ERR_CORRUPT},
        {"copy behind the basis", {69, 10, 1, 0}, 4, 1, ERR_CORRUPT},
        {"copy that wraps",
         {84, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 2, 0},
         18,
         2,
         ERR_CORRUPT},
        {"zero-length copy", {69, 0, 0, 69, 0, 10, 0}, 7, 10, ERR_CORRUPT},
        {"zero-length literal", {65, 0, 69, 0, 10, 0}, 6, 10, ERR_CORRUPT},
        {"literal of 2^63", {68, 128, 0, 0, 0, 0, 0, 0, 0, 'a', 0}, 11, 1, ERR_CORRUPT},
        {"literal longer than the delta", {64, 'a', 0}, 3, 64, ERR_CORRUPT},
        {"more than is wanted", {69, 0, 10, 69, 0, 10, 0}, 7, 12, ERR_CORRUPT},
        {"less than is wanted", {69, 0, 5, 0}, 4, 10, ERR_CORRUPT},
        {"no end", {69, 0, 10}, 3, 10, ERR_CORRUPT},
        {"bytes behind the end", {69, 0, 10, 0, 0}, 5, 10, ERR_CORRUPT},
        {"a reserved command", {85, 0, 10, 0}, 4, 10, ERR_CORRUPT},
        {"nothing", {0}, 0, 10, ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        if (patch(CASES[i].commands, CASES[i].len, CASES[i].want) != CASES[i].status)
            fail_msg("%s", CASES[i].what);
    }
    uint8_t out[10];
    assert_int_equal(
        transfer_rsync_patch((const uint8_t *)"0123456789", 10, (const uint8_t *)"rs\1G", 4, out, 10, NULL),
        ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rsync__signature_as_rdiff_makes_it),
        cmocka_unit_test(test_rsync__delta_of_a_change_anywhere),
        cmocka_unit_test(test_rsync__unlike_bytes_are_not_worth_it),
        cmocka_unit_test(test_rsync__bad_signatures),
        cmocka_unit_test(test_rsync__chain_of_equal_weak_sums),
        cmocka_unit_test(test_rsync__bad_deltas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
