#include <stdio.h>
#include <string.h>

#include "node/base/log.h"
#include "tools/cmig/cmig.h"

struct migration {
    struct cmig *cmig;
    struct progress progress;
    json_t *report; /* owned */
};

static int on_event(void *ctx, const json_t *event, struct err *err)
{
    (void)err;
    struct migration *migration = ctx;
    const char *name = api_json_text(event, "event");
    if (strcmp(name, API_EVENT_PHASE) == 0) {
        char phase[64];
        const char *text = api_json_text(event, "phase");
        log_text(text, strlen(text), phase, sizeof phase);
        progress_draw(&migration->progress, phase, api_json_number(event, "done_bytes"),
                      api_json_number(event, "total_bytes"), api_json_number(event, "rate"), 0);
    } else if (strcmp(name, API_EVENT_REPORT) == 0) {
        json_decref(migration->report);
        migration->report = json_incref((json_t *)event);
    }
    return 0;
}

static void print_summary(const json_t *report)
{
    char name[256], to[80], total[SHOW_SIZE], down[SHOW_SIZE];
    const char *container = api_json_text(report, "container"), *node = api_json_text(report, "to");
    uint64_t attempts = api_json_number(report, "attempts");
    log_text(container, strlen(container), name, sizeof name);
    log_text(node, strlen(node) < 12 ? strlen(node) : 12, to, sizeof to);
    printf("%s: migration to %s %s in %s, down for %s", name, to, api_json_text(report, "state"),
           show_ms(api_json_number(report, "total_ms"), total), show_ms(api_json_number(report, "downtime_ms"), down));
    if (attempts > 1)
        printf(", at attempt %llu", (unsigned long long)attempts);
    putchar('\n');
}

static int print_phases(const json_t *report, struct err *err)
{
    OWNED(owned_table) struct table *table = table_new("PHASE >TIME");
    size_t i;
    json_t *phase;
    json_array_foreach(json_object_get(report, "phases"), i, phase)
    {
        char text[SHOW_SIZE];
        table_add(table, api_json_text(phase, "name"));
        table_add(table, show_ms(api_json_number(phase, "ms"), text));
    }
    putchar('\n');
    return table_print(table, err);
}

static int print_kinds(const json_t *report, struct err *err)
{
    OWNED(owned_table) struct table *table = table_new("MOVED >BYTES");
    const char *kind;
    json_t *value;
    json_t *kinds = json_object_get(report, "bytes");
    json_object_foreach(kinds, kind, value)
    {
        table_add(table, kind);
        table_add_bytes(table, api_json_number(kinds, kind));
    }
    putchar('\n');
    return table_print(table, err);
}

static void add_source(struct table *table, const char *node, uint64_t bytes, uint64_t total, bool full)
{
    char share[SHOW_SIZE];
    snprintf(share, sizeof share, "%.1f %%", total ? (double)bytes * 100 / (double)total : 0.0);
    table_add_id(table, node, full);
    table_add_bytes(table, bytes);
    table_add(table, share);
}

static int print_sources(const json_t *report, bool full, struct err *err)
{
    OWNED(owned_table) struct table *table = table_new("SOURCE >BYTES >SHARE");
    json_t *peers = json_object_get(report, "bytes_by_peer");
    uint64_t local = api_json_number(report, "local_bytes"), total = local;
    const char *node;
    json_t *value;
    json_object_foreach(peers, node, value)
    {
        total += api_json_number(peers, node);
    }
    json_object_foreach(peers, node, value)
    {
        add_source(table, node, api_json_number(peers, node), total, full);
    }
    add_source(table, "already there", local, total, full);
    putchar('\n');
    return table_print(table, err);
}

static int print_report(const struct cmig *cmig, const json_t *report, struct err *err)
{
    if (cmig->json) {
        show_json(report);
        return 0;
    }
    print_summary(report);
    int code = print_phases(report, err);
    if (code == 0)
        code = print_kinds(report, err);
    return code < 0 ? code : print_sources(report, cmig->full, err);
}

int migrate_run(struct cmig *cmig, struct err *err)
{
    const char *to = args_flag(cmig, "to");
    if (!to)
        return args_misuse(cmig, err, "where to: give --to NODE");
    OWNED(owned_json)
    json_t *body =
        json_pack("{s:s, s:s*, s:s*}", "to", to, "from", args_flag(cmig, "from"), "policy", args_flag(cmig, "policy"));
    if (!body)
        return args_misuse(cmig, err, "the name of the node or the policy is not UTF-8");
    struct migration migration = {.cmig = cmig};
    progress_init(&migration.progress, cmig);
    struct api_call call = {.route = API_ROUTE_container_migrate, .name = cmig->operands[0], .body = body};
    int code = api_client_events(cmig->client, &call, API_EVENT_REPORT, on_event, &migration, err);
    progress_end(&migration.progress);
    if (code == 0)
        code = print_report(cmig, migration.report, err);
    if (code == 0 && strcmp(api_json_text(migration.report, "state"), "complete") != 0) {
        cmig->shown = true;
        code = err_set(err, ERR_CONFLICT, "the migration of '%s' is not complete", cmig->operands[0]);
    }
    json_decref(migration.report);
    return code;
}
