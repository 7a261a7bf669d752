#include "store/compress.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "node/base/limits.h"
#include "node/base/scope.h"

#define LEVEL 1
#define SKIP_MAX 63u
/* Kept compressed only if it saves a 32nd: less is not worth the decompression. */
#define SAVED_SHIFT 5
#define PRESSED_MAX_BYTES (LIMIT_CHUNK_BYTES - (LIMIT_CHUNK_BYTES >> SAVED_SHIFT))

struct store_compress {
    ZSTD_CCtx *context; /* owned */
    unsigned skip_next; /* how many to skip after the next failure */
    unsigned skip_left;
    uint8_t out[PRESSED_MAX_BYTES];
};

OWNED_DEFINE(owned_press, struct store_compress, store_compress_free)

int store_compress_new(struct store_compress **ret_press, struct err *err)
{
    OWNED(owned_press) struct store_compress *press = calloc(1, sizeof *press);
    if (press)
        press->context = ZSTD_createCCtx();
    if (!press || !press->context)
        return err_set(err, ERR_NOMEM, "no memory for a compressor");
    *ret_press = STEAL(press);
    return 0;
}

void store_compress_free(struct store_compress *press)
{
    if (!press)
        return;
    ZSTD_freeCCtx(press->context);
    free(press);
}

const uint8_t *store_compress_chunk(struct store_compress *press, const void *data, size_t len_bytes, size_t *ret_len)
{
    if (press->skip_left > 0) {
        press->skip_left--;
        return NULL;
    }
    size_t room = len_bytes - (len_bytes >> SAVED_SHIFT);
    if (room > sizeof press->out)
        room = sizeof press->out;
    size_t got = ZSTD_compressCCtx(press->context, press->out, room, data, len_bytes, LEVEL);
    if (ZSTD_isError(got)) { /* most likely: it does not fit into the room, because it hardly shrinks */
        press->skip_next = press->skip_next * 2 + 1 < SKIP_MAX ? press->skip_next * 2 + 1 : SKIP_MAX;
        press->skip_left = press->skip_next;
        return NULL;
    }
    press->skip_next = 0;
    *ret_len = got;
    return press->out;
}

int store_compress_undo(const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes, struct err *err)
{
    if (raw_bytes > LIMIT_CHUNK_BYTES)
        return err_set(err, ERR_CORRUPT, "a compressed chunk claims %zu bytes", raw_bytes);
    if (ZSTD_findFrameCompressedSize(data, len_bytes) != len_bytes)
        return err_set(err, ERR_CORRUPT, "a compressed chunk of %zu bytes is not one zstd frame", len_bytes);
    size_t got = ZSTD_decompress(ret_data, raw_bytes, data, len_bytes);
    if (ZSTD_isError(got))
        return err_set(err, ERR_CORRUPT, "a compressed chunk does not decompress: %s", ZSTD_getErrorName(got));
    if (got != raw_bytes)
        return err_set(err, ERR_CORRUPT, "a compressed chunk gives %zu bytes, not %zu", got, raw_bytes);
    return 0;
}

size_t store_compress_again(void *frame, size_t len_bytes, size_t raw_bytes, int level)
{
    size_t cap = len_bytes - len_bytes / 50;
    OWNED(owned_free) uint8_t *raw = malloc(raw_bytes + 1);
    OWNED(owned_free) uint8_t *out = malloc(cap + 1);
    if (!raw || !out || store_compress_undo(frame, len_bytes, raw, raw_bytes, NULL) < 0)
        return len_bytes;
    size_t got = ZSTD_compress(out, cap, raw, raw_bytes, level);
    if (ZSTD_isError(got))
        return len_bytes; /* it does not fit into so little */
    memcpy(frame, out, got);
    return got;
}

/* ---- deltas ---- */

struct store_patch {
    ZSTD_CCtx *context; /* owned */
};

OWNED_DEFINE(owned_patch, struct store_patch, store_patch_free)
OWNED_DEFINE(owned_dctx, ZSTD_DCtx, ZSTD_freeDCtx)

/* Page images differ in a few bytes here and there: a finder with two tables (of every 8 bytes, of some 6) gives what
 * the long distance one gives, in half the time. Archives differ in few places, wholly: there the long distance finder
 * gives a third less. Measured: docs/decisions/014-gaps.md. */
struct parameter {
    ZSTD_cParameter name;
    int value;
};
#define WINDOW_LOG 21 /* gap and basis, 1.5 MiB: in one piece it costs no memory */
static const struct parameter FOR_PAGES[] = {
    {ZSTD_c_strategy, ZSTD_dfast}, {ZSTD_c_hashLog, 17},           {ZSTD_c_chainLog, 12},
    {ZSTD_c_minMatch, 6},          {ZSTD_c_windowLog, WINDOW_LOG}, {0, 0},
};
static const struct parameter FOR_ARCHIVES[] = {
    {ZSTD_c_compressionLevel, LEVEL},
    {ZSTD_c_enableLongDistanceMatching, 1},
    {ZSTD_c_windowLog, WINDOW_LOG},
    {0, 0},
};

int store_patch_new(enum store_chunking chunking, struct store_patch **ret_patch, struct err *err)
{
    OWNED(owned_patch) struct store_patch *patch = calloc(1, sizeof *patch);
    if (patch)
        patch->context = ZSTD_createCCtx();
    if (!patch || !patch->context)
        return err_set(err, ERR_NOMEM, "no memory for a compressor");
    const struct parameter *parameter = chunking == STORE_CHUNKING_PAGES ? FOR_PAGES : FOR_ARCHIVES;
    for (; parameter->name; parameter++) {
        size_t got = ZSTD_CCtx_setParameter(patch->context, parameter->name, parameter->value);
        if (ZSTD_isError(got))
            return err_set(err, ERR_INTERNAL, "zstd refuses a parameter: %s", ZSTD_getErrorName(got));
    }
    *ret_patch = STEAL(patch);
    return 0;
}

void store_patch_free(struct store_patch *patch)
{
    if (!patch)
        return;
    ZSTD_freeCCtx(patch->context);
    free(patch);
}

size_t store_compress_bound(size_t len_bytes)
{
    return ZSTD_compressBound(len_bytes);
}

int store_patch_make(struct store_patch *patch, const void *prefix, size_t prefix_bytes, const void *data,
                     size_t len_bytes, void *ret_frame, size_t cap_bytes, size_t *ret_len, struct err *err)
{
    size_t got = ZSTD_CCtx_refPrefix(patch->context, prefix, prefix_bytes); /* for the next frame only */
    if (!ZSTD_isError(got))
        got = ZSTD_compress2(patch->context, ret_frame, cap_bytes, data, len_bytes);
    if (!ZSTD_isError(got)) {
        *ret_len = got;
        return 0;
    }
    return err_set(err, ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall ? ERR_LIMIT : ERR_NOMEM,
                   "cannot compress a delta: %s", ZSTD_getErrorName(got));
}

int store_patch_undo(const void *prefix, size_t prefix_bytes, const void *frame, size_t len_bytes, void *ret_data,
                     size_t cap_bytes, size_t *ret_len, struct err *err)
{
    unsigned long long says = ZSTD_getFrameContentSize(frame, len_bytes);
    if (says == ZSTD_CONTENTSIZE_ERROR || says == ZSTD_CONTENTSIZE_UNKNOWN || says > cap_bytes ||
        ZSTD_findFrameCompressedSize(frame, len_bytes) != len_bytes)
        return err_set(err, ERR_CORRUPT, "a delta of %zu bytes is not one zstd frame of up to %zu", len_bytes,
                       cap_bytes);
    OWNED(owned_dctx) ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context || ZSTD_isError(ZSTD_DCtx_refPrefix(context, prefix, prefix_bytes)))
        return err_set(err, ERR_NOMEM, "no memory for a decompressor");
    /* in one piece: what was written is the window */
    size_t got = ZSTD_decompressDCtx(context, ret_data, cap_bytes, frame, len_bytes);
    if (ZSTD_isError(got) || got != says)
        return err_set(err, ERR_CORRUPT, "a delta does not decompress: %s", ZSTD_getErrorName(got));
    *ret_len = got;
    return 0;
}
