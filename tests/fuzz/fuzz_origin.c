/* How an image came, as bytes from a peer: the document is accepted in one spelling only, and with nothing in it that
 * would make an encoder large. And the first bytes of a blob, as bytes from a file. */
#include <assert.h>
#include <string.h>

#include "node/base/limits.h"
#include "node/image/origin.h"
#include "node/image/recompress.h"
#include "store/compress_whole.h"

static int swallow(void *ctx, const void *data, size_t len_bytes, struct err *err)
{
    size_t *total = ctx;
    (void)data;
    (void)err;
    *total += len_bytes;
    return 0;
}

static void check_packing(const struct image_packing *packing)
{
    OWNED(owned_recompress) struct image_recompress *press = NULL;
    struct err err = {0};
    size_t total = 0;
    if (packing->codec == IMAGE_CODEC_ZSTD)
        assert(packing->level >= 1 && packing->level <= STORE_WHOLE_LEVEL_MAX);
    if (packing->codec != IMAGE_CODEC_GZIP)
        return;
    assert(packing->level >= 1 && packing->level <= 9 && packing->head_len >= 10);
    assert(packing->head_len <= LIMIT_IMAGE_HEAD_BYTES);
    assert(image_recompress_new(packing, 3, swallow, &total, &press, &err) == 0);
    assert(image_recompress_write(press, "abc", 3, &err) == 0 && image_recompress_finish(press, &err) == 0);
    assert(total > packing->head_len);
}

static void check(struct image_origin *origin, const uint8_t *data, size_t size)
{
    struct err err = {0};
    OWNED(buf_release) struct buf again = BUF(LIMIT_MANIFEST_BYTES);
    struct id digest = origin->digest;
    assert(origin->document_count >= 2 && origin->document_count <= LIMIT_IMAGE_DOCUMENTS);
    assert(origin->layers && origin->layer_count >= 1 && origin->layer_count <= LIMIT_IMAGE_LAYERS);
    for (size_t i = 0; i < origin->layer_count; i++) {
        assert(origin->layers[i].blob.size_bytes <= LIMIT_OBJECT_BYTES);
        check_packing(&origin->layers[i].packing);
    }
    assert(image_origin_seal(origin, &again, &err) == 0);
    assert(again.len == size && memcmp(again.data, data, size) == 0 && id_equal(&digest, &origin->digest));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    struct image_packing packing;
    int status = image_origin_parse(data, size, &origin, &err);
    assert(status == 0 || (status < 0 && err.code == status && !origin));
    if (status == 0)
        check(origin, data, size);
    image_packing_look(data, size, &packing);
    check_packing(&packing);
    return 0;
}
