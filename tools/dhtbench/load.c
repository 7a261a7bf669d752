#include "tools/dhtbench/load.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

/* A worker's share. It stays as long as the fleet: answers may come after a timeout, and find it closed. */
struct load {
    const struct load_plan *plan; /* NULL: closed */
    void *ctx;
    struct op *ops;
    size_t count, flight;
    size_t started, over;
    bool starting; /* operations are started by a loop further down the stack */
    sem_t *ended;
    uint64_t began_ns, ended_ns;
    uint64_t random;
};

void *op_ctx(const struct op *op)
{
    return op->load->ctx;
}

static void go_on(struct load *load)
{
    struct rng rng = rng_seeded(&load->random);
    if (load->starting)
        return;
    load->starting = true;
    while (load->plan && load->started < load->count && load->started - load->over < load->flight) {
        struct op *op = &load->ops[load->started++];
        op->node = fleet_pick(op->node->worker, rng_u64(&rng));
        op->began_ns = counters_now_ns();
        if (!op->node || load->plan->start(op) < 0)
            op_done(op, false);
        else
            overlay_changed(op->node->overlay);
    }
    load->starting = false;
}

void op_done(struct op *op, bool good)
{
    struct load *load = op->load;
    uint64_t now = counters_now_ns();
    if (!load->plan || op->over)
        return;
    op->over = true;
    op->good = good;
    op->ms = (double)(now - op->began_ns) / 1e6;
    if (++load->over < load->count) {
        go_on(load);
        return;
    }
    load->ended_ns = now;
    sem_post(load->ended);
}

static void begin(struct worker *worker, void *ctx)
{
    (void)worker;
    struct load *load = ctx;
    load->began_ns = counters_now_ns();
    go_on(load);
}

static void end(struct worker *worker, void *ctx)
{
    (void)worker;
    struct load *load = ctx;
    load->plan = NULL;
    if (!load->ended_ns)
        load->ended_ns = counters_now_ns();
}

static struct load *make_load(struct fleet *fleet, const struct load_plan *plan, unsigned worker, sem_t *ended)
{
    unsigned workers = fleet->options.workers;
    struct load *load = fleet_alloc(fleet, sizeof *load);
    *load = (struct load){.plan = plan,
                          .ctx = plan->ctx,
                          .count = (plan->count + workers - 1 - worker) / workers,
                          .flight = plan->flight > workers ? plan->flight / workers : 1,
                          .ended = ended,
                          .random = plan->first * 7919 + worker + 1};
    load->ops = fleet_alloc(fleet, (load->count + 1) * sizeof *load->ops);
    for (size_t i = 0; i < load->count; i++)
        load->ops[i] = (struct op){
            .load = load, .node = &fleet->workers[worker].nodes[0], .number = plan->first + i * workers + worker};
    return load;
}

/* Until so many workers are through, or the time is over. */
static void wait_for(sem_t *ended, unsigned count, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    while (count > 0)
        if (sem_clockwait(ended, CLOCK_MONOTONIC, &until) == 0)
            count--;
        else if (errno != EINTR)
            return;
}

static void collect(const struct load *load, struct load_result *result)
{
    for (size_t i = 0; i < load->count; i++) {
        const struct op *op = &load->ops[i];
        if (op->over && op->good)
            result->ms[result->good++] = op->ms;
        else
            result->failed++;
    }
}

void load_run(struct fleet *fleet, const struct load_plan *plan, struct load_result *ret_result)
{
    struct load *loads[FLEET_MAX_WORKERS];
    unsigned workers = fleet->options.workers;
    sem_t ended;
    sem_init(&ended, 0, 0);
    *ret_result = (struct load_result){.ms = calloc(plan->count + 1, sizeof(double))};
    if (!ret_result->ms)
        fleet_die("no memory", NULL);
    for (unsigned i = 0; i < workers; i++)
        loads[i] = make_load(fleet, plan, i, &ended);
    struct counters before = counters_read();
    uint64_t until_ns = before.ns + plan->timeout_ms * 1000000u;
    bool one_by_one = plan->flight == 1;
    for (unsigned i = 0; i < workers; i++) {
        if (loads[i]->count == 0)
            continue;
        fleet_call(&fleet->workers[i], begin, loads[i]);
        if (one_by_one)
            wait_for(&ended, 1, until_ns);
    }
    if (!one_by_one)
        wait_for(&ended, plan->count < workers ? (unsigned)plan->count : workers, until_ns);
    uint64_t first = UINT64_MAX, last = 0;
    for (unsigned i = 0; i < workers; i++) {
        fleet_call(&fleet->workers[i], end, loads[i]);
        first = loads[i]->began_ns && loads[i]->began_ns < first ? loads[i]->began_ns : first;
        last = loads[i]->ended_ns > last ? loads[i]->ended_ns : last;
        collect(loads[i], ret_result);
    }
    ret_result->seconds = (double)(last - first) / 1e9;
    ret_result->counters = counters_since(&before);
    counters_sort(ret_result->ms, ret_result->good);
    sem_destroy(&ended);
}

void load_result_release(struct load_result *result)
{
    free(result->ms);
    *result = (struct load_result){0};
}
