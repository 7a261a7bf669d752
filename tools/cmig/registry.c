#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/log.h"
#include "tools/cmig/cmig.h"

#define SCORE_SIZE 32
#define NAME_SHOWN_SIZE 2100 /* 512 bytes, each shown as four at most */

/* ---- text of numbers ---- */

/* The shortest text that reads back as the same number; infinities are texts already. */
static const char *show_score(const json_t *score, char text[SCORE_SIZE])
{
    double number = json_number_value(score);
    snprintf(text, SCORE_SIZE, "%s", json_is_string(score) ? json_string_value(score) : "");
    for (int digits = 6; json_is_number(score) && digits <= 17; digits++) {
        snprintf(text, SCORE_SIZE, "%.*g", digits, number);
        if (strtod(text, NULL) >= number && strtod(text, NULL) <= number)
            break;
    }
    return text;
}

static void add_score(struct table *table, const json_t *object)
{
    char text[SCORE_SIZE];
    table_add(table, show_score(json_object_get(object, "score"), text));
}

static void add_version(struct table *table, const json_t *object)
{
    char text[2 * SHOW_SIZE];
    snprintf(text, sizeof text, "%llu.%llu", (unsigned long long)api_json_number(object, "epoch"),
             (unsigned long long)api_json_number(object, "counter"));
    table_add(table, text);
}

/* "31.2 ms", or "-" for null. */
static void add_ms(struct table *table, const json_t *ms)
{
    char text[SHOW_SIZE];
    snprintf(text, sizeof text, "%.1f ms", json_number_value(ms));
    table_add(table, json_is_number(ms) ? text : "-");
}

/* A score as the daemon takes it: a number, or "inf", "-inf". */
static json_t *parse_score(struct cmig *cmig, const char *text, struct err *err)
{
    char *end;
    double number = strtod(text, &end);
    if (strcmp(text, "inf") == 0 || strcmp(text, "-inf") == 0)
        return json_string(text);
    json_t *score = *text && !*end ? json_real(number) : NULL; /* NULL also for what is not finite */
    if (!score)
        args_misuse(cmig, err, "the score '%s' is no number, and neither inf nor -inf", text);
    return score;
}

/* "name=value" with the value percent-encoded, or NULL out of memory. */
static char *make_query(const char *name, const char *value)
{
    OWNED(owned_free) char *encoded = api_path_encode(value);
    char *query = NULL;
    if (!encoded || asprintf(&query, "%s=%s", name, encoded) < 0)
        return NULL;
    return query;
}

/* ---- why ---- */

static void add_candidate(struct table *table, const json_t *candidate, bool full)
{
    const json_t *measured = json_object_get(candidate, "measured");
    uint64_t goodput = api_json_number(measured, "goodput_bytes_per_s"), rank = api_json_number(candidate, "rank");
    char text[2 * SHOW_SIZE], rate[SHOW_SIZE];
    table_add(table, json_is_true(json_object_get(candidate, "chosen")) ? "*" : " ");
    snprintf(text, sizeof text, "%llu", (unsigned long long)rank);
    table_add(table, rank ? text : "-");
    table_add_id(table, api_json_text(candidate, "node"), full);
    table_add(table, api_json_text(candidate, "name"));
    add_score(table, candidate);
    add_version(table, candidate);
    add_ms(table, json_object_get(measured, "rtt_ms"));
    add_ms(table, json_object_get(candidate, "expected_rtt_ms"));
    snprintf(text, sizeof text, "%s/s", show_bytes(goodput, rate));
    table_add(table, goodput ? text : "-");
    snprintf(text, sizeof text, "%.3g s", api_json_real(candidate, "cost"));
    table_add(table, text);
    snprintf(text, sizeof text, "%.3f", api_json_real(candidate, "value"));
    table_add(table, text);
    table_add(table, api_json_text(candidate, "reason"));
}

static int print_candidates(const struct cmig *cmig, const json_t *reply, struct err *err)
{
    const json_t *candidates = json_object_get(reply, "candidates");
    if (json_array_size(candidates) == 0) {
        puts("no node is known to have it");
        return 0;
    }
    printf("policy: %s\n", api_json_text(reply, "policy"));
    OWNED(owned_table)
    struct table *table =
        table_new("* >RANK NODE NAME >SCORE >VERSION >RTT >EXPECTED >GOODPUT >COST/MIB >VALUE REASON");
    size_t i;
    json_t *candidate;
    json_array_foreach(candidates, i, candidate)
    {
        add_candidate(table, candidate, cmig->full);
    }
    return table_print(table, err);
}

int registry_why(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    bool is_digest = strncmp(cmig->operands[0], "sha256:", 7) == 0;
    if (is_digest && args_check_digest(cmig, cmig->operands[0], err) < 0)
        return err->code;
    const char *policy = args_flag(cmig, "policy");
    OWNED(owned_free) char *query = policy ? make_query("policy", policy) : NULL;
    if (policy && !query)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct api_call call = {.route = API_ROUTE_why, .name = cmig->operands[0], .query = query};
    int code = api_client_call(cmig->client, &call, &reply, err);
    if (code < 0)
        return code;
    if (!cmig->json)
        return print_candidates(cmig, reply, err);
    show_json(reply);
    return 0;
}

/* ---- reading ---- */

static void add_member(struct table *table, const json_t *member)
{
    add_score(table, member);
    table_add(table, api_json_text(member, "member"));
}

static void add_provider(struct table *table, const json_t *member, bool full)
{
    add_score(table, member);
    table_add_id(table, api_json_text(member, "member"), full);
    table_add(table, api_json_text(member, "name"));
    add_version(table, member);
    table_add_bytes(table, api_json_number(member, "size_bytes"));
    table_add_id(table, api_json_text(member, "digest"), full);
    table_add(table, api_json_text(member, "address"));
}

static int print_members(const struct cmig *cmig, const json_t *reply, struct err *err)
{
    bool by_hand = strcmp(api_json_text(reply, "kind"), "set") == 0;
    OWNED(owned_table)
    struct table *table = table_new(by_hand ? ">SCORE MEMBER" : ">SCORE NODE NAME >VERSION >SIZE DIGEST ADDRESS");
    size_t i;
    json_t *member;
    json_array_foreach(json_object_get(reply, "members"), i, member)
    {
        if (by_hand)
            add_member(table, member);
        else
            add_provider(table, member, cmig->full);
    }
    return table_print(table, err);
}

int registry_get(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    uint64_t limit;
    const char *by = args_flag(cmig, "by");
    bool low = args_flag(cmig, "low");
    int code = args_number(cmig, "limit", 16, 1024, &limit, err);
    if (code < 0)
        return code;
    if (low && by && strcmp(by, "score") != 0)
        return args_misuse(cmig, err, "--low is for scores: --by %s has one order only", by);
    OWNED(owned_free) char *order = make_query("order", low ? "low" : by ? by : "score");
    OWNED(owned_free) char *query = NULL;
    if (!order || asprintf(&query, "%s&limit=%llu", order, (unsigned long long)limit) < 0)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct api_call call = {.route = API_ROUTE_registry_get, .name = cmig->operands[0], .query = query};
    code = api_client_call(cmig->client, &call, &reply, err);
    if (code < 0)
        return code;
    if (!cmig->json)
        return print_members(cmig, reply, err);
    show_json(reply);
    return 0;
}

/* ---- writing ---- */

static int print_written(const struct cmig *cmig, const json_t *reply)
{
    unsigned long long holders = api_json_number(reply, "holders");
    if (cmig->json)
        show_json(reply);
    else if (holders > 0)
        printf("written, and given to %llu other node%s\n", holders, holders == 1 ? "" : "s");
    else
        puts("written; no other node has it yet");
    return 0;
}

int registry_set(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    json_t *score = parse_score(cmig, cmig->operands[2], err);
    if (!score)
        return err->code;
    OWNED(owned_json) json_t *body = json_pack("{s:s, s:o}", "member", cmig->operands[1], "score", score);
    if (!body)
        return args_misuse(cmig, err, "the member is not UTF-8");
    struct api_call call = {.route = API_ROUTE_registry_set, .name = cmig->operands[0], .body = body};
    int code = api_client_call(cmig->client, &call, &reply, err);
    return code < 0 ? code : print_written(cmig, reply);
}

int registry_remove(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    OWNED(owned_free) char *query = make_query("member", cmig->operands[1]);
    if (!query)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct api_call call = {.route = API_ROUTE_registry_remove, .name = cmig->operands[0], .query = query};
    int code = api_client_call(cmig->client, &call, &reply, err);
    return code < 0 ? code : print_written(cmig, reply);
}

/* ---- watching ---- */

static int on_change(void *ctx, const json_t *event, struct err *err)
{
    const struct cmig *cmig = ctx;
    const char *name = api_json_text(event, "member");
    char score[SCORE_SIZE], member[NAME_SHOWN_SIZE];
    log_text(name, strlen(name), member, sizeof member); /* from other nodes, and this is a terminal */
    (void)err;
    if (cmig->json)
        show_json(event);
    else if (strcmp(api_json_text(event, "event"), API_EVENT_CLEARED) == 0)
        puts("cleared");
    else if (json_is_true(json_object_get(event, "removed")))
        printf("removed  %s\n", member);
    else
        printf("%7s  %s\n", show_score(json_object_get(event, "score"), score), member);
    fflush(stdout);
    return 0;
}

int registry_watch(struct cmig *cmig, struct err *err)
{
    struct api_call call = {.route = API_ROUTE_registry_watch, .name = cmig->operands[0], .endless = true};
    return api_client_events(cmig->client, &call, "", on_change, cmig, err);
}
