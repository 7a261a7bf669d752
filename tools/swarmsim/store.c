#include "tools/swarmsim/store.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/wire.h"
#include "store/similar.h"
#include "tools/sim/memory.h"
#include "tools/sim/random.h"

#define STORED_BYTES 8

struct holding {
    bool whole;
    bool begun;
    uint8_t *bits; /* owned; while it is begun and not whole */
    uint32_t missing;
};

struct store {
    const struct catalogue *catalogue; /* borrowed */
    bool liar;
    struct holding holdings[]; /* of each object */
};

struct store_assembly {
    struct store *store;
    const struct catalogue_object *object;
};

/* ---- ids say what they are of, so that nothing has to be looked up ---- */

static struct id make_id(uint64_t seed, uint32_t object, uint32_t number)
{
    struct id id;
    for (size_t i = 0; i < ID_BYTES; i += 8)
        wire_store_u64(id.b + i, random_mix(random_mix(seed + object) + ((uint64_t)number << 8) + i));
    wire_store_u32(id.b + 8, object);
    wire_store_u32(id.b + 12, number);
    return id;
}

static bool is_id_of_chunk(const struct catalogue *catalogue, const struct id *id, uint32_t *ret_object,
                           uint32_t *ret_chunk)
{
    *ret_object = wire_load_u32(id->b + 8);
    *ret_chunk = wire_load_u32(id->b + 12);
    return *ret_object < catalogue->n_objects &&
           *ret_chunk < catalogue->objects[*ret_object].recipe->root.chunk_count &&
           id_equal(&catalogue->objects[*ret_object].recipe->chunks[*ret_chunk].id, id);
}

uint32_t catalogue_find(const struct catalogue *catalogue, const struct id *digest)
{
    uint32_t object = wire_load_u32(digest->b + 8);
    return object < catalogue->n_objects && id_equal(&catalogue->objects[object].digest, digest) ? object : UINT32_MAX;
}

/* ---- objects without bytes ---- */

static struct store_chunk *make_chunks(struct catalogue_object *object, uint32_t n_chunks, uint64_t seed)
{
    struct store_chunk *chunks = memory_get((n_chunks + 1) * sizeof *chunks);
    uint64_t left = object->size_bytes;
    for (uint32_t i = 0; i < n_chunks; i++) {
        chunks[i].id = make_id(seed, object->number, i);
        chunks[i].length = left < CATALOGUE_CHUNK_BYTES ? (uint32_t)left : CATALOGUE_CHUNK_BYTES;
        left -= chunks[i].length;
    }
    return chunks;
}

static void put_record(struct catalogue *catalogue, struct catalogue_record *record, uint32_t object,
                       enum store_piece_type type, struct buf *bytes, struct id *ret_id)
{
    *record = (struct catalogue_record){.object = object, .type = type, .len = bytes->len};
    crypto_sha256(bytes->data, bytes->len, ret_id);
    record->data = buf_steal(bytes);
    if (map_set(&catalogue->records, ret_id, record) < 0)
        abort();
}

/* Cut the chunks into leaves as the format wants it. */
static void make_leaves(struct catalogue *catalogue, struct catalogue_object *object, struct store_root *root,
                        const struct store_chunk *chunks)
{
    uint32_t first = 0;
    for (uint32_t end = 1; end <= root->chunk_count; end++) {
        if (end < root->chunk_count && !store_recipe_leaf_ends(&chunks[end - 1].id, end - first))
            continue;
        struct store_leaf *leaf = &root->leaves[root->leaf_count++];
        struct buf bytes = BUF(STORE_LEAF_MAX_BYTES);
        leaf->chunk_count = end - first;
        for (uint32_t i = first; i < end; i++)
            leaf->span_bytes += chunks[i].length;
        store_leaf_encode(chunks + first, leaf->chunk_count, &bytes, NULL);
        put_record(catalogue, &object->records[root->leaf_count], object->number, STORE_PIECE_LEAF, &bytes, &leaf->id);
        first = end;
    }
}

static struct store_recipe *make_recipe(const struct catalogue_object *object, uint32_t n_leaves)
{
    struct store_recipe *recipe = NULL;
    int status = store_recipe_from_root(object->records[0].data, object->records[0].len, &recipe, NULL);
    for (uint32_t i = 0; status == 0 && i < n_leaves; i++)
        status = store_recipe_add_leaf(recipe, i, object->records[i + 1].data, object->records[i + 1].len, NULL);
    if (status < 0)
        abort();
    return recipe;
}

static void make_object(struct catalogue *catalogue, struct catalogue_object *object, uint64_t seed)
{
    uint32_t n_chunks = (uint32_t)((object->size_bytes + CATALOGUE_CHUNK_BYTES - 1) / CATALOGUE_CHUNK_BYTES);
    uint32_t most_leaves = n_chunks / STORE_LEAF_MIN_CHUNKS + 1;
    struct store_chunk *chunks = make_chunks(object, n_chunks, seed);
    struct store_root root = {.size_bytes = object->size_bytes,
                              .chunking = STORE_CHUNKING_ARCHIVE,
                              .chunk_count = n_chunks,
                              .leaves = memory_get(most_leaves * sizeof *root.leaves)};
    root.object = object->digest = make_id(seed, object->number, UINT32_MAX);
    object->records = memory_get((most_leaves + 1) * sizeof *object->records);
    make_leaves(catalogue, object, &root, chunks);
    struct buf bytes = BUF(STORE_ROOT_MAX_BYTES);
    struct id root_id;
    store_root_encode(&root, &bytes, NULL);
    put_record(catalogue, &object->records[0], object->number, STORE_PIECE_ROOT, &bytes, &root_id);
    object->recipe = make_recipe(object, root.leaf_count);
    store_root_release(&root);
    free(chunks);
}

void catalogue_init(struct catalogue *catalogue, uint32_t n_objects, const uint64_t *sizes_bytes, uint64_t seed)
{
    *catalogue =
        (struct catalogue){.objects = memory_get(n_objects * sizeof *catalogue->objects), .n_objects = n_objects};
    map_init(&catalogue->records, 1u << 24, seed);
    for (uint32_t i = 0; i < n_objects; i++) {
        catalogue->objects[i].number = i;
        catalogue->objects[i].size_bytes = sizes_bytes[i];
        make_object(catalogue, &catalogue->objects[i], seed);
    }
}

void catalogue_release(struct catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->n_objects; i++) {
        struct catalogue_object *object = &catalogue->objects[i];
        for (uint32_t k = 0; k <= object->recipe->root.leaf_count; k++)
            free(object->records[k].data);
        free(object->records);
        store_recipe_free(object->recipe);
    }
    free(catalogue->objects);
    map_release(&catalogue->records);
}

/* ---- stores ---- */

struct store *simstore_new(const struct catalogue *catalogue)
{
    struct store *store = memory_get(sizeof *store + catalogue->n_objects * sizeof store->holdings[0]);
    store->catalogue = catalogue;
    return store;
}

void simstore_free(struct store *store)
{
    for (uint32_t i = 0; i < store->catalogue->n_objects; i++)
        free(store->holdings[i].bits);
    free(store);
}

void simstore_fill(struct store *store, uint32_t object)
{
    struct holding *holding = &store->holdings[object];
    free(holding->bits);
    *holding = (struct holding){.whole = true, .begun = true};
}

void simstore_set_liar(struct store *store)
{
    store->liar = true;
}

static bool has_chunk(const struct store *store, uint32_t object, uint32_t chunk)
{
    const struct holding *holding = &store->holdings[object];
    return holding->whole || (holding->bits && (holding->bits[chunk / 8] >> chunk % 8 & 1));
}

/* ---- what transfer calls: objects ---- */

int store_object_stat(struct store *store, const struct id *digest, struct store_object_info *ret_info, struct err *err)
{
    (void)err;
    uint32_t number = catalogue_find(store->catalogue, digest);
    if (number == UINT32_MAX || !store->holdings[number].whole)
        return 0;
    const struct store_recipe *recipe = store->catalogue->objects[number].recipe;
    if (ret_info)
        *ret_info = (struct store_object_info){.digest = *digest,
                                               .root = recipe->root_id,
                                               .size_bytes = recipe->root.size_bytes,
                                               .chunk_count = recipe->root.chunk_count,
                                               .kind = STORE_BLOB,
                                               .chunking = recipe->root.chunking};
    return 1;
}

int store_recipe_load(struct store *store, const struct id *digest, struct store_recipe **ret_recipe, struct err *err)
{
    (void)err;
    uint32_t number = catalogue_find(store->catalogue, digest);
    if (number == UINT32_MAX || !store->holdings[number].begun)
        return 0;
    const struct catalogue_object *object = &store->catalogue->objects[number];
    *ret_recipe = make_recipe(object, object->recipe->root.leaf_count);
    return 1;
}

/* ---- pieces ---- */

static int read_record(const struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                       size_t cap_bytes, size_t *ret_len)
{
    const struct catalogue_record *record = map_get(&store->catalogue->records, id);
    if (!record || record->type != type || !store->holdings[record->object].begun)
        return 0;
    if (record->len > cap_bytes)
        return ERR_LIMIT;
    memcpy(ret_data, record->data, record->len);
    *ret_len = record->len;
    return 1;
}

int store_piece_read(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                     size_t cap_bytes, struct store_piece *ret_piece, struct err *err)
{
    (void)err;
    uint32_t object;
    uint32_t chunk;
    if (type != STORE_PIECE_CHUNK) {
        size_t len = 0;
        int status = read_record(store, type, id, ret_data, cap_bytes, &len);
        *ret_piece =
            (struct store_piece){.stored_bytes = (uint32_t)len, .raw_bytes = (uint32_t)len, .encoding = STORE_RAW};
        return status;
    }
    if (!is_id_of_chunk(store->catalogue, id, &object, &chunk) || !has_chunk(store, object, chunk))
        return 0;
    if (cap_bytes < STORED_BYTES)
        return ERR_LIMIT;
    wire_store_u32(ret_data, object);
    wire_store_u32((uint8_t *)ret_data + 4, store->liar ? ~chunk : chunk);
    *ret_piece = (struct store_piece){.stored_bytes = STORED_BYTES,
                                      .raw_bytes = store->catalogue->objects[object].recipe->chunks[chunk].length,
                                      .encoding = STORE_ZSTD};
    return 1;
}

size_t store_pieces_read(struct store *store, enum store_piece_type type, const struct id *ids, size_t count,
                         void *ret_data, size_t cap_bytes, struct store_piece *ret_pieces)
{
    size_t used = 0;
    size_t n = 0;
    while (n < count && store_piece_read(store, type, &ids[n], (uint8_t *)ret_data + used, cap_bytes - used,
                                         &ret_pieces[n], NULL) == 1)
        used += ret_pieces[n++].stored_bytes;
    return n;
}

int store_piece_read_raw(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                         size_t cap_bytes, size_t *ret_len, struct err *err)
{
    (void)err;
    return type == STORE_PIECE_CHUNK ? 0 : read_record(store, type, id, ret_data, cap_bytes, ret_len);
}

int store_pieces_have(struct store *store, const struct id *ids, size_t count, uint8_t *ret_bitmap, struct err *err)
{
    (void)err;
    memset(ret_bitmap, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) {
        uint32_t object;
        uint32_t chunk;
        if (is_id_of_chunk(store->catalogue, &ids[i], &object, &chunk) && has_chunk(store, object, chunk))
            ret_bitmap[i / 8] = (uint8_t)(ret_bitmap[i / 8] | 1u << i % 8);
    }
    return 0;
}

int store_decode(enum store_encoding encoding, const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes,
                 struct err *err)
{
    if (encoding != STORE_RAW || len_bytes != raw_bytes)
        return err_set(err, ERR_CORRUPT, "a record that is not as this store has them");
    memcpy(ret_data, data, len_bytes);
    return 0;
}

/* ---- assembly ---- */

int store_assembly_new(struct store *store, const struct id *digest, enum store_kind kind,
                       const struct store_recipe *recipe, struct store_assembly **ret_assembly, struct err *err)
{
    (void)kind;
    uint32_t number = catalogue_find(store->catalogue, digest);
    if (number == UINT32_MAX)
        return err_set(err, ERR_NOTFOUND, "an object that does not exist");
    struct holding *holding = &store->holdings[number];
    if (holding->whole)
        return 1;
    if (!holding->bits) {
        holding->bits = memory_get(recipe->root.chunk_count / 8 + 1);
        holding->missing = recipe->root.chunk_count;
    }
    holding->begun = true;
    struct store_assembly *assembly = memory_get(sizeof *assembly);
    *assembly = (struct store_assembly){.store = store, .object = &store->catalogue->objects[number]};
    *ret_assembly = assembly;
    return 0;
}

bool store_assembly_has(struct store_assembly *assembly, uint32_t chunk)
{
    return has_chunk(assembly->store, assembly->object->number, chunk);
}

int store_assembly_add(struct store_assembly *assembly, uint32_t chunk, enum store_encoding encoding, const void *data,
                       size_t len_bytes, struct err *err)
{
    if (encoding != STORE_ZSTD || len_bytes != STORED_BYTES || wire_load_u32(data) != assembly->object->number ||
        wire_load_u32((const uint8_t *)data + 4) != chunk)
        return err_set(err, ERR_CORRUPT, "chunk %u is another", chunk);
    struct holding *holding = &assembly->store->holdings[assembly->object->number];
    if (has_chunk(assembly->store, assembly->object->number, chunk))
        return 0;
    holding->bits[chunk / 8] = (uint8_t)(holding->bits[chunk / 8] | 1u << chunk % 8);
    holding->missing--;
    return 0;
}

int store_assembly_add_all(struct store_assembly *assembly, struct store_arrival *arrivals, size_t count,
                           struct err *err)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        struct store_arrival *one = &arrivals[i];
        one->ret_status = store_assembly_add(assembly, one->chunk, one->encoding, one->data, one->len_bytes, err);
        if (one->ret_status < 0 && one->ret_status != ERR_CORRUPT)
            failed = one->ret_status;
    }
    return failed;
}

int store_assembly_sync(struct store_assembly *assembly, struct err *err)
{
    (void)assembly;
    (void)err;
    return 0;
}

int store_assembly_finish(struct store_assembly *assembly, struct store_object_info *ret_info, struct err *err)
{
    if (assembly->store->holdings[assembly->object->number].missing > 0)
        return err_set(err, ERR_CONFLICT, "chunks are missing");
    simstore_fill(assembly->store, assembly->object->number);
    return store_object_stat(assembly->store, &assembly->object->digest, ret_info, err) == 1 ? 0 : ERR_INTERNAL;
}

void store_assembly_free(struct store_assembly *assembly)
{
    free(assembly);
}

/* What is on its way here resembles nothing that is here. */
int store_similar_find(struct store *store, const struct store_recipe *recipe, struct id *ret_objects, unsigned max,
                       struct err *err)
{
    (void)store, (void)recipe, (void)ret_objects, (void)max, (void)err;
    return 0;
}
