#include "node/image/origin.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/image/import.h"
#include "node/image/recompress.h"

#define ORIGIN_TYPE "cmig image origin"
#define ORIGIN_VERSION 1

void image_origin_free(struct image_origin *origin)
{
    if (!origin)
        return;
    free(origin->layers);
    free(origin);
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for an image's origin");
}

static int make_layers(struct image_origin *origin, size_t count, struct err *err)
{
    if (count < 1 || count > LIMIT_IMAGE_LAYERS)
        return err_set(err, ERR_LIMIT, "an image has 1 to %d layers, not %zu", LIMIT_IMAGE_LAYERS, count);
    origin->layers = calloc(count, sizeof *origin->layers);
    origin->layer_count = origin->layers ? count : 0;
    return origin->layers ? 0 : no_memory(err);
}

int image_origin_new(const struct image *image, struct image_origin **ret_origin, struct err *err)
{
    OWNED(owned_image_origin) struct image_origin *origin = calloc(1, sizeof *origin);
    if (!origin)
        return no_memory(err);
    int status = make_layers(origin, image->layer_count, err);
    if (status < 0)
        return status;
    origin->config = image->config;
    for (size_t i = 0; i < origin->layer_count; i++)
        origin->layers[i].packing.codec = IMAGE_CODEC_OPAQUE;
    *ret_origin = STEAL(origin);
    return 0;
}

/* ---- writing ---- */

static json_t *part_to_json(const struct image_part *part)
{
    char digest[DIGEST_TEXT_SIZE];
    return json_pack("{s:s, s:I}", "digest", digest_text(&part->digest, digest), "size", (json_int_t)part->size_bytes);
}

static int add_part(json_t *array, const struct image_part *part, const struct image_packing *packing, struct err *err)
{
    OWNED(owned_json) json_t *json = part_to_json(part);
    int status = packing ? image_packing_encode(packing, json, err) : 0;
    if (status == 0 && json_array_append(array, json) < 0)
        status = no_memory(err);
    return status;
}

static int to_json(const struct image_origin *origin, json_t *json, struct err *err)
{
    json_t *documents = json_object_get(json, "documents"), *layers = json_object_get(json, "layers");
    int status = 0;
    for (size_t i = 0; status == 0 && i < origin->document_count; i++)
        status = add_part(documents, &origin->documents[i], NULL, err);
    for (size_t i = 0; status == 0 && i < origin->layer_count; i++)
        status = add_part(layers, &origin->layers[i].blob, &origin->layers[i].packing, err);
    return status;
}

static int encode(const struct image_origin *origin, struct buf *buf, struct err *err)
{
    char config[DIGEST_TEXT_SIZE];
    OWNED(owned_json)
    json_t *json = json_pack("{s:s, s:i, s:s, s:[], s:[]}", "type", ORIGIN_TYPE, "version", ORIGIN_VERSION, "config",
                             digest_text(&origin->config, config), "documents", "layers");
    if (!json)
        return no_memory(err);
    int status = to_json(origin, json, err);
    return status == 0 ? image_json_dump(json, buf, err) : status;
}

int image_origin_seal(struct image_origin *origin, struct buf *buf, struct err *err)
{
    size_t before = buf->len;
    int status = encode(origin, buf, err);
    if (status == 0)
        crypto_sha256(buf->data + before, buf->len - before, &origin->digest);
    return status;
}

/* ---- reading ---- */

static int take_part(const json_t *json, uint64_t max_bytes, struct image_part *ret_part, struct err *err)
{
    int status = image_json_need_digest(json, "digest", &ret_part->digest, err);
    if (status > 0)
        status = image_json_need_size(json, "size", max_bytes, &ret_part->size_bytes, err);
    return status < 0 ? status : 0;
}

/* index.json and the manifest at least. */
static int take_documents(const json_t *json, struct image_origin *origin, struct err *err)
{
    const json_t *documents;
    int status = image_json_need_array(json, "documents", &documents, err);
    if (status < 0)
        return status;
    size_t count = json_array_size(documents);
    if (count < 2 || count > LIMIT_IMAGE_DOCUMENTS)
        return err_set(err, ERR_LIMIT, "a layout has 2 to %d documents, not %zu", LIMIT_IMAGE_DOCUMENTS, count);
    origin->document_count = count;
    status = 0;
    for (size_t i = 0; status == 0 && i < count; i++)
        status = take_part(json_array_get(documents, i), LIMIT_MANIFEST_BYTES, &origin->documents[i], err);
    return status;
}

static int take_layers(const json_t *json, struct image_origin *origin, struct err *err)
{
    const json_t *layers;
    int status = image_json_need_array(json, "layers", &layers, err);
    if (status > 0)
        status = make_layers(origin, json_array_size(layers), err);
    for (size_t i = 0; status == 0 && i < origin->layer_count; i++) {
        const json_t *layer = json_array_get(layers, i);
        status = take_part(layer, LIMIT_OBJECT_BYTES, &origin->layers[i].blob, err);
        if (status == 0)
            status = image_packing_decode(layer, &origin->layers[i].packing, err);
    }
    return status;
}

static int take_all(const json_t *json, struct image_origin *origin, struct err *err)
{
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "not an object");
    int status = image_json_need_digest(json, "config", &origin->config, err);
    if (status > 0)
        status = take_documents(json, origin, err);
    return status == 0 ? take_layers(json, origin, err) : status;
}

/* As with manifests: whatever is not as we would have written it, is found by writing it. */
static int check_canonical(struct image_origin *origin, const void *data, size_t len_bytes, struct err *err)
{
    OWNED(buf_release) struct buf ours = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_origin_seal(origin, &ours, err);
    if (status < 0)
        return status;
    if (ours.len != len_bytes || memcmp(ours.data, data, len_bytes) != 0)
        return err_set(err, ERR_INVALID, "not in canonical form, or of another version");
    return 0;
}

int image_origin_parse(const void *data, size_t len_bytes, struct image_origin **ret_origin, struct err *err)
{
    OWNED(owned_json) json_t *json = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = calloc(1, sizeof *origin);
    if (!origin)
        return no_memory(err);
    int status = image_json_load(data, len_bytes, "the image's origin", &json, err);
    if (status < 0)
        return status;
    status = take_all(json, origin, err);
    if (status == 0)
        status = check_canonical(origin, data, len_bytes, err);
    if (status < 0)
        return err_wrap(err, "the image's origin");
    *ret_origin = STEAL(origin);
    return 0;
}

/* ---- does it belong together? ---- */

static int contradiction(const char *what, struct err *err)
{
    return err_set(err, ERR_INVALID, "the image's origin contradicts %s", what);
}

static bool leads_to(const json_t *index, const struct image_part *next)
{
    const json_t *manifests = json_object_get(index, "manifests");
    for (size_t i = 0; i < json_array_size(manifests); i++) {
        struct image_part part;
        if (take_part(json_array_get(manifests, i), LIMIT_MANIFEST_BYTES, &part, NULL) == 0 &&
            id_equal(&part.digest, &next->digest) && part.size_bytes == next->size_bytes)
            return true;
    }
    return false;
}

static int check_manifest(const json_t *manifest, const struct image_origin *origin, struct err *err)
{
    struct image_part part;
    const json_t *layers = json_object_get(manifest, "layers");
    if (take_part(json_object_get(manifest, "config"), LIMIT_MANIFEST_BYTES, &part, NULL) < 0 ||
        !id_equal(&part.digest, &origin->config) || json_array_size(layers) != origin->layer_count)
        return contradiction("the layout's manifest", err);
    for (size_t i = 0; i < origin->layer_count; i++)
        if (take_part(json_array_get(layers, i), LIMIT_OBJECT_BYTES, &part, NULL) < 0 ||
            !id_equal(&part.digest, &origin->layers[i].blob.digest) ||
            part.size_bytes != origin->layers[i].blob.size_bytes)
            return contradiction("the layout's manifest", err);
    return 0;
}

static int check_document(struct store *store, const struct image_origin *origin, size_t at, struct err *err)
{
    const struct image_part *part = &origin->documents[at];
    OWNED(owned_json) json_t *json = NULL;
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_read_blob(store, &part->digest, &bytes, err);
    if (status == 0 && bytes.len != part->size_bytes)
        status = contradiction("its documents", err);
    if (status == 0)
        status = image_json_load(bytes.data, bytes.len, "a document of the layout", &json, err);
    if (status < 0)
        return status;
    if (at == origin->document_count - 1)
        return check_manifest(json, origin, err);
    return leads_to(json, &origin->documents[at + 1]) ? 0 : contradiction("the layout's index", err);
}

int image_origin_check(struct store *store, const struct image_origin *origin, const struct image *image,
                       struct err *err)
{
    int status = 0;
    if (!id_equal(&origin->config, &image->config) || origin->layer_count != image->layer_count)
        return contradiction("the image", err);
    for (size_t i = 0; i < image->layer_count; i++) {
        const struct image_origin_layer *layer = &origin->layers[i];
        if (layer->packing.codec == IMAGE_CODEC_PLAIN && (!id_equal(&layer->blob.digest, &image->layers[i].diff_id) ||
                                                          layer->blob.size_bytes != image->layers[i].size_bytes))
            return contradiction("the image", err);
    }
    for (size_t i = 0; status == 0 && i < origin->document_count; i++)
        status = check_document(store, origin, i, err);
    return status;
}

/* ---- in the store: a reference from the image's manifest to the origin ---- */

static int load(struct store *store, const struct id *digest, struct image_origin **ret_origin, struct err *err)
{
    OWNED(buf_release) struct buf bytes = BUF(LIMIT_MANIFEST_BYTES);
    int status = image_read_blob(store, digest, &bytes, err);
    return status == 0 ? image_origin_parse(bytes.data, bytes.len, ret_origin, err) : status;
}

int image_origin_get(struct store *store, const struct image *image, struct image_origin **ret_origin, struct err *err)
{
    char hex[ID_HEX_SIZE];
    struct store_ref ref;
    int status = store_ref_latest(store, IMAGE_ORIGIN_REF, id_hex(&image->manifest, hex), &ref, NULL, err);
    if (status <= 0)
        return status;
    status = load(store, &ref.digest, ret_origin, err);
    if (status == ERR_NOTFOUND && err) /* evicted, where nobody kept it */
        err_clear(err);
    return status == ERR_NOTFOUND ? 0 : status < 0 ? status : 1;
}

int image_origin_objects(const struct image_origin *origin, bool opaque, struct id **ret_ids, size_t *ret_count,
                         struct err *err)
{
    struct id *ids = calloc(1 + origin->document_count + origin->layer_count, sizeof *ids);
    if (!ids)
        return no_memory(err);
    size_t count = 0;
    ids[count++] = origin->digest;
    for (size_t i = 0; i < origin->document_count; i++)
        ids[count++] = origin->documents[i].digest;
    for (size_t i = 0; opaque && i < origin->layer_count; i++)
        if (origin->layers[i].packing.codec == IMAGE_CODEC_OPAQUE)
            ids[count++] = origin->layers[i].blob.digest;
    *ret_ids = ids;
    *ret_count = count;
    return 0;
}

static int pin_all(struct store *store, const struct image *image, const struct image_origin *origin, bool pin,
                   struct err *err)
{
    char owner[IMAGE_OWNER_SIZE];
    OWNED(owned_free) struct id *ids = NULL;
    size_t count = 0;
    int status = image_origin_objects(origin, true, &ids, &count, err);
    image_owner(image, owner);
    for (size_t i = 0; status == 0 && i < count; i++)
        status = pin ? store_pin(store, &ids[i], owner, err) : store_unpin(store, &ids[i], owner, err);
    return status;
}

int image_origin_forget(struct store *store, const struct image *image, struct err *err)
{
    char hex[ID_HEX_SIZE];
    struct store_ref ref;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    int status = store_ref_latest(store, IMAGE_ORIGIN_REF, id_hex(&image->manifest, hex), &ref, NULL, err);
    if (status <= 0)
        return status;
    status = ref.keep && load(store, &ref.digest, &origin, NULL) == 0 ? pin_all(store, image, origin, false, err) : 0;
    if (status == 0)
        status = store_ref_remove(store, IMAGE_ORIGIN_REF, hex, ref.version, err);
    return status < 0 ? status : 0;
}

int image_origin_register(struct store *store, const struct image *image, const struct image_origin *origin, bool own,
                          struct err *err)
{
    char hex[ID_HEX_SIZE];
    struct store_ref ref = {
        .kind = IMAGE_ORIGIN_REF, .name = id_hex(&image->manifest, hex), .digest = origin->digest, .keep = own};
    int status = image_origin_forget(store, image, err);
    if (status == 0 && own)
        status = pin_all(store, image, origin, true, err);
    return status == 0 ? store_ref_set(store, &ref, err) : status;
}

struct search {
    struct store *store;
    const struct image_part *blob;
    const struct id *diff_id;
    struct image_packing *ret_packing;
};

/* Only what was imported here has been proven here. The config says which tar the blob was made of. */
static int look_for_blob(const struct store_ref *ref, void *ctx)
{
    struct search *search = ctx;
    struct id manifest;
    OWNED(owned_image) struct image *image = NULL;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    if (!ref->keep || !id_parse_hex(ref->name, &manifest) || image_load(search->store, &manifest, &image, NULL) < 0 ||
        load(search->store, &ref->digest, &origin, NULL) < 0)
        return 0;
    for (size_t i = 0; i < origin->layer_count && i < image->layer_count; i++) {
        const struct image_origin_layer *layer = &origin->layers[i];
        if (!id_equal(&layer->blob.digest, &search->blob->digest) ||
            layer->blob.size_bytes != search->blob->size_bytes || !id_equal(&image->layers[i].diff_id, search->diff_id))
            continue;
        *search->ret_packing = layer->packing;
        return layer->packing.codec != IMAGE_CODEC_OPAQUE ||
               store_object_stat(search->store, &layer->blob.digest, NULL, NULL) > 0;
    }
    return 0;
}

int image_origin_find(struct store *store, const struct image_part *blob, const struct id *diff_id,
                      struct image_packing *ret_packing, struct err *err)
{
    struct search search = {store, blob, diff_id, ret_packing};
    return store_ref_each(store, IMAGE_ORIGIN_REF, NULL, look_for_blob, &search, err);
}

/* ---- images from peers ---- */

int image_adopt_origin(struct store *store, const struct image *image, const struct id *digest, struct err *err)
{
    char hex[ID_HEX_SIZE];
    struct store_ref ref;
    OWNED(owned_image_origin) struct image_origin *origin = NULL;
    int status = store_ref_latest(store, IMAGE_ORIGIN_REF, id_hex(&image->manifest, hex), &ref, NULL, err);
    if (status != 0 && (status < 0 || ref.keep))
        return status < 0 ? status : 0;
    status = load(store, digest, &origin, err);
    if (status == 0)
        status = image_origin_check(store, origin, image, err);
    return status == 0 ? image_origin_register(store, image, origin, false, err) : status;
}
