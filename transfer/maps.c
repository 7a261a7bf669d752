/*
 * Answers MAP: which chunks of a recipe are here, whatever object they came with.
 *
 * A recipe that is neither in memory nor in the store can be taught: the asker's sample of chunks tells whether that is
 * worth it, then come the root and those leaves that the store has not. A holder of an older version becomes a source
 * in this way.
 *
 *   MAP --> known? ---------------------------------------> bitmap job --> MAP_IS ...
 *            | no, and some of the sample is here              ^
 *            +--> lesson: RECIPE_NEED root --> PART            |
 *                          fill job --> RECIPE_NEED leaves --> PART ... complete
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/crypto.h"
#include "node/base/limits.h"
#include "node/base/wire.h"
#include "transfer/exchange.h"
#include "transfer/fetch.h"
#include "transfer/have.h"

#define LESSON_MS 10000 /* without a part */
#define ASK_IDS 4096u   /* of the store at once */

struct lesson {
    struct lesson *next; /* owned */
    struct id object;
    struct id root;
    struct store_recipe *recipe; /* owned; NULL before the root has come and while a job fills it */
    bool filling;
    uint64_t deadline_ms;
};

struct map_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    struct id object;
    struct id root;
    struct recipe_ref *recipe; /* NULL: look for it */
    struct store_recipe *loaded;
    uint8_t *bits; /* owned; of the recipe, when there is one */
    bool sample_hit;
    unsigned n_sample;
    struct id sample[MESSAGE_SAMPLE_MAX];
};

void transfer_maps_send(struct exchange_peer *peer, const struct id *root, const uint8_t *bits, uint32_t n_bits)
{
    bool any = false;
    for (size_t i = 0; i < have_bytes(n_bits) && !any; i++)
        any = bits[i];
    struct message map = {.type = MESSAGE_MAP_IS, .root = *root};
    if (!any)
        transfer_peer_send(peer, &map);
    for (uint32_t first = 0; any && first < n_bits; first += MESSAGE_MAP_BITS) {
        map.first = first;
        map.count = n_bits - first < MESSAGE_MAP_BITS ? n_bits - first : MESSAGE_MAP_BITS;
        map.items = bits + first / 8;
        map.n_items = have_bytes(map.count);
        if (!transfer_peer_send(peer, &map))
            return;
    }
}

static void send_none(struct exchange_peer *peer, const struct id *root)
{
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_MAP_IS, .root = *root});
}

/* ---- bitmaps ---- */

static uint8_t *make_bits(struct store *store, const struct store_recipe *recipe)
{
    uint32_t n = recipe->root.chunk_count;
    OWNED(owned_free) uint8_t *bits = have_new(n);
    OWNED(owned_free) struct id *ids = malloc(ASK_IDS * sizeof *ids);
    for (uint32_t first = 0; bits && ids && first < n; first += ASK_IDS) {
        uint32_t count = n - first < ASK_IDS ? n - first : ASK_IDS;
        for (uint32_t i = 0; i < count; i++)
            ids[i] = recipe->chunks[first + i].id;
        if (store_pieces_have(store, ids, count, bits + first / 8, NULL) < 0)
            return NULL;
    }
    return ids ? STEAL(bits) : NULL;
}

static void map_work(struct job *job)
{
    struct map_job *map = (struct map_job *)job;
    if (!map->recipe && store_recipe_load(map->store, &map->object, &map->loaded, NULL) == 1 &&
        !id_equal(&map->loaded->root_id, &map->root))
        store_recipe_free(STEAL(map->loaded));
    const struct store_recipe *recipe = map->recipe ? map->recipe->recipe : map->loaded;
    if (recipe) {
        map->bits = make_bits(map->store, recipe);
        return;
    }
    uint8_t hits[MESSAGE_SAMPLE_MAX / 8] = {0};
    if (map->n_sample > 0 && store_pieces_have(map->store, map->sample, map->n_sample, hits, NULL) >= 0)
        for (unsigned i = 0; i < map->n_sample; i++)
            map->sample_hit |= have_get(hits, i);
}

static unsigned count_lessons(const struct exchange_peer *peer)
{
    unsigned n = 0;
    for (const struct lesson *lesson = peer->serving.lessons; lesson; lesson = lesson->next)
        n++;
    return n;
}

static bool begin_lesson(struct exchange_peer *peer, const struct map_job *map)
{
    if (peer->exchange->lessons >= LIMIT_PUSHES || count_lessons(peer) >= LIMIT_PEER_PUSHES)
        return false;
    struct lesson *lesson = calloc(1, sizeof *lesson);
    if (!lesson)
        return false;
    *lesson = (struct lesson){.next = peer->serving.lessons,
                              .object = map->object,
                              .root = map->root,
                              .deadline_ms = peer->exchange->now_ms + LESSON_MS};
    peer->serving.lessons = lesson;
    peer->exchange->lessons++;
    transfer_peer_send(peer, &(struct message){.type = MESSAGE_RECIPE_NEED, .root = map->root});
    return true;
}

static void map_done(struct job *job)
{
    struct map_job *map = (struct map_job *)job;
    struct exchange_peer *peer = map->peer;
    peer->serving.n_maps--;
    if (map->loaded && !map->job.exchange->dead)
        map->recipe = transfer_recipes_add(peer->exchange, STEAL(map->loaded));
    if (!peer->gone && !map->job.exchange->dead) {
        if (map->recipe && map->bits)
            transfer_maps_send(peer, &map->root, map->bits, map->recipe->recipe->root.chunk_count);
        else if (!map->sample_hit || !begin_lesson(peer, map))
            send_none(peer, &map->root);
    }
    store_recipe_free(map->loaded);
    transfer_recipe_unref(map->recipe);
    free(map->bits);
    free(map);
    transfer_peer_unpin(peer);
}

/* Takes the ref. */
static struct map_job *new_map_job(struct exchange_peer *peer, const struct id *object, const struct id *root,
                                   struct recipe_ref *recipe)
{
    struct map_job *map = calloc(1, sizeof *map);
    if (!map) {
        transfer_recipe_unref(recipe);
        return NULL;
    }
    map->store = peer->exchange->config.store;
    map->peer = peer;
    map->object = *object;
    map->root = *root;
    map->recipe = recipe;
    return map;
}

static void submit_map_job(struct map_job *map)
{
    map->peer->serving.n_maps++;
    transfer_peer_pin(map->peer);
    transfer_job_submit(map->peer->exchange, &map->job, map_work, map_done);
}

int transfer_maps_ask(struct exchange_peer *peer, const struct message *message, struct err *err)
{
    if (transfer_fetch_answer_map(peer, message))
        return 0;
    if (peer->serving.n_maps >= LIMIT_PEER_MAPS) {
        send_none(peer, &message->root);
        return 0;
    }
    struct map_job *map =
        new_map_job(peer, &message->object, &message->root, transfer_recipes_get(peer->exchange, &message->root));
    if (!map)
        return err_set(err, ERR_NOMEM, "no memory for a bitmap");
    map->n_sample = (unsigned)message->n_items;
    for (unsigned i = 0; i < map->n_sample; i++)
        map->sample[i] = transfer_message_id(message, i);
    submit_map_job(map);
    return 0;
}

/* ---- lessons ---- */

static struct lesson *find_lesson(struct exchange_peer *peer, const struct id *root)
{
    for (struct lesson *lesson = peer->serving.lessons; lesson; lesson = lesson->next) {
        if (id_equal(&lesson->root, root))
            return lesson;
    }
    return NULL;
}

static void end_lesson(struct exchange_peer *peer, struct lesson *lesson)
{
    struct lesson **at = &peer->serving.lessons;
    while (*at != lesson)
        at = &(*at)->next;
    *at = lesson->next;
    peer->exchange->lessons--;
    store_recipe_free(lesson->recipe);
    free(lesson);
}

void transfer_maps_release(struct exchange_peer *peer)
{
    while (peer->serving.lessons)
        end_lesson(peer, peer->serving.lessons);
}

void transfer_maps_tick(struct exchange_peer *peer)
{
    for (struct lesson *lesson = peer->serving.lessons, *next; lesson; lesson = next) {
        next = lesson->next;
        if (!lesson->filling && peer->exchange->now_ms >= lesson->deadline_ms) {
            send_none(peer, &lesson->root);
            end_lesson(peer, lesson);
        }
    }
}

/* The recipe is whole: compare it with the store. */
static int use_lesson(struct exchange_peer *peer, struct lesson *lesson, struct err *err)
{
    struct recipe_ref *recipe = transfer_recipes_add(peer->exchange, STEAL(lesson->recipe));
    struct map_job *map = recipe ? new_map_job(peer, &lesson->object, &lesson->root, recipe) : NULL;
    end_lesson(peer, lesson);
    if (!map)
        return err_set(err, ERR_NOMEM, "no memory for a bitmap");
    submit_map_job(map);
    return 0;
}

static void ask_leaves(struct exchange_peer *peer, struct lesson *lesson)
{
    const struct store_recipe *recipe = lesson->recipe;
    OWNED(buf_release) struct buf need = BUF(4 * (size_t)recipe->root.leaf_count);
    for (uint32_t i = 0; i < recipe->root.leaf_count; i++) {
        if (!store_recipe_has_leaf(recipe, i))
            wire_put_u32(&need, i);
    }
    lesson->deadline_ms = peer->exchange->now_ms + LESSON_MS;
    transfer_peer_send(
        peer, &(struct message){
                  .type = MESSAGE_RECIPE_NEED, .root = lesson->root, .items = need.data, .n_items = need.len / 4});
}

struct fill_job {
    struct job job;
    struct store *store;
    struct exchange_peer *peer; /* pinned */
    struct id root;
    struct store_recipe *recipe; /* owned */
};

static void fill_work(struct job *job)
{
    struct fill_job *fill = (struct fill_job *)job;
    transfer_recipe_fill(fill->store, fill->recipe);
}

static void fill_done(struct job *job)
{
    struct fill_job *fill = (struct fill_job *)job;
    struct exchange_peer *peer = fill->peer;
    struct lesson *lesson = peer->gone || job->exchange->dead ? NULL : find_lesson(peer, &fill->root);
    if (lesson) {
        lesson->filling = false;
        lesson->recipe = STEAL(fill->recipe);
        if (store_recipe_complete(lesson->recipe))
            use_lesson(peer, lesson, NULL);
        else
            ask_leaves(peer, lesson);
    }
    store_recipe_free(fill->recipe);
    free(fill);
    transfer_peer_unpin(peer);
}

static int take_root(struct exchange_peer *peer, struct lesson *lesson, const struct message *part, struct err *err)
{
    struct id id;
    crypto_sha256(part->items, part->n_items, &id);
    struct store_recipe *recipe = NULL;
    if (!id_equal(&id, &lesson->root) || store_recipe_from_root(part->items, part->n_items, &recipe, NULL) < 0)
        return err_set(err, ERR_PROTOCOL, "a recipe's root that is none");
    struct fill_job *fill = recipe->root.chunk_count <= LIMIT_PUSHED_CHUNKS ? calloc(1, sizeof *fill) : NULL;
    if (!fill) {
        store_recipe_free(recipe);
        send_none(peer, &lesson->root);
        end_lesson(peer, lesson);
        return 0;
    }
    fill->store = peer->exchange->config.store;
    fill->peer = peer;
    fill->root = lesson->root;
    fill->recipe = recipe;
    lesson->filling = true;
    transfer_peer_pin(peer);
    transfer_job_submit(peer->exchange, &fill->job, fill_work, fill_done);
    return 0;
}

int transfer_maps_part(struct exchange_peer *peer, const struct message *part, struct err *err)
{
    struct lesson *lesson = find_lesson(peer, &part->root);
    if (!lesson)
        transfer_fetch_hear_record(peer, part);
    if (!lesson || lesson->filling)
        return 0; /* too late, or twice */
    if (part->index == MESSAGE_PART_ROOT)
        return lesson->recipe ? 0 : take_root(peer, lesson, part, err);
    if (lesson->recipe && part->index < lesson->recipe->root.leaf_count &&
        store_recipe_has_leaf(lesson->recipe, part->index))
        return 0; /* no news, and no more time */
    if (!lesson->recipe || part->index >= lesson->recipe->root.leaf_count ||
        store_recipe_add_leaf(lesson->recipe, part->index, part->items, part->n_items, NULL) < 0)
        return err_set(err, ERR_PROTOCOL, "a recipe's leaf that is none");
    lesson->deadline_ms = peer->exchange->now_ms + LESSON_MS;
    return store_recipe_complete(lesson->recipe) ? use_lesson(peer, lesson, err) : 0;
}
