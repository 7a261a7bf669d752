#include "store/compress.h"

#include <stdlib.h>
#include <zstd.h>

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
