#include "transfer/rsync.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librsync.h> /* needs what stdint.h and time.h declare */

#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/base/wire.h"

#define SIGNATURE_MAGIC 0x72730147u /* "rs\1G": RabinKarp and BLAKE2 */
#define DELTA_MAGIC 0x72730236u     /* "rs\2" and '6' */

/* A delta is made piece by piece, and looked at in between. */
#define PIECE_BYTES (32u << 10)
#define UNDECIDED_BYTES (64u << 10) /* literals that are always allowed */
/* Unmatched bytes cost 14 to 18 ns each, and a strong sum a byte, which nature does not bring about, some 1,000. */
#define BUDGET_NS_PER_BYTE 200u
#define BUDGET_NS 20000000u
/* Blocks with one weak sum but different strong ones. They are compared one by one; those of real data are few. */
#define ALIKE_MAX 8u

static void release_job(rs_job_t **job)
{
    if (*job)
        rs_job_free(*job);
}

static void release_sums(rs_signature_t **sums)
{
    if (*sums)
        rs_free_sumset(*sums);
}

size_t transfer_rsync_signature_bytes(size_t range_bytes, uint32_t block_bytes, uint32_t strong_bytes)
{
    return RSYNC_HEAD_BYTES + (range_bytes + block_bytes - 1) / block_bytes * (RSYNC_WEAK_BYTES + strong_bytes);
}

/* librsync's buffers are not const, though it only reads them. */
static char *as_input(const void *data)
{
    return (char *)(uintptr_t)data;
}

int transfer_rsync_sign(const void *range, size_t range_bytes, struct buf *ret_signature, struct err *err)
{
    size_t need = transfer_rsync_signature_bytes(range_bytes, RSYNC_BLOCK_BYTES, RSYNC_STRONG_BYTES);
    uint8_t *out = buf_reserve(ret_signature, need);
    if (!out)
        return err_set(err, ERR_LIMIT, "no room for a signature of %zu bytes", need);
    OWNED(release_job) rs_job_t *job = rs_sig_begin(RSYNC_BLOCK_BYTES, RSYNC_STRONG_BYTES, RS_RK_BLAKE2_SIG_MAGIC);
    rs_buffers_t buffers = {
        .next_in = as_input(range), .avail_in = range_bytes, .eof_in = 1, .next_out = (char *)out, .avail_out = need};
    if (rs_job_iter(job, &buffers) != RS_DONE || buffers.avail_out != 0)
        return err_set(err, ERR_INTERNAL, "librsync makes no signature of %zu bytes", range_bytes);
    ret_signature->len += need;
    return 0;
}

/* ---- signatures from peers ---- */

static int compare_blocks(const void *a, const void *b, void *ctx)
{
    return memcmp(a, b, *(const size_t *)ctx);
}

/* Is any weak sum shared by more than ALIKE_MAX different blocks? Equal blocks are kept once by librsync. */
static int check_alike(const uint8_t *blocks, size_t n, size_t each, struct err *err)
{
    OWNED(owned_free) uint8_t *sorted = malloc(n * each + 1);
    if (!sorted)
        return err_set(err, ERR_NOMEM, "no memory to look at a signature");
    memcpy(sorted, blocks, n * each);
    qsort_r(sorted, n, each, compare_blocks, &each);
    unsigned alike = 0;
    for (size_t i = 1; i < n; i++) {
        const uint8_t *block = sorted + i * each;
        if (memcmp(block - each, block, RSYNC_WEAK_BYTES) != 0)
            alike = 0;
        else if (memcmp(block - each, block, each) != 0 && ++alike >= ALIKE_MAX)
            return err_set(err, ERR_INVALID, "a signature with more than %u blocks of one weak sum", ALIKE_MAX);
    }
    return 0;
}

int transfer_rsync_check(const uint8_t *signature, size_t signature_bytes, size_t range_bytes, struct err *err)
{
    if (range_bytes == 0 || range_bytes > LIMIT_GAP_BASIS_BYTES || signature_bytes < RSYNC_HEAD_BYTES)
        return err_set(err, ERR_INVALID, "no signature of %zu bytes has %zu", range_bytes, signature_bytes);
    uint32_t magic = wire_load_u32(signature);
    uint32_t block = wire_load_u32(signature + 4);
    uint32_t strong = wire_load_u32(signature + 8);
    if (magic != SIGNATURE_MAGIC || block < RSYNC_BLOCK_MIN_BYTES || block > RSYNC_BLOCK_MAX_BYTES ||
        strong < RSYNC_STRONG_BYTES || strong > RS_MAX_STRONG_SUM_LENGTH)
        return err_set(err, ERR_INVALID, "a signature of kind %08x with blocks of %u and sums of %u bytes", magic,
                       block, strong);
    if (signature_bytes != transfer_rsync_signature_bytes(range_bytes, block, strong))
        return err_set(err, ERR_INVALID, "a signature of %zu bytes for a range of %zu", signature_bytes, range_bytes);
    size_t each = RSYNC_WEAK_BYTES + strong;
    return check_alike(signature + RSYNC_HEAD_BYTES, (signature_bytes - RSYNC_HEAD_BYTES) / each, each, err);
}

/* ---- deltas ---- */

static int load_sums(const uint8_t *signature, size_t signature_bytes, rs_signature_t **ret_sums, struct err *err)
{
    OWNED(release_sums) rs_signature_t *sums = NULL;
    OWNED(release_job) rs_job_t *job = rs_loadsig_begin(&sums);
    rs_buffers_t buffers = {.next_in = as_input(signature), .avail_in = signature_bytes, .eof_in = 1};
    if (rs_job_iter(job, &buffers) != RS_DONE || rs_build_hash_table(sums) != RS_DONE)
        return err_set(err, ERR_INVALID, "librsync refuses a signature");
    *ret_sums = STEAL(sums);
    return 0;
}

static uint64_t cpu_ns(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int transfer_rsync_delta(const uint8_t *signature, size_t signature_bytes, const void *data, size_t len_bytes,
                         struct buf *ret_delta, struct err *err)
{
    size_t room = len_bytes / 2 + UNDECIDED_BYTES + 1024;
    uint8_t *out = buf_reserve(ret_delta, room);
    if (!out)
        return err_set(err, ERR_LIMIT, "no room for a delta of %zu bytes", room);
    OWNED(release_sums) rs_signature_t *sums = NULL;
    int status = load_sums(signature, signature_bytes, &sums, err);
    if (status < 0)
        return status;
    OWNED(release_job) rs_job_t *job = rs_delta_begin(sums);
    rs_buffers_t buffers = {.next_in = as_input(data), .next_out = (char *)out, .avail_out = room};
    uint64_t deadline = cpu_ns() + BUDGET_NS + len_bytes * BUDGET_NS_PER_BYTE;
    for (size_t given = 0;;) {
        size_t piece = len_bytes - given < PIECE_BYTES ? len_bytes - given : PIECE_BYTES;
        given += piece;
        buffers.avail_in += piece;
        buffers.eof_in = given == len_bytes;
        rs_result result = rs_job_iter(job, &buffers);
        size_t made = room - buffers.avail_out;
        if (result == RS_DONE) {
            ret_delta->len += made;
            return 0;
        }
        if (result != RS_BLOCKED || buffers.eof_in || made > given / 2 + UNDECIDED_BYTES || cpu_ns() > deadline)
            return err_set(err, ERR_LIMIT, "a delta of %zu bytes is %zu after %zu", len_bytes, made, given);
    }
}

/* Lengths of the parameters of LITERAL and COPY, by the low bits of their codes. */
static const uint8_t WIDTHS[] = {1, 2, 4, 8};

static uint64_t get_number(struct wire *wire, unsigned width)
{
    switch (width) {
    case 1:
        return wire_get_u8(wire);
    case 2:
        return wire_get_u16(wire);
    case 4:
        return wire_get_u32(wire);
    default:
        return wire_get_u64(wire);
    }
}

/* Codes: 0 END; 1 to 64 a literal of so many bytes; 65 to 68 a literal whose length follows in 1, 2, 4 or 8 bytes; 69
 * to 84 a copy, whose place follows in 1, 2, 4 or 8 bytes (by fours) and then its length, likewise. */
int transfer_rsync_patch(const uint8_t *range, size_t range_bytes, const uint8_t *delta, size_t delta_bytes,
                         uint8_t *ret_data, size_t len_bytes, struct err *err)
{
    struct wire wire;
    wire_init(&wire, delta, delta_bytes);
    bool is_delta = wire_get_u32(&wire) == DELTA_MAGIC;
    size_t made = 0;
    uint8_t code;
    while (is_delta && (code = wire_get_u8(&wire)) != 0) {
        const uint8_t *from = NULL;
        uint64_t length = code;
        if (code >= 69 && code <= 84) {
            uint64_t place = get_number(&wire, WIDTHS[(code - 69) / 4]);
            length = get_number(&wire, WIDTHS[(code - 69) % 4]);
            if (place < range_bytes && length <= range_bytes - place)
                from = range + place;
        } else if (code <= 68) {
            if (code >= 65)
                length = get_number(&wire, WIDTHS[code - 65]);
            from = length <= wire_left(&wire) ? wire_get_bytes(&wire, (size_t)length) : NULL;
        }
        if (!from || length == 0 || length > len_bytes - made || wire.failed)
            return err_set(err, ERR_CORRUPT, "a delta goes wrong after %zu of %zu bytes", made, len_bytes);
        memcpy(ret_data + made, from, (size_t)length);
        made += (size_t)length;
    }
    if (!is_delta || !wire_done(&wire) || made != len_bytes)
        return err_set(err, ERR_CORRUPT, "a delta gives %zu bytes, not %zu", made, len_bytes);
    return 0;
}
