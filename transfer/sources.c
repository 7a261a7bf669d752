/* Who has what of a fetch, and how that is found out. */
#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/limits.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define ANSWER_MS 5000                   /* to a WANT */
#define ASK_AGAIN_MS 10000               /* who had nothing */
#define WANTS_MAX (LIMIT_PEER_WANTS / 2) /* unanswered; some that we gave up may still wait there */
#define LOOK_MS 200                      /* for those who are to be asked again */
/* Fewer missing bytes than this are not worth teaching somebody a recipe for. */
#define WORTH_TEACHING_BYTES (256u << 10)

bool transfer_source_usable(const struct source *source)
{
    const struct exchange_peer *peer = source->peer;
    uint64_t now = source->fetch->exchange->now_ms;
    return peer && !peer->failing && !source->liar && now >= source->not_before_ms &&
           now >= peer->asking.not_before_ms && !peer->asking.stalled;
}

bool transfer_source_holds(const struct source *source, uint32_t chunk)
{
    return source->state == SOURCE_WHOLE ||
           (source->state == SOURCE_PARTIAL && source->bits && have_get(source->bits, chunk));
}

/* Questions that its peer has not answered. */
static void count_want(const struct source *source, int by)
{
    if (source->peer && source->state == SOURCE_ASKED)
        source->peer->asking.n_wants += (unsigned)by;
}

/* Leave the present state, whatever it was counted for. */
static void set_state(struct source *source, enum source_state state)
{
    struct fetch *fetch = source->fetch;
    count_want(source, -1);
    fetch->n_new -= source->state == SOURCE_NEW;
    fetch->n_new += state == SOURCE_NEW;
    fetch->n_partial -= source->state == SOURCE_PARTIAL;
    fetch->n_partial += state == SOURCE_PARTIAL;
    fetch->n_whole -= source->state == SOURCE_WHOLE;
    fetch->n_whole += state == SOURCE_WHOLE;
    if (source->state == SOURCE_WHOLE)
        TAILQ_REMOVE(&fetch->wholes, source, of_wholes);
    if (state == SOURCE_WHOLE)
        TAILQ_INSERT_TAIL(&fetch->wholes, source, of_wholes);
    for (uint32_t i = 0; source->bits && fetch->held_by && i < fetch->n_chunks; i++) {
        if (have_get(source->bits, i))
            fetch->held_by[i]--;
    }
    free(STEAL(source->bits));
    source->state = state;
    count_want(source, 1);
    source->exhausted = source->dealt_out = false;
    source->empty_deals = 0;
}

void transfer_source_watch(struct source *source, bool watches)
{
    source->fetch->n_watches -= source->watches;
    source->fetch->n_watches += watches;
    source->watches = watches;
}

static void set_peer(struct source *source, struct exchange_peer *peer)
{
    count_want(source, -1);
    if (source->peer)
        TAILQ_REMOVE(&source->peer->asking.sources, source, of_peer);
    source->fetch->n_linked -= source->peer != NULL;
    source->fetch->n_linked += peer != NULL;
    source->peer = peer;
    count_want(source, 1);
    if (peer)
        TAILQ_INSERT_TAIL(&peer->asking.sources, source, of_peer);
}

void transfer_source_free(struct source *source)
{
    map_remove(&source->fetch->source_of, &source->node);
    source->fetch->n_sources--;
    TAILQ_REMOVE(&source->fetch->sources, source, link);
    set_peer(source, NULL);
    set_state(source, SOURCE_NONE);
    free(source->push_leaves);
    free(source);
}

/* ---- asking ---- */

void transfer_source_ask(struct source *source)
{
    source->mapped = source->has_root = false;
    source->asked_ms = source->fetch->exchange->now_ms;
    if (source->peer->asking.n_wants >= WANTS_MAX) {
        set_state(source, SOURCE_NEW); /* asked by a later tick */
        return;
    }
    set_state(source, SOURCE_ASKED);
    transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_WANT, .object = source->fetch->object});
}

struct source *transfer_source_of(struct fetch *fetch, const struct exchange_peer *peer)
{
    struct source *source;
    TAILQ_FOREACH (source, &peer->asking.sources, of_peer) {
        if (source->fetch == fetch)
            return source;
    }
    return NULL;
}

struct source *transfer_source_of_node(struct fetch *fetch, const struct id *node)
{
    return map_get(&fetch->source_of, node);
}

static bool is_among(const struct arrived_list *list, const struct source *source)
{
    const struct arrived *arrived;
    TAILQ_FOREACH (arrived, list, link) {
        if (arrived->source == source)
            return true;
    }
    return false;
}

/* Somebody who has gone, without having given anything or lied, makes room. False: there is nobody. */
static bool forget_one(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->peer || source->liar || source->bytes > 0 || source == fetch->teller ||
            is_among(&fetch->arrived, source) || is_among(&fetch->checking, source))
            continue;
        transfer_source_free(source);
        return true;
    }
    return false;
}

struct source *transfer_source_add(struct fetch *fetch, struct exchange_peer *peer, bool origin)
{
    struct source *source = transfer_source_of_node(fetch, &peer->node);
    if (!source) {
        if (fetch->n_sources >= LIMIT_SESSIONS && !forget_one(fetch))
            return NULL;
        source = calloc(1, sizeof *source);
        if (!source)
            return NULL;
        if (map_set(&fetch->source_of, &peer->node, source) < 0) {
            free(source);
            return NULL;
        }
        source->fetch = fetch;
        source->state = SOURCE_NONE;
        source->node = peer->node;
        TAILQ_INSERT_TAIL(&fetch->sources, source, link);
        fetch->n_sources++;
    }
    source->origin |= origin;
    if (source->peer == peer || source->liar)
        return source;
    if (source->peer) /* another session with the same node */
        transfer_schedule_drop_all(source->peer, fetch, true);
    transfer_source_watch(source, false);
    set_peer(source, peer);
    peer->asking.silences += source->broke_off;
    source->mapped = source->has_root = source->push_root = false;
    free(STEAL(source->push_leaves));
    source->not_before_ms = 0;
    set_state(source, SOURCE_NEW);
    if (fetch->phase != FETCH_LOOK)
        transfer_source_ask(source);
    return source;
}

void transfer_source_lose(struct source *source)
{
    transfer_source_forget(source, 0);
    transfer_source_watch(source, false);
    set_peer(source, NULL);
}

static void tick(struct source *source)
{
    uint64_t now = source->fetch->exchange->now_ms;
    if (!source->peer || source->peer->failing || source->liar)
        return;
    if (source->state == SOURCE_ASKED && now >= source->asked_ms + ANSWER_MS) {
        source->failures++;
        transfer_source_forget(source, ANSWER_MS);
    }
    if (source->state == SOURCE_NEW ||
        (source->state == SOURCE_NONE && now >= source->not_before_ms && now >= source->asked_ms + ASK_AGAIN_MS))
        transfer_source_ask(source);
}

void transfer_sources_tick(struct fetch *fetch)
{
    uint64_t now = fetch->exchange->now_ms;
    bool all_hold = fetch->n_partial + fetch->n_whole == fetch->n_linked;
    if (fetch->n_new == 0 && (all_hold || now < fetch->looked_ms + LOOK_MS))
        return;
    fetch->looked_ms = now;
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        tick(source);
    }
}

/* ---- which chunks ---- */

static bool ready_for_bits(struct source *source)
{
    if (source->fetch->phase != FETCH_CHUNKS || source->liar || source->state == SOURCE_WHOLE)
        return false;
    if (!source->bits) {
        set_state(source, SOURCE_PARTIAL);
        source->bits = have_new(source->fetch->n_chunks);
    }
    return source->bits;
}

static void add_chunk(struct source *source, uint32_t chunk)
{
    have_set(source->bits, chunk);
    source->fetch->held_by[chunk]++;
}

/* Ids of chunks that are missing, drawn at random: somebody who has a tenth of them has one of 64 with p = 0.999. */
static size_t draw_sample(struct fetch *fetch, uint8_t ret_ids[MESSAGE_SAMPLE_MAX * ID_BYTES])
{
    size_t n = 0;
    for (unsigned i = 0; i < 4 * MESSAGE_SAMPLE_MAX && n < MESSAGE_SAMPLE_MAX && fetch->n_free > 0; i++) {
        uint32_t chunk = (uint32_t)rng_below(&fetch->exchange->config.rng, fetch->n_chunks);
        if (fetch->state[chunk] == CHUNK_FREE)
            memcpy(ret_ids + ID_BYTES * n++, fetch->recipe->recipe->chunks[chunk].id.b, ID_BYTES);
    }
    return n;
}

static void ask_map(struct source *source)
{
    struct fetch *fetch = source->fetch;
    bool knows = source->has_root && id_equal(&source->root, &fetch->root);
    uint64_t missing = fetch->total_bytes - fetch->done_bytes;
    if (source->mapped || (!knows && (missing < WORTH_TEACHING_BYTES || fetch->n_chunks > LIMIT_PUSHED_CHUNKS)))
        return;
    source->mapped = true;
    uint8_t ids[MESSAGE_SAMPLE_MAX * ID_BYTES];
    size_t n = knows ? 0 : draw_sample(fetch, ids);
    transfer_peer_send(
        source->peer,
        &(struct message){
            .type = MESSAGE_MAP, .object = fetch->object, .root = fetch->root, .items = ids, .n_items = n});
}

/* The recipe is known and so is what the source said of the object. */
static void follow(struct source *source)
{
    if (source->fetch->phase != FETCH_CHUNKS || source->liar || !source->peer)
        return;
    if (source->state == SOURCE_WHOLE)
        transfer_schedule_peer(source->peer);
    else if (source->state == SOURCE_NONE || source->state == SOURCE_PARTIAL)
        ask_map(source);
}

void transfer_sources_follow(struct fetch *fetch)
{
    struct source *source;
    TAILQ_FOREACH (source, &fetch->sources, link) {
        if (source->has_root && !id_equal(&source->root, &fetch->root))
            set_state(source, SOURCE_NONE);
        follow(source);
    }
}

void transfer_source_have(struct source *source, const struct message *message)
{
    struct fetch *fetch = source->fetch;
    if (source->liar || transfer_roots_is_bad(fetch, &message->root))
        return;
    source->root = message->root;
    source->has_root = true;
    source->peer->asking.load = message->load;
    source->peer->asking.price = message->price;
    if (message->flags & MESSAGE_HAVE_WHOLE)
        transfer_source_watch(source, false);
    bool same = fetch->phase <= FETCH_ROOT || id_equal(&message->root, &fetch->root);
    enum source_state state = !same ? SOURCE_NONE : message->flags & MESSAGE_HAVE_WHOLE ? SOURCE_WHOLE : SOURCE_PARTIAL;
    if (state != source->state)
        set_state(source, state);
    follow(source);
    transfer_fetch_step(fetch);
}

void transfer_source_have_not(struct source *source)
{
    if (source->liar || source->state != SOURCE_ASKED)
        return;
    set_state(source, SOURCE_NONE);
    follow(source);
}

int transfer_source_map(struct source *source, const struct message *message, struct err *err)
{
    struct fetch *fetch = source->fetch;
    if (fetch->phase != FETCH_CHUNKS || message->count == 0)
        return 0;
    if (message->first + message->count > fetch->n_chunks)
        return err_set(err, ERR_PROTOCOL, "a bitmap longer than its recipe");
    if (!ready_for_bits(source))
        return 0;
    for (uint32_t i = 0; i < message->count; i++) {
        if (have_get(message->items, i) && !have_get(source->bits, message->first + i))
            add_chunk(source, message->first + i);
    }
    source->exhausted = false;
    transfer_schedule_peer(source->peer);
    return 0;
}

int transfer_source_more(struct source *source, const struct message *message, struct err *err)
{
    struct fetch *fetch = source->fetch;
    uint32_t left = fetch->n_chunks; /* nothing is told twice at once */
    if (!ready_for_bits(source))
        return 0;
    for (size_t i = 0; i < message->n_items; i++) {
        uint32_t first;
        uint32_t count;
        transfer_message_range(message, i, &first, &count);
        if (first > fetch->n_chunks || count > fetch->n_chunks - first || count > left)
            return err_set(err, ERR_PROTOCOL, "a range outside of its recipe, or told twice");
        left -= count;
        uint32_t end = first + count;
        for (uint32_t chunk = first; (chunk = have_next_clear(source->bits, chunk, end)) < end;)
            add_chunk(source, chunk);
    }
    source->exhausted = false;
    transfer_schedule_peer(source->peer);
    return 0;
}

/* ---- teaching ---- */

int transfer_source_need(struct source *source, const struct message *message, struct err *err)
{
    struct fetch *fetch = source->fetch;
    if (fetch->phase != FETCH_CHUNKS || !source->mapped)
        return 0;
    uint32_t n_leaves = fetch->recipe->recipe->root.leaf_count;
    if (message->n_items == 0)
        source->push_root = true;
    else if (!source->push_leaves)
        source->push_leaves = have_new(n_leaves);
    for (size_t i = 0; source->push_leaves && i < message->n_items; i++) {
        uint32_t leaf = transfer_message_number(message, i);
        if (leaf >= n_leaves)
            return err_set(err, ERR_PROTOCOL, "a leaf outside of its recipe");
        have_set(source->push_leaves, leaf);
    }
    source->push_next = 0;
    transfer_source_push(source);
    return 0;
}

static bool push_part(struct source *source, uint32_t index, const struct buf *part)
{
    return !part->failed && transfer_peer_send(source->peer, &(struct message){.type = MESSAGE_RECIPE_PART,
                                                                               .root = source->fetch->root,
                                                                               .index = index,
                                                                               .items = part->data,
                                                                               .n_items = part->len});
}

static bool push_leaf(struct source *source, uint32_t index)
{
    const struct store_recipe *recipe = source->fetch->recipe->recipe;
    const struct store_leaf *leaf = &recipe->root.leaves[index];
    OWNED(buf_release) struct buf part = BUF(STORE_LEAF_MAX_BYTES);
    return store_leaf_encode(recipe->chunks + leaf->first_chunk, leaf->chunk_count, &part, NULL) == 0 &&
           push_part(source, index, &part);
}

void transfer_source_push(struct source *source)
{
    struct fetch *fetch = source->fetch;
    if ((!source->push_root && !source->push_leaves) || fetch->phase != FETCH_CHUNKS || !source->peer)
        return;
    const struct store_recipe *recipe = fetch->recipe->recipe;
    if (source->push_root) {
        OWNED(buf_release) struct buf part = BUF(LIMIT_CONTROL_BYTES / 2);
        source->push_root = false;
        if (store_root_encode(&recipe->root, &part, NULL) < 0 || !push_part(source, MESSAGE_PART_ROOT, &part))
            return;
    }
    while (source->push_leaves && source->peer->out.room(source->peer->out.ctx) > 0) {
        while (source->push_next < recipe->root.leaf_count && !have_get(source->push_leaves, source->push_next))
            source->push_next++;
        if (source->push_next == recipe->root.leaf_count || !push_leaf(source, source->push_next))
            free(STEAL(source->push_leaves));
        else
            source->push_next++;
    }
}

/* ---- losing ---- */

void transfer_source_forget(struct source *source, uint32_t delay_ms)
{
    source->not_before_ms = source->fetch->exchange->now_ms + delay_ms;
    source->mapped = source->has_root = source->push_root = false;
    free(STEAL(source->push_leaves));
    if (source->peer)
        transfer_schedule_drop_all(source->peer, source->fetch, true);
    set_state(source, SOURCE_NONE);
}

void transfer_source_lied(struct source *source, const char *what)
{
    struct fetch *fetch = source->fetch;
    if (source->liar)
        return;
    source->liar = true;
    source->failures++;
    if (source->peer) {
        source->peer->asking.failures++;
        transfer_schedule_drop_all(source->peer, fetch, true);
    }
    set_state(source, SOURCE_NONE);
    if (fetch->exchange->config.on_liar)
        fetch->exchange->config.on_liar(fetch->exchange->config.ctx, &source->node, &fetch->object, what);
}
