#include "node/mesh/scrub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/buf.h"
#include "node/base/log.h"
#include "node/base/scope.h"
#include "node/mesh/retries.h"

#define TURN_MS 5000           /* between two looks at what is due */
#define HURRY_TURN_MS 10       /* likewise in a pass that somebody waits for: other jobs get their turn */
#define STEP_BYTES (1u << 20)  /* the least worth a step */
#define HURRY_BYTES (8u << 20) /* of a step in a hurry */
#define CATCH_UP_MS 3600000u   /* what a sleep of the machine leaves undone is not made up for beyond this */
#define REPAIRS 4u             /* objects fetched at a time */
#define LINES 8u               /* logged of one step */
#define FAILURE_LINE_MS 600000u

struct repair {
    struct scrub *scrub;
    struct content_fetch *fetch; /* borrowed until its end */
    enum { REPAIR_NONE, REPAIR_RUNS, REPAIR_FAILED, REPAIR_DONE } state;
    struct id digest;
};

struct scrub {
    struct store *store; /* borrowed, as content */
    struct jobs jobs;
    struct clock clock;
    struct content *content;
    unsigned days;
    uv_timer_t timer;
    bool closing;
    bool working; /* a job is under way: it alone touches what follows, up to the next blank line */
    bool restart, hurry;
    uint64_t stepped_ms; /* the pace's time up to which bytes have been read */
    int step_status;
    bool take_failed;
    struct err step_err, take_err;
    int64_t taken;
    uint64_t n_broken;
    struct store_broken candidates[REPAIRS];
    unsigned n_candidates;
    struct id after; /* the next candidates have greater digests, in a circle */
    struct retries retries;
    struct buf lines;

    struct repair repairs[REPAIRS];
    struct log_limit failure_lines;
    bool restart_wanted;
    LIST_HEAD(, scrub_watch) watches;
    struct scrub_status status;
};

/* ---- on the pool ---- */

static void note_rot(const struct store_rot *rot, void *ctx)
{
    struct scrub *scrub = ctx;
    char piece[ID_SHORT_SIZE];
    if (scrub->taken++ < LINES)
        buf_addf(&scrub->lines, "piece=%s pack=%llu offset=%llu cause=\"%s\"\n", id_short(&rot->id, piece),
                 (unsigned long long)rot->pack, (unsigned long long)rot->offset, store_rot_cause_text(rot->cause));
}

static int note_broken(const struct store_broken *broken, void *ctx)
{
    struct scrub *scrub = ctx;
    scrub->n_broken++;
    retries_see(&scrub->retries, &broken->digest);
    if (scrub->n_candidates < REPAIRS && id_compare(&broken->digest, &scrub->after) > 0 &&
        retries_is_due(&scrub->retries, &broken->digest, clock_mono_ms(&scrub->clock)))
        scrub->candidates[scrub->n_candidates++] = *broken;
    return 0;
}

/* Bytes that are due by now at the pace of one pass in so many days; 0 while that is not worth a step. */
static uint64_t due_bytes(struct scrub *scrub)
{
    uint64_t now = clock_mono_ms(&scrub->clock);
    struct store_usage usage;
    if (scrub->hurry)
        return HURRY_BYTES;
    if (scrub->days == 0 || store_usage(scrub->store, &usage, NULL) < 0)
        return 0;
    if (now - scrub->stepped_ms > CATCH_UP_MS)
        scrub->stepped_ms = now - CATCH_UP_MS;
    double share = (double)(now - scrub->stepped_ms) / (scrub->days * 86400e3);
    uint64_t due = (uint64_t)((double)usage.pack_bytes * share);
    if (due < STEP_BYTES)
        return 0;
    scrub->stepped_ms = now;
    return due;
}

static void work_step(void *arg)
{
    struct scrub *scrub = arg;
    uint64_t due = due_bytes(scrub);
    scrub->taken = 0;
    scrub->n_broken = scrub->n_candidates = 0;
    scrub->step_status = 1;
    if (scrub->restart)
        scrub->step_status = store_scrub_restart(scrub->store, &scrub->step_err);
    if (due > 0 && scrub->step_status >= 0)
        scrub->step_status = store_scrub_step(scrub->store, due, NULL, &scrub->step_err);
    scrub->take_failed =
        store_rot_waiting(scrub->store) > 0 && store_rot_take(scrub->store, note_rot, scrub, &scrub->take_err) < 0;
    if (store_broken_each(scrub->store, note_broken, scrub, NULL) == 0)
        retries_end_walk(&scrub->retries);
    if (scrub->n_candidates == 0)
        scrub->after = (struct id){0};
}

/* ---- repairs ---- */

static void on_repaired(void *ctx, int status, const struct err *err, const struct exchange_stats *stats)
{
    struct repair *repair = ctx;
    struct scrub *scrub = repair->scrub;
    char digest[DIGEST_TEXT_SIZE];
    repair->fetch = NULL;
    repair->state = status == 0 ? REPAIR_DONE : REPAIR_FAILED;
    if (status == 0) {
        scrub->status.repaired++;
        log_info("scrub", "repaired object=%s fetched_bytes=%llu", digest_text(&repair->digest, digest),
                 (unsigned long long)stats->fetched_bytes);
        return;
    }
    log_warn("scrub", "cannot repair an object that has rotted, will try again object=%s why=\"%s\"",
             digest_text(&repair->digest, digest), err->text);
}

/* What has ended while a job was under way, which alone knows when what is due. */
static void settle_repairs(struct scrub *scrub)
{
    for (unsigned i = 0; i < REPAIRS; i++) {
        struct repair *repair = &scrub->repairs[i];
        if (repair->state == REPAIR_FAILED)
            retries_failed(&scrub->retries, &repair->digest, clock_mono_ms(&scrub->clock));
        else if (repair->state == REPAIR_DONE)
            retries_succeeded(&scrub->retries, &repair->digest);
        if (repair->state != REPAIR_RUNS)
            repair->state = REPAIR_NONE;
    }
}

static bool is_under_repair(const struct scrub *scrub, const struct id *digest)
{
    for (unsigned i = 0; i < REPAIRS; i++) {
        if (scrub->repairs[i].state == REPAIR_RUNS && id_equal(&scrub->repairs[i].digest, digest))
            return true;
    }
    return false;
}

static struct repair *free_repair(struct scrub *scrub)
{
    for (unsigned i = 0; i < REPAIRS; i++) {
        if (scrub->repairs[i].state == REPAIR_NONE)
            return &scrub->repairs[i];
    }
    return NULL;
}

static void repair_next(struct scrub *scrub)
{
    settle_repairs(scrub);
    for (unsigned i = 0; i < scrub->n_candidates; i++) {
        const struct store_broken *broken = &scrub->candidates[i];
        struct repair *repair = free_repair(scrub);
        if (!repair)
            return;
        scrub->after = broken->digest;
        if (is_under_repair(scrub, &broken->digest) ||
            !retries_is_due(&scrub->retries, &broken->digest, clock_mono_ms(&scrub->clock)))
            continue;
        *repair = (struct repair){.scrub = scrub, .state = REPAIR_RUNS, .digest = broken->digest};
        struct content_wish wish = {.digest = broken->digest,
                                    .kind = broken->kind,
                                    .class = EXCHANGE_LAYER,
                                    .on_done = on_repaired,
                                    .ctx = repair};
        if (content_fetch(scrub->content, &wish, &repair->fetch, NULL) < 0)
            repair->state = REPAIR_FAILED;
    }
}

/* ---- the pace ---- */

static void on_timer(uv_timer_t *timer);

static void rearm(struct scrub *scrub)
{
    if (!scrub->closing)
        uv_timer_start(&scrub->timer, on_timer, scrub->status.hurries ? HURRY_TURN_MS : TURN_MS, 0);
}

static void log_findings(struct scrub *scrub)
{
    char *rest = (char *)(uintptr_t)buf_str(&scrub->lines);
    for (char *line; rest && (line = strsep(&rest, "\n"));) {
        if (*line)
            log_error("scrub", "stored bytes have rotted %s", line);
    }
    if (scrub->taken > LINES)
        log_error("scrub", "stored bytes have rotted more_pieces=%lld", (long long)scrub->taken - LINES);
    buf_clear(&scrub->lines);
}

static void tell(struct scrub *scrub, bool is_over, const struct err *why)
{
    for (struct scrub_watch *watch = LIST_FIRST(&scrub->watches), *next; watch; watch = next) {
        next = LIST_NEXT(watch, entry);
        if (is_over)
            LIST_REMOVE(watch, entry);
        watch->on_step(watch->ctx, is_over, why);
    }
}

/* What fails, fails again and again: a full disk, or one that is away. */
static void log_failure(struct scrub *scrub, const char *what, const struct err *err)
{
    uint64_t skipped;
    if (log_allowed(&scrub->failure_lines, clock_mono_ms(&scrub->clock), FAILURE_LINE_MS, &skipped))
        log_error("scrub", "%s why=\"%s\" times=%llu", what, err->text, (unsigned long long)skipped + 1);
}

static void on_stepped(void *arg)
{
    struct scrub *scrub = arg;
    struct scrub_status *status = &scrub->status;
    bool failed = scrub->step_status < 0;
    scrub->working = false;
    status->rotten += (uint64_t)scrub->taken;
    status->broken = scrub->n_broken;
    log_findings(scrub);
    if (failed) {
        status->hurries = scrub->restart_wanted;
        log_failure(scrub, "cannot read what is stored", &scrub->step_err);
    }
    if (scrub->take_failed)
        log_failure(scrub, "cannot tell which objects have rotted", &scrub->take_err);
    if (scrub->step_status == 0) {
        status->hurries = scrub->restart_wanted;
        store_scrub_status(scrub->store, &status->store);
        log_info("scrub", "all that is stored was read pieces_rotten=%llu", (unsigned long long)status->store.last_bad);
    }
    if (scrub->closing)
        return;
    tell(scrub, !status->hurries, failed && !status->hurries ? &scrub->step_err : NULL);
    repair_next(scrub);
    rearm(scrub);
}

static void on_timer(uv_timer_t *timer)
{
    struct scrub *scrub = timer->data;
    scrub->hurry = scrub->status.hurries;
    scrub->restart = scrub->restart_wanted;
    scrub->restart_wanted = false;
    scrub->working = true;
    jobs_submit(&scrub->jobs, work_step, on_stepped, scrub);
}

/* ---- lifecycle ---- */

int scrub_new(struct store *store, struct jobs jobs, struct clock clock, uv_loop_t *loop, struct content *content,
              unsigned days, struct scrub **ret_scrub, struct err *err)
{
    struct scrub *scrub = calloc(1, sizeof *scrub);
    if (!scrub)
        return err_set(err, ERR_NOMEM, "no memory for the scrub");
    *scrub = (struct scrub){.store = store,
                            .jobs = jobs,
                            .clock = clock,
                            .content = content,
                            .days = days,
                            .lines = BUF(LINES * 256),
                            .stepped_ms = clock_mono_ms(&clock)};
    uv_timer_init(loop, &scrub->timer);
    scrub->timer.data = scrub;
    struct rng rng = rng_system();
    retries_init(&scrub->retries, rng_u64(&rng));
    rearm(scrub);
    *ret_scrub = scrub;
    return 0;
}

void scrub_close(struct scrub *scrub)
{
    if (scrub->closing)
        return;
    scrub->closing = true;
    uv_close((uv_handle_t *)&scrub->timer, NULL);
}

void scrub_free(struct scrub *scrub)
{
    if (!scrub)
        return;
    buf_release(&scrub->lines);
    retries_release(&scrub->retries);
    free(scrub);
}

void scrub_hurry(struct scrub *scrub, struct scrub_watch *watch)
{
    scrub->status.hurries = scrub->restart_wanted = true;
    LIST_INSERT_HEAD(&scrub->watches, watch, entry);
    if (!scrub->working)
        rearm(scrub);
}

void scrub_unwatch(struct scrub_watch *watch)
{
    LIST_REMOVE(watch, entry);
}

void scrub_get_status(const struct scrub *scrub, struct scrub_status *ret_status)
{
    *ret_status = scrub->status;
    store_scrub_status(scrub->store, &ret_status->store);
    ret_status->repairing = 0;
    for (unsigned i = 0; i < REPAIRS; i++)
        ret_status->repairing += scrub->repairs[i].state == REPAIR_RUNS;
}
