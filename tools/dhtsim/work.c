#include "tools/dhtsim/work.h"

#include <stdlib.h>
#include <string.h>

#include "tools/sim/memory.h"

#define WAIT_PUBLISHED_US (60ull * WORLD_SECOND_US)
#define WAIT_READ_US ((uint64_t)DHT_GET_TIMEOUT_MS * 3000)
#define STEP_US 100000u
#define REST_US (5ull * WORLD_SECOND_US)

struct work_get {
    struct node_asked asked; /* first, so that one is known by the other */
    struct work *work;
    const struct work_record *record;
    struct work_get *next_spare;
    struct work_get *next; /* of all */
    uint64_t start_us;
    uint32_t trace;
};

void work_init(struct work *work, struct world *world, size_t record_max)
{
    *work = (struct work){.world = world, .record_max = record_max, .members = 1};
    work->records = memory_get(record_max * sizeof *work->records);
}

void work_release(struct work *work)
{
    while (work->all) {
        struct work_get *get = work->all;
        work->all = get->next;
        free(get);
    }
    sample_release(&work->acknowledged_us);
    free(work->records);
}

void work_figures_release(struct work_figures *figures)
{
    sample_release(&figures->hops);
    sample_release(&figures->requests);
    sample_release(&figures->first_us);
    sample_release(&figures->whole_us);
}

static struct node *any_node(struct work *work)
{
    struct world *world = work->world;
    if (!work->askers)
        return world_any_alive(world, &world->work, NULL);
    for (;;) {
        struct node *node = &world->nodes[random_below(&world->work, work->askers)];
        if (node->dht && !node->liar)
            return node;
    }
}

/* ---- publishing ---- */

/* Some more time for what a publication or a read leaves behind, then the node may rest. */
static void rest(struct world *world, void *ctx, uint64_t number)
{
    (void)ctx;
    node_rest(&world->nodes[number]);
}

static void rest_later(struct world *world, const struct node *node)
{
    world_call_at(world, world->now_us + REST_US, rest, NULL, node->number);
}

static void on_done(void *ctx, const struct id *key, size_t accepted)
{
    struct work_record *record = ctx;
    struct work *work = record->work;
    struct world *world = work->world;
    (void)key;
    if (accepted == 0 || record->accepted > 0)
        return;
    record->accepted = accepted;
    record->acknowledged_us = world->now_us;
    work->acknowledged++;
    sample_add(&work->acknowledged_us, world->now_us - record->said_us);
    rest_later(world, &world->nodes[record->publisher]);
}

void work_say(struct work *work, struct work_record *record)
{
    struct node *node = &work->world->nodes[record->publisher];
    record->said_us = work->world->now_us;
    node->busy++;
    node_publish(node, &record->key, NODE_SIZE(record->number, record->version), on_done, record);
}

/* Has the node published under the key that is next? */
static bool is_member(const struct work *work, const struct node *node)
{
    for (size_t i = work->record_count; i % work->members > 0; i--)
        if (id_equal(&work->records[i - 1].member, &node->id))
            return true;
    return false;
}

struct work_record *work_publish(struct work *work, struct node *node)
{
    if (work->record_count == work->record_max || is_member(work, node))
        return NULL;
    struct work_record *record = &work->records[work->record_count];
    *record = (struct work_record){
        .work = work,
        .key = node_key(work->record_count / work->members),
        .number = (uint32_t)work->record_count,
        .member = node->id,
        .publisher = node->number,
        .generation = node->generation,
        .last_us = UINT64_MAX,
    };
    work->record_count++;
    work_say(work, record);
    return record;
}

static void publish_next(struct world *world, void *ctx, uint64_t argument)
{
    (void)world;
    (void)argument;
    while (!work_publish(ctx, any_node(ctx)))
        ;
}

bool work_publish_many(struct work *work, size_t count, uint64_t per_s)
{
    struct world *world = work->world;
    size_t wanted = work->acknowledged + count;
    for (size_t i = 0; i < count; i++)
        world_call_at(world, world->now_us + i * WORLD_SECOND_US / per_s, publish_next, work, 0);
    uint64_t end_us = world->now_us + count * WORLD_SECOND_US / per_s + WAIT_PUBLISHED_US;
    while (work->acknowledged < wanted && world->now_us < end_us)
        if (!world_run_for(world, STEP_US))
            return false;
    return world_run_for(world, REST_US);
}

/* ---- reading ---- */

static struct work_get *new_get(struct work *work)
{
    struct work_get *get = work->spare;
    if (get) {
        work->spare = get->next_spare;
        return get;
    }
    get = memory_get(sizeof *get);
    get->next = work->all;
    work->all = get;
    return get;
}

/* What a read says of one record that ought to be in it, or ought not. */
enum verdict { ITS_RIGHT, ITS_OLD, ITS_ABSENT };

static enum verdict judge_record(const struct work_record *record, const struct node_read *read, size_t *matched)
{
    for (size_t i = 0; i < read->count; i++) {
        if (!id_equal(&read->found[i].member, &record->member))
            continue;
        (*matched)++;
        bool last = read->found[i].size == NODE_SIZE(record->number, record->version);
        return last && !record->withdrawn ? ITS_RIGHT : ITS_OLD;
    }
    return record->withdrawn ? ITS_RIGHT : ITS_ABSENT;
}

/* Against the reference: what was said last of each member of the key. A read that ends at the first record needs not
 * have the others, and nothing is expected of a record that is not acknowledged yet. */
static void judge(struct work_figures *figures, const struct work_get *get, const struct node_read *read)
{
    struct work *work = get->work;
    size_t first = get->record->number / work->members * work->members;
    size_t matched = 0;
    bool old = false;
    bool absent = !work->whole && read->count == 0 && !get->record->withdrawn;
    for (size_t i = first; i < first + work->members && i < work->record_count; i++) {
        enum verdict verdict = judge_record(&work->records[i], read, &matched);
        old |= verdict == ITS_OLD && work->records[i].accepted > 0;
        absent |= verdict == ITS_ABSENT && work->whole && work->records[i].accepted > 0;
    }
    figures->right += !old && !absent && matched == read->count;
    figures->old += old;
    figures->wrong += matched < read->count;
    figures->empty += read->count == 0;
}

static void end_get(struct work_get *get, const struct node_read *read)
{
    struct work *work = get->work;
    struct work_figures *figures = work->figures;
    struct node *node = get->asked.node;
    struct tap_result way = tap_end(work->world, node, get->trace);
    judge(figures, get, read);
    if (read->count > 0) {
        sample_add(&figures->hops, way.hops);
        sample_add(&figures->first_us, way.hops > 0 ? way.first_us : 0);
        sample_add(&figures->whole_us, work->world->now_us - get->start_us);
    }
    sample_add(&figures->requests, way.requests);
    get->next_spare = work->spare;
    work->spare = get;
    work->under_way--;
    node_rest(node);
}

static void on_read(struct node_asked *asked, const struct node_read *read)
{
    end_get((struct work_get *)asked, read);
}

void work_get(struct work *work, struct node *node, const struct work_record *record)
{
    struct work_get *get = new_get(work);
    get->work = work;
    get->record = record;
    get->start_us = work->world->now_us;
    get->asked = (struct node_asked){.node = node, .on_read = on_read};
    get->trace = tap_begin(work->world, node, &record->key);
    node->busy++;
    work->under_way++;
    work->figures->asked++;
    if (!node_get(node, &record->key, !work->whole, &get->asked))
        end_get(get, &(struct node_read){0});
}

struct reading {
    struct work *work;
    const struct random_zipf *zipf;
};

static void get_next(struct world *world, void *ctx, uint64_t argument)
{
    const struct reading *reading = ctx;
    struct work *work = reading->work;
    (void)argument;
    for (;;) {
        size_t at = reading->zipf ? random_zipf_draw(reading->zipf, &world->work)
                                  : random_below(&world->work, work->record_count);
        if (work->records[at].accepted == 0)
            continue;
        work_get(work, any_node(work), &work->records[at]);
        return;
    }
}

bool work_get_many(struct work *work, uint64_t count, uint64_t per_s, const struct random_zipf *zipf,
                   struct work_figures *figures)
{
    struct world *world = work->world;
    struct reading reading = {.work = work, .zipf = zipf};
    work->figures = figures;
    if (work->acknowledged == 0)
        return false;
    for (uint64_t i = 0; i < count; i++)
        world_call_at(world, world->now_us + i * WORLD_SECOND_US / per_s, get_next, &reading, 0);
    uint64_t end_us = world->now_us + count * WORLD_SECOND_US / per_s + WAIT_READ_US;
    uint64_t asked = figures->asked + count;
    while ((figures->asked < asked || work->under_way > 0) && world->now_us < end_us)
        if (!world_run_for(world, STEP_US))
            return false;
    return true;
}
