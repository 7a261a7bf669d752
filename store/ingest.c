/* From a stream of bytes to an object: cut, hash, compress, write, commit. */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/chunk.h"
#include "store/draft.h"
#include "store/evict.h"
#include "store/objects.h"

struct store_ingest {
    struct store *store; /* borrowed */
    enum store_kind kind;
    enum store_chunking chunking;
    struct store_chunker chunker;
    struct store_draft draft;
    struct store_compress *press;        /* owned */
    struct crypto_sha256 *hash;          /* owned; of the whole */
    uint64_t rot_found;                  /* of the store, at the beginning */
    size_t held_bytes;                   /* in `held` */
    bool broken;                         /* a write failed: what was cut is no longer the stream */
    uint8_t held[STORE_CHUNK_MAX_BYTES]; /* the beginning of a chunk whose end has not come yet */
};

OWNED_DEFINE(owned_ingest, struct store_ingest, store_ingest_free)

int store_ingest_new(struct store *store, enum store_kind kind, enum store_chunking chunking,
                     struct store_ingest **ret_ingest, struct err *err)
{
    if (!store_kind_is_valid(kind) || !store_chunking_is_valid(chunking))
        return err_set(err, ERR_INVALID, "no object of kind %d and chunking %d", (int)kind, (int)chunking);
    int status = store_evict_make_room(store, 1, err);
    if (status < 0)
        return status;
    struct store_ingest *made = malloc(sizeof *made);
    if (!made)
        return err_set(err, ERR_NOMEM, "no memory to take in an object");
    made->store = store;
    made->kind = kind;
    made->chunking = chunking;
    made->press = NULL;
    made->hash = NULL;
    made->rot_found = store->rot.found;
    made->held_bytes = 0;
    made->broken = false;
    store_chunk_init(&made->chunker, chunking);
    store_draft_init(&made->draft, store);
    OWNED(owned_ingest) struct store_ingest *ingest = made;
    status = store_compress_new(&ingest->press, err);
    if (status == 0)
        status = crypto_sha256_new(&ingest->hash, err);
    if (status < 0)
        return status;
    *ret_ingest = STEAL(ingest);
    return 0;
}

static int add_chunk(struct store_ingest *ingest, const uint8_t *data, size_t len, struct err *err)
{
    struct store_chunk chunk = {.length = (uint32_t)len};
    crypto_sha256_add_piece(ingest->hash, data, len, &chunk.id);
    return store_draft_add(&ingest->draft, &chunk, data, ingest->press, err);
}

/* Put what is left of a write into `held`: as much as there is room for, which *ret_used says. A chunk that was there
 * before has been written first. */
static int hold(struct store_ingest *ingest, const uint8_t *data, size_t len, size_t *ret_used, struct err *err)
{
    int status = ingest->held_bytes == 0 ? store_draft_flush(&ingest->draft, err) : 0;
    if (status < 0)
        return status;
    size_t room = sizeof ingest->held - ingest->held_bytes;
    *ret_used = len < room ? len : room;
    memcpy(ingest->held + ingest->held_bytes, data, *ret_used);
    ingest->held_bytes += *ret_used;
    return 0;
}

/* The beginning of `held` was a chunk: what lies behind it moves there. */
static int unhold(struct store_ingest *ingest, size_t len, struct err *err)
{
    ingest->held_bytes -= len;
    if (ingest->held_bytes == 0)
        return 0;
    int status = store_draft_flush(&ingest->draft, err);
    memmove(ingest->held, ingest->held + len, ingest->held_bytes);
    return status;
}

/* The chunk that ends within held bytes and the first of `data`; *ret_used is how many of `data` belong to it or were
 * put into `held`. */
static int take(struct store_ingest *ingest, const uint8_t *data, size_t len, size_t *ret_used, struct err *err)
{
    if (ingest->held_bytes == 0) { /* the usual case for large writes: no copy */
        size_t cut = store_chunk_scan(&ingest->chunker, data, len);
        if (cut > 0) {
            *ret_used = cut;
            return add_chunk(ingest, data, cut, err);
        }
    }
    size_t before = ingest->held_bytes;
    int status = hold(ingest, data, len, ret_used, err);
    if (status < 0)
        return status;
    size_t cut = store_chunk_scan(&ingest->chunker, ingest->held, ingest->held_bytes);
    if (cut == 0)
        return 0;
    status = add_chunk(ingest, ingest->held, cut, err);
    /* What lies behind the cut came with this call, or is a page that was looked at twice. */
    if (cut >= before) {
        *ret_used = cut - before;
        ingest->held_bytes = 0;
    } else if (status == 0) {
        status = unhold(ingest, cut, err);
    }
    return status;
}

int store_ingest_write(struct store_ingest *ingest, const void *data, size_t len_bytes, struct err *err)
{
    if (ingest->broken)
        return err_set(err, ERR_CONFLICT, "an earlier write of this object failed");
    const uint8_t *at = data;
    size_t left = len_bytes;
    while (left > 0) {
        size_t used = 0;
        int status = take(ingest, at, left, &used, err);
        if (status < 0) {
            ingest->broken = true;
            return status;
        }
        at += used;
        left -= used;
    }
    int status = store_draft_flush(&ingest->draft, err); /* of `data` nothing is kept */
    ingest->broken = status < 0;
    return status;
}

struct finish {
    struct store_draft *draft;
    struct store_object_info info;
};

static int commit_object(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct finish *finish = ctx;
    finish->info.root = finish->draft->root_id;
    return store_objects_commit(txn, &finish->info, err);
}

/* The bytes that are held may contain more than one chunk, where a cut lies before bytes already looked at. */
static int add_rest(struct store_ingest *ingest, struct err *err)
{
    size_t used;
    int status = 0;
    while (status == 0 && ingest->held_bytes > 0) {
        size_t cut = store_chunk_scan(&ingest->chunker, ingest->held, ingest->held_bytes);
        used = cut > 0 ? cut : ingest->held_bytes;
        status = add_chunk(ingest, ingest->held, used, err);
        if (status == 0)
            status = unhold(ingest, used, err);
    }
    return status;
}

int store_ingest_finish(struct store_ingest *ingest, struct store_object_info *ret_info, struct err *err)
{
    if (ingest->broken)
        return err_set(err, ERR_CONFLICT, "an earlier write of this object failed");
    ingest->broken = true; /* nothing can follow */
    int status = add_rest(ingest, err);
    if (status < 0)
        return status;
    struct store_draft *draft = &ingest->draft;
    uint64_t now_ms = clock_wall_ms(&ingest->store->clock);
    struct finish finish = {.draft = draft,
                            .info = {
                                .size_bytes = draft->root.size_bytes,
                                .chunk_count = draft->root.chunk_count,
                                .kind = ingest->kind,
                                .chunking = ingest->chunking,
                                .created_ms = now_ms,
                                .used_ms = now_ms,
                            }};
    struct id digest;
    crypto_sha256_take(ingest->hash, &digest);
    finish.info.digest = digest;
    status = store_draft_finish(draft, &digest, ingest->kind, ingest->chunking, commit_object, &finish, err);
    if (status < 0)
        return status;
    draft->left_orphans = !id_equal(&finish.info.root, &draft->root_id); /* it was here, cut differently */
    status = store_objects_check(ingest->store, &digest, ingest->rot_found, err);
    if (status < 0)
        return status;
    if (ret_info)
        *ret_info = finish.info;
    return 0;
}

void store_ingest_free(struct store_ingest *ingest)
{
    if (!ingest)
        return;
    store_draft_release(&ingest->draft);
    store_compress_free(ingest->press);
    crypto_sha256_free(ingest->hash);
    free(ingest);
}
