#include "node/handlers_move.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/log.h"
#include "node/handlers.h"

#define KEEP_MS 300000 /* what is over can be asked about for so long */
#define MAX_MOVES 64

/* ---- phases ---- */

bool move_log_add(struct move_log *log, const char *phase, uint64_t done_bytes, uint64_t total_bytes, uint64_t rate)
{
    bool first = log->count == 0 || strcmp(log->phases[log->count - 1].name, phase) != 0;
    if (first && log->count == MOVE_PHASES_MAX)
        memmove(log->phases, log->phases + 1, --log->count * sizeof *log->phases);
    if (first)
        log->count++;
    struct move_phase *entry = &log->phases[log->count - 1];
    *entry =
        (struct move_phase){.number = ++log->last, .done_bytes = done_bytes, .total_bytes = total_bytes, .rate = rate};
    snprintf(entry->name, sizeof entry->name, "%s", phase);
    return first;
}

const struct move_phase *move_log_last(const struct move_log *log)
{
    assert(log->count > 0);
    return &log->phases[log->count - 1];
}

json_t *move_phase_to_json(const struct move_phase *phase, const char *event)
{
    json_t *json = event ? json_pack("{s:s}", "event", event) : json_pack("{s:I}", "number", (json_int_t)phase->number);
    json_object_set_new(json, "phase", json_string(phase->name));
    json_object_set_new(json, "done_bytes", json_integer((json_int_t)phase->done_bytes));
    json_object_set_new(json, "total_bytes", json_integer((json_int_t)phase->total_bytes));
    json_object_set_new(json, "rate", json_integer((json_int_t)phase->rate));
    return json;
}

bool move_phase_from_json(const json_t *json, struct move_phase *ret_phase)
{
    const char *name;
    struct move_phase phase;
    if (!json_is_object(json) || api_json_only(json, "number phase done_bytes total_bytes rate", NULL) < 0 ||
        api_json_get_u64(json, "number", 0, INT64_MAX, &phase.number, NULL) < 0 ||
        api_json_get_str(json, "phase", "", &name, NULL) < 0 ||
        api_json_get_u64(json, "done_bytes", 0, INT64_MAX, &phase.done_bytes, NULL) < 0 ||
        api_json_get_u64(json, "total_bytes", 0, INT64_MAX, &phase.total_bytes, NULL) < 0 ||
        api_json_get_u64(json, "rate", 0, INT64_MAX, &phase.rate, NULL) < 0 || !name_is_valid(name) ||
        strlen(name) >= sizeof phase.name)
        return false;
    snprintf(phase.name, sizeof phase.name, "%s", name);
    *ret_phase = phase;
    return true;
}

/* ---- what others have asked for ---- */

struct move {
    TAILQ_ENTRY(move)
    entry;
    struct node *node;     /* borrowed */
    struct guid id;        /* the asker's */
    struct guid migration; /* ours */
    struct move_log log;
    bool done;
    uint64_t done_ms;
    json_t *report; /* owned; NULL if there is none */
    struct err err; /* code 0: it went well */
};

struct moves_asked {
    TAILQ_HEAD(, move) moves;
    size_t count;
};

static void drop(struct moves_asked *asked, struct move *move)
{
    TAILQ_REMOVE(&asked->moves, move, entry);
    asked->count--;
    json_decref(move->report);
    free(move);
}

void moves_asked_free(struct moves_asked *asked)
{
    struct move *move;
    while (asked && (move = TAILQ_FIRST(&asked->moves)))
        drop(asked, move);
    free(asked);
}

static void drop_old(struct moves_asked *asked, uint64_t now_ms)
{
    struct move *next;
    for (struct move *move = TAILQ_FIRST(&asked->moves); move; move = next) {
        next = TAILQ_NEXT(move, entry);
        if (move->done && now_ms >= move->done_ms + KEEP_MS)
            drop(asked, move);
    }
}

/* Made with the first question. */
static struct moves_asked *asked_of(struct node *node)
{
    if (!node->asked && (node->asked = calloc(1, sizeof *node->asked)))
        TAILQ_INIT(&node->asked->moves);
    return node->asked;
}

static struct move *find(const struct moves_asked *asked, const struct guid *id)
{
    struct move *move;
    TAILQ_FOREACH (move, &asked->moves, entry)
        if (memcmp(&move->id, id, sizeof *id) == 0)
            return move;
    return NULL;
}

static void on_phase(void *ctx, const char *phase, uint64_t done_bytes, uint64_t total_bytes, uint64_t rate)
{
    struct move *move = ctx;
    move_log_add(&move->log, phase, done_bytes, total_bytes, rate);
}

static void on_done(void *ctx, const struct err *err, const json_t *report)
{
    struct move *move = ctx;
    move->done = true;
    move->done_ms = clock_mono_ms(&move->node->clock);
    move->report = report ? json_deep_copy(report) : NULL;
    if (err)
        move->err = *err;
}

static int begin(struct node *node, const struct guid *id, const json_t *body, struct err *err)
{
    struct moves_asked *asked = node->asked;
    const char *container, *to, *text;
    struct migrate_order order = {0};
    struct policy policy;
    char canonical[POLICY_TEXT_SIZE];
    int status = api_json_only(body, "id container to policy", err);
    if (status == 0)
        status = api_json_get_str(body, "container", "", &container, err);
    if (status == 0)
        status = api_json_get_str(body, "to", "", &to, err);
    if (status == 0)
        status = api_json_get_str(body, "policy", NULL, &text, err);
    if (status == 0 && text)
        status = policy_parse(text, &policy, err);
    if (status < 0)
        return status;
    order.container = container;
    order.policy = text ? policy_text(&policy, canonical) : NULL;
    if (!id_parse_hex(to, &order.target))
        return err_set(err, ERR_INVALID, "the field 'to' is not a node's id");
    if (asked->count == MAX_MOVES)
        return err_set(err, ERR_LIMIT, "more than %d migrations were asked of this node", MAX_MOVES);
    struct move *move = calloc(1, sizeof *move);
    if (!move)
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    const struct migrate_watch watch = {on_phase, on_done, move};
    *move = (struct move){.node = node, .id = *id};
    TAILQ_INSERT_TAIL(&asked->moves, move, entry);
    asked->count++;
    status = migrate_start(node->migrate, &order, &watch, &move->migration, err);
    if (status < 0)
        drop(asked, move);
    return status;
}

static json_t *tell(const struct move *move, uint64_t seen)
{
    json_t *phases = json_array();
    for (size_t i = 0; i < move->log.count; i++)
        if (move->log.phases[i].number > seen)
            json_array_append_new(phases, move_phase_to_json(&move->log.phases[i], NULL));
    json_t *reply = json_pack("{s:o, s:b}", "phases", phases, "done", move->done);
    if (move->report)
        json_object_set(reply, "report", move->report);
    if (move->err.code)
        json_object_set_new(reply, "error",
                            json_pack("{s:s, s:s}", "code", err_name(move->err.code), "message", move->err.text));
    return reply;
}

static int answer_wait(struct node *node, const struct guid *id, const json_t *body, json_t **ret_reply,
                       struct err *err)
{
    uint64_t seen;
    const struct move *move = find(node->asked, id);
    int status = api_json_only(body, "id seen", err);
    if (status == 0)
        status = api_json_get_u64(body, "seen", 0, INT64_MAX, &seen, err);
    if (status < 0)
        return status;
    if (!move)
        return err_set(err, ERR_NOTFOUND, "this node knows nothing of that migration; it may have been restarted");
    *ret_reply = tell(move, seen);
    return *ret_reply ? 0 : err_set(err, ERR_NOMEM, "no memory for an answer");
}

static int answer_to(struct node *node, const char *method, const json_t *body, json_t **ret_reply, struct err *err)
{
    struct guid id;
    const char *text;
    int status = api_json_get_str(body, "id", "", &text, err);
    if (status < 0)
        return status;
    if (!guid_parse(text, &id))
        return err_set(err, ERR_INVALID, "the field 'id' is not a GUID");
    if (!asked_of(node))
        return err_set(err, ERR_NOMEM, "no memory for a migration");
    drop_old(node->asked, clock_mono_ms(&node->clock));
    if (strcmp(method, "move.wait") == 0)
        return answer_wait(node, &id, body, ret_reply, err);
    struct move *move = find(node->asked, &id);
    if (strcmp(method, "move.start") == 0) {
        status = move ? 0 : begin(node, &id, body, err);
    } else if (strcmp(method, "move.cancel") == 0) {
        if (move)
            migrate_cancel(node->migrate, &move->migration);
    } else {
        status = err_set(err, ERR_UNSUPPORTED, "this node does not know the call '%s'", method);
    }
    *ret_reply = json_object();
    return status;
}

void handlers_move_request(struct node *node, const char *method, const json_t *body,
                           const struct migrate_answer *answer)
{
    struct err err;
    OWNED(owned_json) json_t *reply = NULL;
    if (answer_to(node, method, body, &reply, &err) < 0)
        answer->refuse(answer->ctx, &err);
    else
        answer->reply(answer->ctx, STEAL(reply));
}
