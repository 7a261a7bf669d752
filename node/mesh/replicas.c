#include "node/mesh/replicas.h"

#include <stdlib.h>

#include "node/base/log.h"

#define STEP_MS 2000 /* between two objects: half a packet a second at most, by the cost of a read */
#define COUNTED 16

struct replicas {
    struct store *store; /* borrowed */
    struct jobs jobs;
    struct clock clock;
    struct mesh *mesh; /* borrowed */
    uv_timer_t timer;
    struct id after;                /* the object that was looked at last */
    struct store_object_info found; /* the one after it */
    bool any;                       /* there was one */
    uint32_t counted;
    bool busy; /* a job or a read is under way */
    bool closing;
};

static int take_next(const struct store_object_info *info, void *ctx)
{
    struct replicas *replicas = ctx;
    if (id_compare(&info->digest, &replicas->after) <= 0)
        return 0;
    replicas->found = *info;
    replicas->any = true;
    return 1;
}

static void work_next(void *arg)
{
    struct replicas *replicas = arg;
    replicas->any = false;
    store_object_each(replicas->store, take_next, replicas, NULL);
}

static void work_note(void *arg)
{
    struct replicas *replicas = arg;
    struct err err;
    if (store_object_set_replicas(replicas->store, &replicas->found.digest, replicas->counted, &err) < 0)
        log_debug("content", "replicas were not noted why=\"%s\"", err.text);
}

static void on_noted(void *arg)
{
    struct replicas *replicas = arg;
    replicas->busy = false;
}

static void on_counted(void *ctx, const struct dht_found *found, size_t count)
{
    struct replicas *replicas = ctx;
    replicas->counted = 0;
    /* Who is still fetching it says so without its size. */
    for (size_t i = 0; i < count; i++)
        replicas->counted += !id_equal(&found[i].record.member, mesh_self(replicas->mesh)) &&
                             found[i].record.size == replicas->found.size_bytes;
    if (replicas->counted == replicas->found.replicas || replicas->closing)
        replicas->busy = false;
    else
        jobs_submit(&replicas->jobs, work_note, on_noted, replicas);
}

/* Only nodes that are alive count; after the last object it begins anew. */
static void on_next(void *arg)
{
    struct replicas *replicas = arg;
    replicas->busy = false;
    if (replicas->closing)
        return;
    if (!replicas->any) {
        replicas->after = (struct id){0};
        return;
    }
    replicas->after = replicas->found.digest;
    struct id key = dht_key(DHT_OBJECT, replicas->found.digest.b, ID_BYTES);
    struct dht_get_options options = {.limit = COUNTED, .want_lease = true};
    replicas->busy = dht_get(mesh_dht(replicas->mesh), clock_mono_ms(&replicas->clock), &key, &options, on_counted,
                             replicas, NULL, NULL) == 0;
    mesh_dht_changed(replicas->mesh);
}

static void on_timer(uv_timer_t *timer)
{
    struct replicas *replicas = timer->data;
    if (replicas->busy)
        return;
    replicas->busy = true;
    jobs_submit(&replicas->jobs, work_next, on_next, replicas);
}

int replicas_new(struct store *store, struct jobs jobs, struct clock clock, struct mesh *mesh, uv_loop_t *loop,
                 struct replicas **ret_replicas, struct err *err)
{
    struct replicas *replicas = calloc(1, sizeof *replicas);
    if (!replicas)
        return err_set(err, ERR_NOMEM, "no memory for counting replicas");
    *replicas = (struct replicas){.store = store, .jobs = jobs, .clock = clock, .mesh = mesh};
    uv_timer_init(loop, &replicas->timer);
    replicas->timer.data = replicas;
    uv_timer_start(&replicas->timer, on_timer, STEP_MS, STEP_MS);
    *ret_replicas = replicas;
    return 0;
}

void replicas_close(struct replicas *replicas)
{
    if (!replicas || replicas->closing)
        return;
    replicas->closing = true;
    uv_close((uv_handle_t *)&replicas->timer, NULL);
}

void replicas_free(struct replicas *replicas)
{
    free(replicas);
}
