#include "node/image/recompress.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "node/base/limits.h"
#include "store/compress_whole.h"

#define OUT_BYTES (64u << 10)
#define FEED_BYTES (1u << 20) /* of plain bytes at once: zlib counts with 32 bits */

/* pigz 2.3.1 and later: blocks of 128 KiB, each compressed for itself after the 32 KiB in front of it. */
#define BLOCK_BYTES (128u << 10)
#define DICTIONARY_BYTES (32u << 10)

/* ---- what a blob's first bytes say ---- */

/* The length of a gzip head (RFC 1952, section 2.3): 0 if it is none, or does not end within len_bytes. */
static size_t gzip_head(const uint8_t *data, size_t len_bytes)
{
    enum { FLAG_HEAD_CRC = 2, FLAG_EXTRA = 4, FLAG_NAME = 8, FLAG_COMMENT = 16, FLAG_RESERVED = 0xe0 };
    static const uint8_t magic[] = {0x1f, 0x8b, 8};
    size_t at = 10;
    if (len_bytes < at || memcmp(data, magic, sizeof magic) != 0 || (data[3] & FLAG_RESERVED))
        return 0;
    if (data[3] & FLAG_EXTRA) {
        if (len_bytes < at + 2)
            return 0;
        at += 2u + data[at] + 256u * data[at + 1];
    }
    for (unsigned flag = FLAG_NAME; flag <= FLAG_COMMENT; flag *= 2) {
        if (!(data[3] & flag))
            continue;
        const uint8_t *end = at < len_bytes ? memchr(data + at, 0, len_bytes - at) : NULL;
        if (!end)
            return 0;
        at = (size_t)(end - data) + 1;
    }
    at += data[3] & FLAG_HEAD_CRC ? 2 : 0;
    return at <= len_bytes ? at : 0;
}

/* RFC 8878, section 3.1.1.1: a size is there if its flag is not 0, or the frame is a single segment. */
static bool zstd_head(const uint8_t *data, size_t len_bytes, struct image_packing *ret_packing)
{
    static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    if (len_bytes < 5 || memcmp(data, magic, sizeof magic) != 0)
        return false;
    *ret_packing = (struct image_packing){
        .codec = IMAGE_CODEC_ZSTD, .level = 1, .checksum = data[4] & 4, .sized = (data[4] >> 6) || (data[4] & 32)};
    return true;
}

void image_packing_look(const void *data, size_t len_bytes, struct image_packing *ret_packing)
{
    *ret_packing = (struct image_packing){.codec = IMAGE_CODEC_OPAQUE};
    if (zstd_head(data, len_bytes, ret_packing))
        return;
    size_t head = gzip_head(data, len_bytes);
    if (head == 0 || head > LIMIT_IMAGE_HEAD_BYTES)
        return;
    *ret_packing = (struct image_packing){
        .codec = IMAGE_CODEC_GZIP, .level = Z_BEST_SPEED, .memory = MAX_MEM_LEVEL - 1, .head_len = (uint16_t)head};
    memcpy(ret_packing->head, data, head);
}

/* ---- as JSON ---- */

static const char *const codec_names[] = {[IMAGE_CODEC_PLAIN] = "plain",
                                          [IMAGE_CODEC_GZIP] = "gzip",
                                          [IMAGE_CODEC_ZSTD] = "zstd",
                                          [IMAGE_CODEC_OPAQUE] = "opaque"};

const char *image_codec_name(enum image_codec codec)
{
    return codec_names[codec];
}

int image_packing_encode(const struct image_packing *packing, json_t *object, struct err *err)
{
    char head[2 * LIMIT_IMAGE_HEAD_BYTES + 1];
    int status = json_object_set_new(object, "codec", json_string(image_codec_name(packing->codec)));
    if (packing->codec == IMAGE_CODEC_GZIP) {
        hex_encode(packing->head, packing->head_len, head);
        status |= json_object_set_new(object, "level", json_integer(packing->level));
        status |= json_object_set_new(object, "memory", json_integer(packing->memory));
        status |= json_object_set_new(object, "blocks", json_boolean(packing->blocks));
        status |= json_object_set_new(object, "head", json_string(head));
    } else if (packing->codec == IMAGE_CODEC_ZSTD) {
        status |= json_object_set_new(object, "level", json_integer(packing->level));
        status |= json_object_set_new(object, "checksum", json_boolean(packing->checksum));
        status |= json_object_set_new(object, "sized", json_boolean(packing->sized));
        status |= json_object_set_new(object, "jobs", json_boolean(packing->jobs));
    }
    return status == 0 ? 0 : err_set(err, ERR_NOMEM, "no memory for a layer's packing");
}

static int decode_number(const json_t *object, const char *name, unsigned min, unsigned max, uint8_t *ret_number,
                         struct err *err)
{
    uint64_t number;
    int status = image_json_need_size(object, name, max, &number, err);
    if (status > 0 && number < min)
        return err_set(err, ERR_INVALID, "field '%s' is not a number from %u to %u", name, min, max);
    if (status > 0)
        *ret_number = (uint8_t)number;
    return status < 0 ? status : 0;
}

static int decode_flag(const json_t *object, const char *name, bool *ret_flag, struct err *err)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_boolean(value))
        return err_set(err, ERR_INVALID, "field '%s' is not true or false", name);
    *ret_flag = json_is_true(value);
    return 0;
}

static int decode_head(const json_t *object, struct image_packing *packing, struct err *err)
{
    const char *text;
    int status = image_json_need_string(object, "head", &text, err);
    if (status < 0)
        return status;
    size_t len = strlen(text);
    if (len > 2 * sizeof packing->head || len % 2 || !hex_decode(text, len, packing->head, len / 2) ||
        gzip_head(packing->head, len / 2) != len / 2 || len == 0)
        return err_set(err, ERR_INVALID, "field 'head' is not the head of a gzip file");
    packing->head_len = (uint16_t)(len / 2);
    return 0;
}

static int decode_gzip(const json_t *object, struct image_packing *packing, struct err *err)
{
    int status = decode_number(object, "level", Z_BEST_SPEED, Z_BEST_COMPRESSION, &packing->level, err);
    if (status == 0)
        status = decode_number(object, "memory", MAX_MEM_LEVEL - 1, MAX_MEM_LEVEL, &packing->memory, err);
    if (status == 0)
        status = decode_flag(object, "blocks", &packing->blocks, err);
    return status == 0 ? decode_head(object, packing, err) : status;
}

static int decode_zstd(const json_t *object, struct image_packing *packing, struct err *err)
{
    int status = decode_number(object, "level", 1, STORE_WHOLE_LEVEL_MAX, &packing->level, err);
    if (status == 0)
        status = decode_flag(object, "checksum", &packing->checksum, err);
    if (status == 0)
        status = decode_flag(object, "sized", &packing->sized, err);
    return status == 0 ? decode_flag(object, "jobs", &packing->jobs, err) : status;
}

int image_packing_decode(const json_t *object, struct image_packing *ret_packing, struct err *err)
{
    const char *text;
    int status = image_json_need_string(object, "codec", &text, err);
    if (status < 0)
        return status;
    struct image_packing packing = {0};
    while (strcmp(text, image_codec_name(packing.codec)) != 0)
        if (packing.codec++ == IMAGE_CODEC_OPAQUE)
            return err_set(err, ERR_INVALID, "field 'codec' is none of plain, gzip, zstd and opaque");
    status = packing.codec == IMAGE_CODEC_GZIP   ? decode_gzip(object, &packing, err)
             : packing.codec == IMAGE_CODEC_ZSTD ? decode_zstd(object, &packing, err)
                                                 : 0;
    if (status == 0)
        *ret_packing = packing;
    return status;
}

/* ---- making a blob ---- */

struct image_recompress {
    const struct image_packing *packing; /* borrowed */
    store_archive_write_cb write_cb;
    void *ctx;
    struct store_whole *zstd; /* owned; of zstd */
    z_stream deflate;         /* of gzip */
    bool deflating;           /* then it is to be ended */
    bool begun;               /* the head was written */
    uint32_t crc;             /* of all plain bytes so far, and their number modulo 2^32: a gzip file's last 8 bytes */
    uint32_t plain_bytes;
    uint8_t *block; /* owned; of `blocks`: the dictionary, then the block that is being filled */
    size_t dictionary_len;
    size_t block_len;
    uint8_t out[OUT_BYTES];
};

static int open_deflate(struct image_recompress *press, struct err *err)
{
    const struct image_packing *packing = press->packing;
    press->crc = (uint32_t)crc32(0, NULL, 0);
    if (packing->blocks)
        press->block = malloc(DICTIONARY_BYTES + BLOCK_BYTES);
    if (packing->blocks && !press->block)
        return err_set(err, ERR_NOMEM, "no memory for a compressor");
    int status =
        deflateInit2(&press->deflate, packing->level, Z_DEFLATED, -MAX_WBITS, packing->memory, Z_DEFAULT_STRATEGY);
    press->deflating = status == Z_OK;
    return status == Z_OK ? 0 : err_set(err, ERR_NOMEM, "zlib cannot begin");
}

int image_recompress_new(const struct image_packing *packing, uint64_t plain_bytes, store_archive_write_cb write_cb,
                         void *ctx, struct image_recompress **ret_press, struct err *err)
{
    OWNED(owned_recompress) struct image_recompress *press = calloc(1, sizeof *press);
    if (!press)
        return err_set(err, ERR_NOMEM, "no memory for a compressor");
    press->packing = packing;
    press->write_cb = write_cb;
    press->ctx = ctx;
    const struct store_whole_options options = {.level = packing->level,
                                                .checksum = packing->checksum,
                                                .sized = packing->sized,
                                                .jobs = packing->jobs,
                                                .plain_bytes = plain_bytes};
    int status = 0;
    if (packing->codec == IMAGE_CODEC_OPAQUE)
        status = err_set(err, ERR_INVALID, "an opaque blob cannot be made");
    else if (packing->codec == IMAGE_CODEC_ZSTD)
        status = store_whole_new(&options, write_cb, ctx, &press->zstd, err);
    else if (packing->codec == IMAGE_CODEC_GZIP)
        status = open_deflate(press, err);
    if (status == 0)
        *ret_press = STEAL(press);
    return status;
}

void image_recompress_free(struct image_recompress *press)
{
    if (!press)
        return;
    if (press->deflating)
        deflateEnd(&press->deflate);
    store_whole_free(press->zstd);
    free(press->block);
    free(press);
}

/* Until zlib has taken all input and wants no more room. */
static int run(struct image_recompress *press, int flush, struct err *err)
{
    z_stream *stream = &press->deflate;
    do {
        stream->next_out = press->out;
        stream->avail_out = sizeof press->out;
        if (deflate(stream, flush) == Z_STREAM_ERROR)
            return err_set(err, ERR_INTERNAL, "zlib lost its state");
        size_t len = sizeof press->out - stream->avail_out;
        int status = len > 0 ? press->write_cb(press->ctx, press->out, len, err) : 0;
        if (status < 0)
            return status;
    } while (stream->avail_out == 0);
    return 0;
}

static int deflate_some(struct image_recompress *press, const uint8_t *data, size_t len_bytes, int flush,
                        struct err *err)
{
    press->deflate.next_in = (uint8_t *)(uintptr_t)data;
    press->deflate.avail_in = (uInt)len_bytes;
    return run(press, flush, err);
}

/* To a byte's boundary, as pigz goes there: with empty static blocks of 10 bits if they can reach it, else with an
 * empty stored one. */
static int align(struct image_recompress *press, struct err *err)
{
    int bits = 0;
    deflatePending(&press->deflate, NULL, &bits);
    if (bits & 1)
        return run(press, Z_SYNC_FLUSH, err);
    if (!(bits & 7))
        return 0;
    for (; bits & 7; deflatePending(&press->deflate, NULL, &bits))
        deflatePrime(&press->deflate, 10, 2);
    return run(press, Z_BLOCK, err);
}

static int end_block(struct image_recompress *press, bool last, struct err *err)
{
    const uint8_t *data = press->block + DICTIONARY_BYTES;
    deflateReset(&press->deflate);
    if (press->dictionary_len > 0)
        deflateSetDictionary(&press->deflate, data - press->dictionary_len, (uInt)press->dictionary_len);
    int status = deflate_some(press, data, press->block_len, last ? Z_FINISH : Z_BLOCK, err);
    if (status == 0 && !last)
        status = align(press, err);
    if (last)
        return status;
    press->dictionary_len = DICTIONARY_BYTES;
    memcpy(press->block, data + BLOCK_BYTES - DICTIONARY_BYTES, DICTIONARY_BYTES);
    press->block_len = 0;
    return status;
}

/* A block is ended by the byte that comes after it: the last one ends otherwise. */
static int write_blocks(struct image_recompress *press, const uint8_t *data, size_t len_bytes, struct err *err)
{
    int status = 0;
    while (status == 0 && len_bytes > 0) {
        if (press->block_len == BLOCK_BYTES)
            status = end_block(press, false, err);
        size_t room = BLOCK_BYTES - press->block_len, len = len_bytes < room ? len_bytes : room;
        memcpy(press->block + DICTIONARY_BYTES + press->block_len, data, len);
        press->block_len += len;
        data += len;
        len_bytes -= len;
    }
    return status;
}

static int begin(struct image_recompress *press, struct err *err)
{
    if (press->begun)
        return 0;
    press->begun = true;
    return press->write_cb(press->ctx, press->packing->head, press->packing->head_len, err);
}

static int write_gzip(struct image_recompress *press, const uint8_t *data, size_t len_bytes, struct err *err)
{
    int status = begin(press, err);
    while (status == 0 && len_bytes > 0) {
        size_t len = len_bytes < FEED_BYTES ? len_bytes : FEED_BYTES;
        press->crc = (uint32_t)crc32(press->crc, data, (uInt)len);
        press->plain_bytes += (uint32_t)len;
        status = press->block ? write_blocks(press, data, len, err) : deflate_some(press, data, len, Z_NO_FLUSH, err);
        data += len;
        len_bytes -= len;
    }
    return status;
}

int image_recompress_write(struct image_recompress *press, const void *data, size_t len_bytes, struct err *err)
{
    switch (press->packing->codec) {
    case IMAGE_CODEC_GZIP:
        return write_gzip(press, data, len_bytes, err);
    case IMAGE_CODEC_ZSTD:
        return store_whole_write(press->zstd, data, len_bytes, err);
    default:
        return press->write_cb(press->ctx, data, len_bytes, err);
    }
}

static int finish_gzip(struct image_recompress *press, struct err *err)
{
    uint32_t tail[2] = {htole32(press->crc), htole32(press->plain_bytes)};
    int status = begin(press, err);
    if (status == 0)
        status = press->block ? end_block(press, true, err) : deflate_some(press, NULL, 0, Z_FINISH, err);
    return status == 0 ? press->write_cb(press->ctx, tail, sizeof tail, err) : status;
}

int image_recompress_finish(struct image_recompress *press, struct err *err)
{
    switch (press->packing->codec) {
    case IMAGE_CODEC_GZIP:
        return finish_gzip(press, err);
    case IMAGE_CODEC_ZSTD:
        return store_whole_finish(press->zstd, err);
    default:
        return 0;
    }
}
