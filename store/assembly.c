/*
 * Receiving an object: its recipe first, then its chunks in any order, from several threads.
 *
 * A chunk is missing, then claimed by the thread that writes it, then here. Chunks written since the last sync are in a
 * batch; a sync that fails makes them missing again. The digest of the whole is taken along the way: the chunk at the
 * end of what has been hashed goes into it while its own digest is checked, so that finishing seldom reads anything
 * back.
 */
#include "store/assembly.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "store/evict.h"
#include "store/gc.h"
#include "store/objects.h"
#include "store/packs.h"
#include "store/read.h"
#include "store/run.h"

#define SYNC_RECORDS 4096
/* Chunks read back at most, by the thread that adds one, for the digest of the whole. */
#define CATCH_UP_CHUNKS 8

OWNED_DEFINE(owned_assembly, struct store_assembly, store_assembly_free)

static const struct store_chunk *chunk_of(const struct store_assembly *assembly, uint32_t i)
{
    return &assembly->recipe->chunks[i];
}

/* ---- equal chunks: a run of by_id ---- */

static int compare_ids(const void *a, const void *b, void *ctx)
{
    const struct store_chunk *chunks = ctx;
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    int order = id_compare(&chunks[x].id, &chunks[y].id);
    return order != 0 ? order : (x > y) - (x < y);
}

/* The first place in by_id whose chunk has this id. */
static uint32_t first_of(const struct store_assembly *assembly, const struct id *id)
{
    uint32_t low = 0;
    uint32_t high = assembly->recipe->root.chunk_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (id_compare(&chunk_of(assembly, assembly->by_id[mid])->id, id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void store_assembly_mark(struct store_assembly *assembly, const struct id *id, enum store_assembly_state state)
{
    uint32_t count = assembly->recipe->root.chunk_count;
    for (uint32_t at = first_of(assembly, id); at < count; at++) {
        uint32_t i = assembly->by_id[at];
        if (!id_equal(&chunk_of(assembly, i)->id, id))
            break;
        bool was_here = assembly->states[i] == STORE_CHUNK_HERE;
        if (was_here != (state == STORE_CHUNK_HERE)) {
            assembly->missing_chunks += was_here ? 1 : (uint32_t)-1;
            assembly->missing_bytes +=
                was_here ? chunk_of(assembly, i)->length : -(uint64_t)chunk_of(assembly, i)->length;
        }
        assembly->states[i] = (uint8_t)state;
    }
}

int store_assembly_blame_nobody(int status, struct err *err)
{
    if (status != ERR_CORRUPT)
        return status;
    if (err)
        err->code = ERR_IO;
    return ERR_IO;
}

/* ---- beginning ---- */

/* Look up the chunks, all of them in one snapshot. */
static int scan_present(struct store_db_txn *txn, void *ctx, struct err *err)
{
    struct store_assembly *assembly = ctx;
    const struct store_root *root = &assembly->recipe->root;
    assembly->missing_chunks = root->chunk_count;
    assembly->missing_bytes = root->size_bytes;
    for (uint32_t i = 0; i < root->chunk_count; i++) {
        const struct store_chunk *chunk = chunk_of(assembly, i);
        struct store_piece_row row;
        int got = store_rows_piece_get(txn, STORE_PIECE_CHUNK, &chunk->id, &row, err);
        if (got < 0)
            return store_assembly_blame_nobody(got, err);
        bool here = got == 1 && row.place.pack != 0;
        char text[ID_SHORT_SIZE];
        if (here && row.place.raw_bytes != chunk->length)
            return err_set(err, ERR_CORRUPT, "a recipe gives chunk %s the length %u, here it has %u",
                           id_short(&chunk->id, text), chunk->length, row.place.raw_bytes);
        assembly->states[i] = here ? STORE_CHUNK_HERE : STORE_CHUNK_MISSING;
        if (here) {
            assembly->missing_chunks--;
            assembly->missing_bytes -= chunk->length;
        }
    }
    return 0;
}

/* What is forgotten after the number was read is looked up again in the end. */
static int look_up(struct store_assembly *assembly, struct err *err)
{
    assembly->rot_found = assembly->store->rot.found;
    return store_db_view(assembly->store->db, scan_present, assembly, err);
}

/* Is the recipe here, held from now on? What of it has rotted is written again. */
static int hold_root(struct store_assembly *assembly, struct err *err)
{
    struct store *store = assembly->store;
    const struct id *root_id = &assembly->recipe->root_id;
    store_gc_gate_enter(store);
    int status = store_gc_hold(store, root_id, err);
    assembly->is_held = status == 0;
    int here = status < 0 ? status : store_read_has_recipe(store, assembly->recipe, err);
    store_gc_gate_leave(store);
    return here;
}

static int allocate(struct store_assembly *assembly, struct err *err)
{
    uint32_t count = assembly->recipe->root.chunk_count;
    assembly->states = calloc(count + 1, sizeof *assembly->states);
    assembly->by_id = calloc(count + 1, sizeof *assembly->by_id);
    if (!assembly->states || !assembly->by_id)
        return err_set(err, ERR_NOMEM, "no memory to assemble %u chunks", count);
    for (uint32_t i = 0; i < count; i++)
        assembly->by_id[i] = i;
    qsort_r(assembly->by_id, count, sizeof *assembly->by_id, compare_ids, assembly->recipe->chunks);
    return crypto_sha256_new(&assembly->hash, err);
}

static int begin(struct store_assembly *assembly, struct err *err)
{
    struct store *store = assembly->store;
    int status = allocate(assembly, err);
    if (status == 0)
        status = look_up(assembly, err);
    if (status == 0)
        status = store_evict_make_room(store, assembly->missing_bytes, err);
    int here = status < 0 ? status : hold_root(assembly, err);
    status = here < 0 ? here : store_assembly_commit_recipe(assembly, here == 1, err);
    /* Again: what is listed by the recipe stays from now on, and eviction may have taken some of it before. */
    return status < 0 || !assembly->is_recorded ? status : look_up(assembly, err);
}

int store_assembly_new(struct store *store, const struct id *digest, enum store_kind kind,
                       const struct store_recipe *recipe, struct store_assembly **ret_assembly, struct err *err)
{
    if (!store_kind_is_valid(kind) || !store_recipe_complete(recipe) || !id_equal(&recipe->root.object, digest))
        return err_set(err, ERR_INVALID, "an assembly needs a complete recipe of its own object");
    int got = store_object_stat(store, digest, NULL, err);
    if (got != 0)
        return got;
    struct store_assembly *made = calloc(1, sizeof *made);
    if (!made)
        return err_set(err, ERR_NOMEM, "no memory to assemble an object");
    made->store = store;
    made->digest = *digest;
    made->kind = kind;
    made->recipe = recipe;
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->sync_lock, NULL);
    pthread_mutex_init(&made->hash_lock, NULL);
    store_batch_init(&made->batch, store);
    OWNED(owned_assembly) struct store_assembly *assembly = made;
    int status = begin(assembly, err);
    if (status < 0)
        return status;
    *ret_assembly = STEAL(assembly);
    return 0;
}

void store_assembly_free(struct store_assembly *assembly)
{
    if (!assembly)
        return;
    store_batch_release(&assembly->batch);
    store_assembly_commit_release(assembly);
    if (assembly->is_held) {
        store_gc_unhold(assembly->store, &assembly->recipe->root_id);
        store_gc_run_if_passed_over(assembly->store);
    }
    crypto_sha256_free(assembly->hash);
    free(assembly->states);
    free(assembly->by_id);
    pthread_mutex_destroy(&assembly->lock);
    pthread_mutex_destroy(&assembly->sync_lock);
    pthread_mutex_destroy(&assembly->hash_lock);
    free(assembly);
}

bool store_assembly_has(struct store_assembly *assembly, uint32_t chunk)
{
    pthread_mutex_lock(&assembly->lock);
    bool has = chunk < assembly->recipe->root.chunk_count && assembly->states[chunk] == STORE_CHUNK_HERE;
    pthread_mutex_unlock(&assembly->lock);
    return has;
}

void store_assembly_missing(struct store_assembly *assembly, uint32_t *ret_chunks, uint64_t *ret_bytes)
{
    pthread_mutex_lock(&assembly->lock);
    *ret_chunks = assembly->missing_chunks;
    *ret_bytes = assembly->missing_bytes;
    pthread_mutex_unlock(&assembly->lock);
}

/* ---- the digest of the whole ---- */

/* What was here has rotted on disk: it is missing again, to be fetched once more. */
static int lose_chunk(struct store_assembly *assembly, const struct store_chunk *chunk, struct err *err)
{
    char text[ID_HEX_SIZE];
    pthread_mutex_lock(&assembly->lock);
    store_batch_give_up(&assembly->batch, &chunk->id);
    store_assembly_mark(assembly, &chunk->id, STORE_CHUNK_MISSING);
    pthread_mutex_unlock(&assembly->lock);
    return err_set(err, ERR_CONFLICT, "chunk %s has rotted on disk and is missing again", id_hex(&chunk->id, text));
}

static bool find_in_batch(struct store_assembly *assembly, const struct id *id, struct store_place *ret_place)
{
    pthread_mutex_lock(&assembly->lock);
    const struct store_batch_entry *entry = store_batch_find(&assembly->batch, id);
    if (entry)
        *ret_place = entry->place;
    pthread_mutex_unlock(&assembly->lock);
    return entry != NULL;
}

/* 1 and the bytes of a chunk that is here, 0 if it cannot be had now, being synced by another thread. */
static int read_back(struct store_assembly *assembly, uint32_t i, uint8_t *raw, struct err *err)
{
    const struct store_chunk *chunk = chunk_of(assembly, i);
    struct store_place place = {0};
    if (!store_assembly_has(assembly, i))
        return 0;
    /* Looked up in the batch first: not every chunk of it has found room among those that wait (pending.h). */
    if (find_in_batch(assembly, &chunk->id, &place)) {
        int status = store_read_at(assembly->store, &place, &chunk->id, raw, err);
        if (status != ERR_CORRUPT)
            return status < 0 ? status : 1;
        struct store_place now;
        if (find_in_batch(assembly, &chunk->id, &now) && store_rows_same_place(&now, &place))
            return lose_chunk(assembly, chunk, err);
    }
    int got = store_read_piece(assembly->store, STORE_PIECE_CHUNK, &chunk->id, raw, LIMIT_CHUNK_BYTES, &place, err);
    return got == ERR_CORRUPT ? lose_chunk(assembly, chunk, err) : got;
}

/* Under hash_lock: hash on from what is hashed, at most `most` chunks, as long as they are here. */
static int catch_up(struct store_assembly *assembly, uint32_t most, struct err *err)
{
    OWNED(owned_free) uint8_t *raw = NULL;
    for (; most > 0 && assembly->hashed < assembly->recipe->root.chunk_count; most--) {
        if (!store_assembly_has(assembly, assembly->hashed))
            return 0;
        if (!raw && !(raw = malloc(LIMIT_CHUNK_BYTES)))
            return err_set(err, ERR_NOMEM, "no memory to read a chunk back");
        int got = read_back(assembly, assembly->hashed, raw, err);
        if (got != 1)
            return got;
        crypto_sha256_add(assembly->hash, raw, chunk_of(assembly, assembly->hashed)->length);
        assembly->hashed++;
    }
    return 0;
}

/* A chunk has just been added. If another thread is hashing, it or the finish comes by. */
static void hash_along(struct store_assembly *assembly)
{
    if (pthread_mutex_trylock(&assembly->hash_lock) != 0)
        return;
    catch_up(assembly, CATCH_UP_CHUNKS, NULL); /* what goes wrong here comes up again in the finish */
    pthread_mutex_unlock(&assembly->hash_lock);
}

/* ---- adding ---- */

/* Does the digest fit? The chunk at the end of what is hashed goes into the digest of the whole in the same pass. */
static bool has_digest(struct store_assembly *assembly, uint32_t i, const uint8_t *raw)
{
    const struct store_chunk *chunk = chunk_of(assembly, i);
    if (pthread_mutex_trylock(&assembly->hash_lock) == 0) {
        bool is_next = assembly->hashed == i;
        bool fits = is_next && crypto_sha256_add_if(assembly->hash, raw, chunk->length, &chunk->id);
        assembly->hashed += fits;
        pthread_mutex_unlock(&assembly->hash_lock);
        if (is_next)
            return fits;
    }
    struct id id;
    crypto_sha256(raw, chunk->length, &id);
    return id_equal(&id, &chunk->id);
}

/* Decompressed into memory that *ret_owned then owns, unless they are raw. */
static int decode(const struct store_chunk *chunk, enum store_encoding encoding, const void *data, size_t len,
                  const uint8_t **ret_raw, uint8_t **ret_owned, struct err *err)
{
    char text[ID_HEX_SIZE];
    if (encoding == STORE_RAW) {
        *ret_raw = data;
        return len == chunk->length ? 0
                                    : err_set(err, ERR_CORRUPT, "chunk %s came with %zu bytes instead of %u",
                                              id_hex(&chunk->id, text), len, chunk->length);
    }
    if (len > chunk->length)
        return err_set(err, ERR_CORRUPT, "chunk %s came compressed to more than its length", id_hex(&chunk->id, text));
    *ret_raw = *ret_owned = malloc(chunk->length);
    if (!*ret_owned)
        return err_set(err, ERR_NOMEM, "no memory to decompress a chunk");
    return store_decode(encoding, data, len, *ret_owned, chunk->length, err);
}

static int check_chunk(struct store_assembly *assembly, uint32_t i, enum store_encoding encoding, const void *data,
                       size_t len, struct err *err)
{
    const struct store_chunk *chunk = chunk_of(assembly, i);
    char text[ID_HEX_SIZE];
    const uint8_t *raw = NULL;
    OWNED(owned_free) uint8_t *owned = NULL;
    int status = decode(chunk, encoding, data, len, &raw, &owned, err);
    if (status == 0 && !has_digest(assembly, i, raw))
        status = err_set(err, ERR_CORRUPT, "chunk %s came with bytes of another digest", id_hex(&chunk->id, text));
    return status;
}

static bool claim(struct store_assembly *assembly, uint32_t i)
{
    pthread_mutex_lock(&assembly->lock);
    bool mine = assembly->states[i] == STORE_CHUNK_MISSING;
    if (mine)
        store_assembly_mark(assembly, &chunk_of(assembly, i)->id, STORE_CHUNK_CLAIMED);
    pthread_mutex_unlock(&assembly->lock);
    return mine;
}

/* Write chunks that are claimed. After a failure they are missing again, but for what has come into the batch. */
static int write_run(struct store_assembly *assembly, struct store_run *run, struct err *err)
{
    struct store_place places[STORE_RUN_RECORDS];
    struct store_pack *pack;
    size_t count = run->count;
    if (count == 0)
        return 0;
    int status = store_packs_append(assembly->store, run->records, run->bodies, count, places, &pack, err);
    pthread_mutex_lock(&assembly->lock);
    if (status == 0)
        status = store_run_note(run, &assembly->batch, places, pack, err);
    for (size_t i = 0; i < count; i++) {
        const struct id *id = &run->records[i].id;
        bool here = status == 0 || store_batch_find(&assembly->batch, id);
        store_assembly_mark(assembly, id, here ? STORE_CHUNK_HERE : STORE_CHUNK_MISSING);
    }
    bool full = assembly->batch.bytes >= STORE_ASSEMBLY_SYNC_BYTES || assembly->batch.count >= SYNC_RECORDS;
    pthread_mutex_unlock(&assembly->lock);
    run->count = run->raw_bytes = 0;
    if (status < 0)
        return store_assembly_blame_nobody(status, err);
    hash_along(assembly);
    return full ? store_assembly_sync(assembly, err) : 0;
}

/* Who is in the run shares its fate. */
static int end_run(struct store_assembly *assembly, struct store_run *run, struct store_arrival *arrivals, size_t count,
                   struct err *err)
{
    int status = write_run(assembly, run, err);
    for (size_t i = 0; status < 0 && i < count; i++)
        if (arrivals[i].ret_status == 0)
            arrivals[i].ret_status = status;
    return status;
}

static int check_arrival(struct store_assembly *assembly, const struct store_arrival *arrival, struct err *err)
{
    if (arrival->chunk >= assembly->recipe->root.chunk_count)
        return err_set(err, ERR_INVALID, "chunk %u of an object that has %u", arrival->chunk,
                       assembly->recipe->root.chunk_count);
    return check_chunk(assembly, arrival->chunk, arrival->encoding, arrival->data, arrival->len_bytes, err);
}

int store_assembly_add_all(struct store_assembly *assembly, struct store_arrival *arrivals, size_t count,
                           struct err *err)
{
    struct store_run run = {.count = 0};
    int failed = 0;
    size_t first = 0; /* of those whose bytes are in the run */
    for (size_t i = 0; i < count; i++) {
        struct store_arrival *arrival = &arrivals[i];
        arrival->ret_status = check_arrival(assembly, arrival, failed == 0 ? err : NULL);
        if (arrival->ret_status < 0 && arrival->ret_status != ERR_CORRUPT)
            failed = arrival->ret_status;
        if (arrival->ret_status < 0 || !claim(assembly, arrival->chunk))
            continue;
        const struct store_chunk *chunk = chunk_of(assembly, arrival->chunk);
        if (store_run_is_full(&run, chunk->length)) {
            int status = end_run(assembly, &run, arrivals + first, i - first, err);
            failed = status < 0 ? status : failed;
            first = i;
        }
        struct store_record record = {.type = STORE_PIECE_CHUNK,
                                      .encoding = arrival->encoding,
                                      .id = chunk->id,
                                      .raw_bytes = chunk->length,
                                      .stored_bytes = (uint32_t)arrival->len_bytes};
        store_run_add(&run, &record, arrival->data, false, NULL); /* fails only for want of memory for a copy */
    }
    int status = end_run(assembly, &run, arrivals + first, count - first, err);
    return status < 0 ? status : failed;
}

int store_assembly_add(struct store_assembly *assembly, uint32_t chunk, enum store_encoding encoding, const void *data,
                       size_t len_bytes, struct err *err)
{
    struct store_arrival one = {.chunk = chunk, .encoding = encoding, .data = data, .len_bytes = len_bytes};
    store_assembly_add_all(assembly, &one, 1, err);
    return one.ret_status;
}

int store_assembly_sync(struct store_assembly *assembly, struct err *err)
{
    return store_assembly_commit_chunks(assembly, NULL, err);
}

/* ---- the end ---- */

int store_assembly_check_complete(const struct store_assembly *assembly, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    if (assembly->missing_chunks == 0)
        return 0;
    return err_set(err, ERR_CONFLICT, "object '%s' lacks %u chunks", digest_text(&assembly->digest, text),
                   assembly->missing_chunks);
}

/* Hash what is left. ERR_CORRUPT if, and only if, the whole is not what it should be. */
static int check_whole(struct store_assembly *assembly, struct err *err)
{
    char text[DIGEST_TEXT_SIZE];
    uint32_t count = assembly->recipe->root.chunk_count;
    pthread_mutex_lock(&assembly->hash_lock);
    int status = catch_up(assembly, count, err);
    struct id whole;
    if (status == 0 && assembly->hashed == count) {
        crypto_sha256_take(assembly->hash, &whole);
        assembly->hashed = 0;
        if (!id_equal(&whole, &assembly->digest))
            status = err_set(err, ERR_CORRUPT, "the recipe of object '%s' is one of other bytes",
                             digest_text(&assembly->digest, text));
    } else if (status == 0) {
        status = err_set(err, ERR_CONFLICT, "object '%s' lacks chunk %u", digest_text(&assembly->digest, text),
                         assembly->hashed);
    }
    pthread_mutex_unlock(&assembly->hash_lock);
    return status;
}

/* Are all here? What was may have rotted since it was looked up, and have been forgotten: the index tells. */
static int look_again(struct store_assembly *assembly, struct err *err)
{
    pthread_mutex_lock(&assembly->lock);
    bool is_news = assembly->rot_found != assembly->store->rot.found;
    pthread_mutex_unlock(&assembly->lock);
    int status = is_news ? store_assembly_sync(assembly, err) : 0;
    pthread_mutex_lock(&assembly->lock);
    if (status == 0 && is_news)
        status = look_up(assembly, err);
    if (status == 0)
        status = store_assembly_check_complete(assembly, err);
    pthread_mutex_unlock(&assembly->lock);
    return status;
}

int store_assembly_finish(struct store_assembly *assembly, struct store_object_info *ret_info, struct err *err)
{
    const struct store_root *root = &assembly->recipe->root;
    int status = store_assembly_blame_nobody(look_again(assembly, err), err);
    if (status == 0)
        status = check_whole(assembly, err);
    if (status == ERR_CORRUPT)
        store_assembly_commit_undo(assembly);
    if (status < 0)
        return status;
    uint64_t now_ms = clock_wall_ms(&assembly->store->clock);
    struct store_object_info info = {
        .digest = assembly->digest,
        .root = assembly->recipe->root_id,
        .size_bytes = root->size_bytes,
        .chunk_count = root->chunk_count,
        .kind = assembly->kind,
        .chunking = root->chunking,
        .created_ms = now_ms,
        .used_ms = now_ms,
    };
    status = store_assembly_commit_chunks(assembly, &info, err);
    if (status == 0)
        status = store_objects_check(assembly->store, &assembly->digest, assembly->rot_found, err);
    if (status == 0 && ret_info)
        *ret_info = info;
    return status;
}
