#include "store/compress_whole.h"

#include <stdlib.h>
#include <zstd.h>

#include "node/base/scope.h"

struct store_whole {
    ZSTD_CCtx *context; /* owned */
    store_archive_write_cb write_cb;
    void *ctx;
    size_t room_bytes;
    uint8_t out[];
};

OWNED_DEFINE(owned_whole, struct store_whole, store_whole_free)

static int set_up(struct store_whole *whole, const struct store_whole_options *options, struct err *err)
{
    ZSTD_CCtx *context = whole->context;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, options->level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, options->checksum)) ||
        (options->sized && ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(context, options->plain_bytes))))
        return err_set(err, ERR_INVALID, "zstd does not take these options");
    if (options->jobs && ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_nbWorkers, 1)))
        return err_set(err, ERR_UNSUPPORTED, "this build of zstd has no threads");
    return 0;
}

int store_whole_new(const struct store_whole_options *options, store_archive_write_cb write_cb, void *ctx,
                    struct store_whole **ret_whole, struct err *err)
{
    size_t room = ZSTD_CStreamOutSize();
    if (options->level < 1 || options->level > STORE_WHOLE_LEVEL_MAX)
        return err_set(err, ERR_INVALID, "zstd level %d is not from 1 to %d", options->level, STORE_WHOLE_LEVEL_MAX);
    OWNED(owned_whole) struct store_whole *whole = calloc(1, sizeof *whole + room);
    if (whole)
        whole->context = ZSTD_createCCtx();
    if (!whole || !whole->context)
        return err_set(err, ERR_NOMEM, "no memory for a compressor");
    whole->write_cb = write_cb;
    whole->ctx = ctx;
    whole->room_bytes = room;
    int status = set_up(whole, options, err);
    if (status == 0)
        *ret_whole = STEAL(whole);
    return status;
}

/* Until all input is taken, or, at the end, all output given. */
static int run(struct store_whole *whole, ZSTD_inBuffer *in, ZSTD_EndDirective end, struct err *err)
{
    size_t left;
    do {
        ZSTD_outBuffer out = {whole->out, whole->room_bytes, 0};
        left = ZSTD_compressStream2(whole->context, &out, in, end);
        if (ZSTD_isError(left))
            return err_set(err, ERR_INTERNAL, "zstd failed: %s", ZSTD_getErrorName(left));
        int status = out.pos > 0 ? whole->write_cb(whole->ctx, whole->out, out.pos, err) : 0;
        if (status < 0)
            return status;
    } while (end == ZSTD_e_end ? left > 0 : in->pos < in->size);
    return 0;
}

int store_whole_write(struct store_whole *whole, const void *data, size_t len_bytes, struct err *err)
{
    ZSTD_inBuffer in = {data, len_bytes, 0};
    return run(whole, &in, ZSTD_e_continue, err);
}

int store_whole_finish(struct store_whole *whole, struct err *err)
{
    ZSTD_inBuffer in = {NULL, 0, 0};
    return run(whole, &in, ZSTD_e_end, err);
}

void store_whole_free(struct store_whole *whole)
{
    if (!whole)
        return;
    ZSTD_freeCCtx(whole->context);
    free(whole);
}
