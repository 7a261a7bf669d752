/* Objects read back: at an offset, and from beginning to end. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/scope.h"
#include "store/gc.h"
#include "store/objects.h"
#include "store/read.h"

OWNED_DEFINE(owned_reader, struct store_reader, store_reader_close)

struct store_reader {
    struct store *store; /* borrowed */
    struct id digest;
    struct id root_id; /* held */
    bool is_held;
    struct store_root root;     /* owned */
    struct crypto_sha256 *hash; /* owned; NULL for reads at an offset */
    uint32_t next_leaf;
    uint32_t leaf_chunks;
    uint32_t next_chunk; /* in the leaf */
    bool checked;
    size_t raw_bytes;
    size_t raw_at; /* what of `raw` was handed out */
    struct store_chunk chunks[STORE_LEAF_MAX_CHUNKS];
    uint8_t raw[LIMIT_CHUNK_BYTES];
};

/* Inside the gate, so that what is found stays. */
static int find_and_hold(struct store_reader *reader, struct store_object_info *ret_info, struct err *err)
{
    struct store *store = reader->store;
    store_gc_gate_enter(store);
    int got = store_object_stat(store, &reader->digest, ret_info, err);
    if (got == 1) {
        int status = store_gc_hold(store, &ret_info->root, err);
        reader->is_held = status == 0;
        reader->root_id = ret_info->root;
        got = status < 0 ? status : 1;
    }
    store_gc_gate_leave(store);
    return got;
}

/* What it is made of is absent or has rotted: then it is an object no more. Returns the status. */
static int lost(struct store_reader *reader, int status)
{
    if (status == ERR_CORRUPT)
        store_objects_demote(reader->store, &reader->digest);
    return status;
}

static int open_reader(struct store *store, const struct id *digest, struct store_reader **ret_reader, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    OWNED(owned_reader) struct store_reader *reader = malloc(sizeof *reader);
    if (!reader)
        return err_set(err, ERR_NOMEM, "no memory to read an object");
    memset(reader, 0, offsetof(struct store_reader, chunks));
    reader->store = store;
    reader->digest = *digest;
    struct store_object_info info;
    int got = find_and_hold(reader, &info, err);
    if (got == 0)
        return err_set(err, ERR_NOTFOUND, "object '%s' is not in the store", digest_text(digest, text));
    if (got == 1)
        got = store_read_root(store, &info.root, &reader->root, err);
    if (got == 0)
        got = err_set(err, ERR_CORRUPT, "the recipe of object '%s' is missing", digest_text(digest, text));
    if (got < 0)
        return lost(reader, got);
    *ret_reader = STEAL(reader);
    return 0;
}

/* The next chunk into `raw`, with the leaf if need be. */
static int load_chunk(struct store_reader *reader, struct err *err)
{
    while (reader->next_chunk == reader->leaf_chunks) {
        const struct store_leaf *leaf = &reader->root.leaves[reader->next_leaf];
        int status = store_read_leaf(reader->store, &leaf->id, reader->chunks, &reader->leaf_chunks, err);
        if (status < 0)
            return lost(reader, status);
        reader->next_leaf++;
        reader->next_chunk = 0;
    }
    const struct store_chunk *chunk = &reader->chunks[reader->next_chunk];
    char text[ID_HEX_SIZE];
    struct store_place place = {0};
    int got =
        store_read_piece(reader->store, STORE_PIECE_CHUNK, &chunk->id, reader->raw, sizeof reader->raw, &place, err);
    if (got == 0)
        got = err_set(err, ERR_CORRUPT, "chunk %s is missing", id_hex(&chunk->id, text));
    if (got < 0)
        return lost(reader, got);
    reader->next_chunk++;
    reader->raw_bytes = place.raw_bytes;
    reader->raw_at = 0;
    return 0;
}

/* Hand out what is loaded: at most len_bytes. */
static size_t hand_out(struct store_reader *reader, void *ret_data, size_t len_bytes)
{
    size_t part = reader->raw_bytes - reader->raw_at;
    if (part > len_bytes)
        part = len_bytes;
    memcpy(ret_data, reader->raw + reader->raw_at, part);
    reader->raw_at += part;
    return part;
}

static bool is_at_end(const struct store_reader *reader)
{
    return reader->next_leaf == reader->root.leaf_count && reader->next_chunk == reader->leaf_chunks;
}

/* ---- from beginning to end ---- */

int store_reader_open(struct store *store, const struct id *digest, struct store_reader **ret_reader, struct err *err)
{
    OWNED(owned_reader) struct store_reader *reader = NULL;
    int status = open_reader(store, digest, &reader, err);
    if (status == 0)
        status = crypto_sha256_new(&reader->hash, err);
    if (status < 0)
        return status;
    store_object_touch(store, digest, NULL); /* reading does not depend on it */
    *ret_reader = STEAL(reader);
    return 0;
}

static int check_whole(struct store_reader *reader, struct err *err)
{
    struct id whole;
    char text[DIGEST_TEXT_SIZE];
    if (reader->checked)
        return 0;
    crypto_sha256_take(reader->hash, &whole);
    if (!id_equal(&whole, &reader->digest))
        return err_set(err, ERR_CORRUPT, "object '%s' does not have its digest, though its chunks have theirs",
                       digest_text(&reader->digest, text));
    reader->checked = true;
    return 0;
}

int store_reader_read(struct store_reader *reader, void *ret_data, size_t len_bytes, size_t *ret_len, struct err *err)
{
    uint8_t *out = ret_data;
    size_t done = 0;
    while (done < len_bytes) {
        done += hand_out(reader, out + done, len_bytes - done);
        if (done == len_bytes || is_at_end(reader))
            break;
        int status = load_chunk(reader, err);
        if (status < 0)
            return status;
        crypto_sha256_add(reader->hash, reader->raw, reader->raw_bytes);
    }
    if (reader->raw_at == reader->raw_bytes && is_at_end(reader)) {
        int status = check_whole(reader, err);
        if (status < 0)
            return status;
    }
    *ret_len = done;
    return 0;
}

void store_reader_close(struct store_reader *reader)
{
    if (!reader)
        return;
    if (reader->is_held) {
        store_gc_unhold(reader->store, &reader->root_id);
        store_gc_run_if_passed_over(reader->store);
    }
    store_root_release(&reader->root);
    crypto_sha256_free(reader->hash);
    free(reader);
}

/* ---- at an offset ---- */

/* Load the chunk that holds the byte at `offset`, which is within the object. */
static int seek(struct store_reader *reader, uint64_t offset, struct err *err)
{
    const struct store_leaf *leaf = store_root_leaf_at(&reader->root, offset);
    int status = store_read_leaf(reader->store, &leaf->id, reader->chunks, &reader->leaf_chunks, err);
    if (status < 0)
        return lost(reader, status);
    reader->next_leaf = (uint32_t)(leaf - reader->root.leaves) + 1;
    reader->next_chunk = 0;
    uint64_t at = leaf->offset;
    while (reader->next_chunk + 1 < reader->leaf_chunks && at + reader->chunks[reader->next_chunk].length <= offset)
        at += reader->chunks[reader->next_chunk++].length;
    status = load_chunk(reader, err);
    if (status < 0)
        return status;
    if (offset - at > reader->raw_bytes)
        return err_set(err, ERR_CORRUPT, "a recipe does not agree with its chunks; run `cmig-node fsck`");
    reader->raw_at = (size_t)(offset - at);
    return 0;
}

int store_object_read(struct store *store, const struct id *digest, uint64_t offset, void *ret_data, size_t len_bytes,
                      size_t *ret_len, struct err *err)
{
    OWNED(owned_reader) struct store_reader *reader = NULL;
    int status = open_reader(store, digest, &reader, err);
    if (status < 0)
        return status;
    store_object_touch(store, digest, NULL);
    uint8_t *out = ret_data;
    size_t done = 0;
    if (offset < reader->root.size_bytes && len_bytes > 0)
        status = seek(reader, offset, err);
    else
        len_bytes = 0;
    while (status == 0 && done < len_bytes) {
        done += hand_out(reader, out + done, len_bytes - done);
        if (done == len_bytes || is_at_end(reader))
            break;
        status = load_chunk(reader, err);
    }
    if (status < 0)
        return status;
    *ret_len = done;
    return 0;
}
