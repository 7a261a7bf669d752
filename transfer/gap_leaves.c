/*
 * Leaves of a recipe as deltas: most entries of a new version's recipe are those of the old one's. A leaf is compressed
 * with a stretch of the basis' entries as prefix, when both sides have that recipe; who has not sends it plain.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/limits.h"
#include "store/compress.h"
#include "transfer/gap.h"
#include "transfer/gap_code.h"
#include "transfer/have.h"

#define STRETCH_MAX_CHUNKS (2 * STORE_LEAF_MAX_CHUNKS)
#define JOBS_MAX 16u           /* for one peer */
#define WAITING_MAX 128u       /* leaves that are made and not sent; more are not made */
#define SLACK_BYTES (1u << 20) /* before and behind where a leaf should be */

/* The entries as a leaf has them. */
static bool encode_stretch(const struct store_recipe *basis, uint32_t first, uint32_t count, struct buf *ret_entries)
{
    uint32_t n = basis->root.chunk_count;
    buf_init(ret_entries, STORE_LEAF_HEAD_BYTES + (size_t)STRETCH_MAX_CHUNKS * STORE_LEAF_ENTRY_BYTES);
    return count > 0 && count <= STRETCH_MAX_CHUNKS && count <= n && first <= n - count &&
           store_leaf_encode(basis->chunks + first, count, ret_entries, NULL) == 0;
}

/* ---- asking ---- */

void transfer_gap_leaves_find(struct fetch *fetch)
{
    struct store *store = fetch->exchange->config.store;
    if (store_recipe_complete(fetch->building) || fetch->building->root.chunk_count > LIMIT_PUSHED_CHUNKS)
        return;
    for (unsigned i = 0; i < fetch->n_bases && !fetch->leaf_basis; i++) {
        struct store_recipe *recipe = NULL;
        if (store_object_stat(store, &fetch->bases[i], NULL, NULL) != 1 ||
            store_recipe_load(store, &fetch->bases[i], &recipe, NULL) != 1)
            continue;
        if (recipe->root.chunking == fetch->building->root.chunking && recipe->root.chunk_count > 0 &&
            recipe->root.chunk_count <= LIMIT_PUSHED_CHUNKS)
            fetch->leaf_basis = STEAL(recipe);
        store_recipe_free(recipe);
    }
}

void transfer_gap_leaves_forget(struct fetch *fetch)
{
    store_recipe_free(STEAL(fetch->leaf_basis));
}

/* Where the leaf's chunks would be in the basis: at the same place, or moved by the difference of the lengths. */
static void find_stretch(const struct fetch *fetch, uint32_t leaf, uint32_t *ret_first, uint32_t *ret_count)
{
    const struct store_recipe *basis = fetch->leaf_basis;
    const struct store_leaf *at = &fetch->building->root.leaves[leaf];
    uint64_t new_bytes = fetch->building->root.size_bytes;
    uint64_t old_bytes = basis->root.size_bytes;
    uint64_t slack = SLACK_BYTES + (new_bytes > old_bytes ? new_bytes - old_bytes : old_bytes - new_bytes);
    uint64_t from = at->offset > slack ? at->offset - slack : 0;
    uint64_t to = at->offset + at->span_bytes + slack;
    if (from >= old_bytes)
        from = old_bytes - 1;
    uint32_t first = transfer_gap_chunk_at(basis, from);
    uint32_t last = transfer_gap_chunk_at(basis, to < old_bytes ? to : old_bytes - 1);
    *ret_first = first;
    *ret_count = last - first + 1 < STRETCH_MAX_CHUNKS ? last - first + 1 : STRETCH_MAX_CHUNKS;
}

bool transfer_gap_leaves_ask(struct source *source, const uint32_t *leaves, uint32_t n)
{
    const struct fetch *fetch = source->fetch;
    if (!fetch->leaf_basis)
        return false;
    OWNED(buf_release) struct buf items = BUF(REQUEST_LEAVES * MESSAGE_STRETCH_BYTES);
    struct request *request = transfer_schedule_add(source, STORE_PIECE_LEAF, 0);
    if (!request)
        return false;
    request->by_basis = true;
    request->count = n;
    memcpy(request->leaves, leaves, n * sizeof *leaves);
    for (uint32_t i = 0; i < n; i++) {
        struct message_stretch stretch = {.leaf = fetch->building->root.leaves[leaves[i]].id};
        find_stretch(fetch, leaves[i], &stretch.first, &stretch.count);
        transfer_message_put_stretch(&items, &stretch);
    }
    transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_LEAVES,
                                                       .request = request->number,
                                                       .basis = fetch->leaf_basis->root.object,
                                                       .root = fetch->leaf_basis->root_id,
                                                       .items = items.data,
                                                       .n_items = n});
    return true;
}

uint8_t *transfer_gap_leaves_decode(const struct fetch *fetch, const struct request *request,
                                    const struct arrival *arrival)
{
    OWNED(buf_release) struct buf entries = BUF(0);
    OWNED(owned_free) uint8_t *raw = malloc((size_t)arrival->raw_bytes + 1);
    uint32_t first = 0;
    uint32_t count = 0;
    bool prefixed = arrival->encoding == MESSAGE_CODEC_PREFIX;
    if (prefixed && fetch->leaf_basis && fetch->building) {
        find_stretch(fetch, request->leaves[arrival->at], &first, &count);
        encode_stretch(fetch->leaf_basis, first, count, &entries);
    }
    size_t len = 0;
    if (!raw || (prefixed && entries.len == 0) ||
        store_patch_undo(entries.data, entries.len, arrival->data, arrival->stored_bytes, raw, arrival->raw_bytes, &len,
                         NULL) < 0 ||
        len != arrival->raw_bytes)
        return NULL;
    return STEAL(raw);
}

/* ---- answering ---- */

struct leaves_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    uint32_t request;
    struct id basis;
    struct id root;
    struct recipe_ref *known;    /* a ref */
    struct store_recipe *loaded; /* owned */
    unsigned n;
    unsigned made;
    struct message_stretch stretches[REQUEST_LEAVES];
    struct message heads[REQUEST_LEAVES];
    uint8_t *frames[REQUEST_LEAVES]; /* owned */
};

static int make_leaf(struct leaves_job *leaves, unsigned i, const struct store_recipe *basis, struct store_patch *patch)
{
    const struct message_stretch *stretch = &leaves->stretches[i];
    OWNED(buf_release) struct buf entries = BUF(0);
    OWNED(owned_free) uint8_t *raw = malloc(STORE_LEAF_MAX_BYTES);
    size_t cap = store_compress_bound(STORE_LEAF_MAX_BYTES);
    OWNED(owned_free) uint8_t *frame = malloc(cap);
    size_t len = 0;
    size_t frame_bytes = 0;
    if (!raw || !frame ||
        store_piece_read_raw(leaves->store, STORE_PIECE_LEAF, &stretch->leaf, raw, STORE_LEAF_MAX_BYTES, &len, NULL) !=
            1)
        return ERR_NOTFOUND;
    bool prefixed = basis && encode_stretch(basis, stretch->first, stretch->count, &entries);
    int status =
        store_patch_make(patch, entries.data, prefixed ? entries.len : 0, raw, len, frame, cap, &frame_bytes, NULL);
    if (status < 0)
        return status;
    leaves->heads[i] = (struct message){.type = MESSAGE_DELTA,
                                        .request = leaves->request,
                                        .index = i,
                                        .codec = prefixed ? MESSAGE_CODEC_PREFIX : MESSAGE_CODEC_PLAIN,
                                        .stored_bytes = (uint32_t)frame_bytes,
                                        .raw_bytes = (uint32_t)len};
    leaves->frames[i] = STEAL(frame);
    return 0;
}

static void leaves_work(struct job *job)
{
    struct leaves_job *leaves = (struct leaves_job *)job;
    struct store_patch *patch = NULL;
    const struct store_recipe *basis = leaves->known ? leaves->known->recipe : NULL;
    struct store_object_info info;
    if (!basis && store_object_stat(leaves->store, &leaves->basis, &info, NULL) == 1 &&
        id_equal(&info.root, &leaves->root) && info.chunk_count <= LIMIT_PUSHED_CHUNKS &&
        store_recipe_load(leaves->store, &leaves->basis, &leaves->loaded, NULL) == 1)
        basis = leaves->loaded;
    /* entries are 36 bytes, mostly noise: found by the finder that is for small changes */
    if (store_patch_new(STORE_CHUNKING_PAGES, &patch, NULL) < 0)
        return;
    while (leaves->made < leaves->n && make_leaf(leaves, leaves->made, basis, patch) == 0)
        leaves->made++;
    store_patch_free(patch);
}

static void leaves_done(struct job *job)
{
    struct leaves_job *leaves = (struct leaves_job *)job;
    struct exchange_peer *peer = leaves->peer;
    bool useless = peer->gone || job->exchange->dead;
    peer->serving.n_leaves--;
    for (unsigned i = 0; i < leaves->made; i++) {
        if (useless)
            free(leaves->frames[i]);
        else
            transfer_serve_give(peer, EXCHANGE_FREEZE, &leaves->heads[i], leaves->frames[i]);
    }
    if (!useless && leaves->made < leaves->n)
        transfer_peer_send(peer, &(struct message){.type = MESSAGE_GONE, .request = leaves->request});
    if (!useless && leaves->loaded)
        transfer_recipe_unref(transfer_recipes_add(job->exchange, STEAL(leaves->loaded)));
    store_recipe_free(leaves->loaded);
    transfer_recipe_unref(leaves->known);
    free(leaves);
    if (!useless)
        transfer_serve_pump_all(peer->exchange);
    transfer_peer_unpin(peer);
}

static bool is_room(const struct exchange_peer *peer)
{
    return peer->serving.n_leaves < JOBS_MAX && peer->serving.lanes[EXCHANGE_FREEZE].n_batches < WAITING_MAX &&
           peer->exchange->serve_bytes < LIMIT_SERVE_BYTES;
}

int transfer_gap_leaves_take(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    if (!is_room(peer)) {
        transfer_peer_send(
            peer, &(struct message){.type = MESSAGE_BUSY, .request = message->request, .retry_ms = GAP_BUSY_RETRY_MS});
        return 0;
    }
    struct leaves_job *leaves = calloc(1, sizeof *leaves);
    if (!leaves)
        return err_set(err, ERR_NOMEM, "no memory for a request");
    leaves->store = peer->exchange->config.store;
    leaves->peer = peer;
    leaves->request = message->request;
    leaves->basis = message->basis;
    leaves->root = message->root;
    leaves->known = transfer_recipes_get(peer->exchange, &message->root);
    leaves->n = (unsigned)message->n_items;
    for (unsigned i = 0; i < leaves->n; i++)
        leaves->stretches[i] = transfer_message_stretch(message, i);
    peer->serving.n_leaves++;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &leaves->job, leaves_work, leaves_done);
    return 0;
}
