#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/id.h"
#include "node/base/log.h"
#include "tools/cmig/cmig.h"

/* ---- run ---- */

/* "GUID:PATH", "GUID:PATH:ro" or "GUID:PATH:rw"; paths with a colon are for the API. */
static int add_volume(struct cmig *cmig, json_t *volumes, const char *text, struct err *err)
{
    struct guid guid;
    char guid_part[GUID_TEXT_SIZE];
    const char *path = strchr(text, ':');
    snprintf(guid_part, sizeof guid_part, "%.*s", path ? (int)(path - text) : 0, text);
    if (!path || path - text != GUID_TEXT_SIZE - 1 || !guid_parse(guid_part, &guid) || path[1] != '/')
        return args_misuse(cmig, err, "'%s' is no volume: it is GUID:/PATH, with :ro behind it for reading only", text);
    path++;
    size_t len = strlen(path);
    bool has_mode = len > 3 && (strcmp(path + len - 3, ":ro") == 0 || strcmp(path + len - 3, ":rw") == 0);
    const char *mode = has_mode ? path + len - 2 : "rw";
    if (memchr(path, ':', has_mode ? len - 3 : len))
        return args_misuse(cmig, err, "'%s' is no volume: behind GUID:/PATH stands :ro, :rw or nothing", text);
    json_t *volume =
        json_pack("{s:s, s:s%, s:s}", "guid", guid_part, "path", path, has_mode ? len - 3 : len, "mode", mode);
    if (json_array_append_new(volumes, volume) < 0)
        return args_misuse(cmig, err, "'%s' is not UTF-8", text);
    return 0;
}

static int add_volumes(struct cmig *cmig, json_t *body, struct err *err)
{
    OWNED(owned_json) json_t *volumes = json_array();
    const char *value;
    size_t cursor = 0;
    while ((value = args_next(cmig, "volume", &cursor))) {
        int code = add_volume(cmig, volumes, value, err);
        if (code < 0)
            return code;
    }
    return json_object_set(body, "volumes", volumes);
}

/* All values of a flag of the form NAME=VALUE, as an object. */
static int add_map(struct cmig *cmig, json_t *body, const char *field, const char *flag, struct err *err)
{
    OWNED(owned_json) json_t *map = json_object();
    const char *value;
    size_t cursor = 0;
    while ((value = args_next(cmig, flag, &cursor))) {
        const char *equals = strchr(value, '=');
        if (!equals || equals == value)
            return args_misuse(cmig, err, "--%s takes NAME=VALUE, not '%s'", flag, value);
        if (json_object_setn_new(map, value, (size_t)(equals - value), json_string(equals + 1)) < 0)
            return args_misuse(cmig, err, "'%s' is not UTF-8", value);
    }
    return json_object_set(body, field, map);
}

static int add_args(struct cmig *cmig, json_t *body, struct err *err)
{
    OWNED(owned_json) json_t *args = json_array();
    for (int i = 1; i < cmig->operand_count; i++) {
        if (json_array_append_new(args, json_string(cmig->operands[i])) < 0)
            return args_misuse(cmig, err, "argument %d is not UTF-8", i);
    }
    return json_object_set(body, "args", args);
}

static int make_spec(struct cmig *cmig, json_t **ret_body, struct err *err)
{
    OWNED(owned_json)
    json_t *body =
        json_pack("{s:s, s:s*, s:s*, s:s*, s:s*}", "image", cmig->operands[0], "name", args_flag(cmig, "name"), "user",
                  args_flag(cmig, "user"), "as", args_flag(cmig, "as"), "workdir", args_flag(cmig, "workdir"));
    if (!body)
        return args_misuse(cmig, err, "a name is not UTF-8");
    int code = add_volumes(cmig, body, err);
    if (code == 0)
        code = add_map(cmig, body, "env", "env", err);
    if (code == 0)
        code = add_map(cmig, body, "labels", "label", err);
    if (code == 0)
        code = add_args(cmig, body, err);
    if (code < 0)
        return cmig->misused ? code : err_set(err, ERR_NOMEM, "out of memory");
    *ret_body = STEAL(body);
    return 0;
}

static void print_container(const struct cmig *cmig, const json_t *container)
{
    if (cmig->json)
        show_json(container);
    else
        puts(api_json_text(container, "name"));
}

int container_run(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *body = NULL;
    OWNED(owned_json) json_t *container = NULL;
    int code = make_spec(cmig, &body, err);
    if (code < 0)
        return code;
    struct api_call call = {.route = API_ROUTE_container_run, .body = body};
    code = api_client_call(cmig->client, &call, &container, err);
    if (code == 0)
        print_container(cmig, container);
    return code;
}

/* ---- ps ---- */

static void add_state(struct table *table, const json_t *container)
{
    const json_t *exit_code = json_object_get(container, "exit_code");
    char text[64];
    const char *state = api_json_text(container, "state");
    snprintf(text, sizeof text, "exited (%lld)", (long long)json_integer_value(exit_code));
    table_add(table, strcmp(state, "exited") == 0 && json_is_integer(exit_code) ? text : state);
}

int container_ps(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = api_client_call(cmig->client, &(struct api_call){.route = API_ROUTE_container_list}, &reply, err);
    if (code < 0 || cmig->json) {
        if (code == 0)
            show_json(reply);
        return code;
    }
    OWNED(owned_table) struct table *table = table_new("ID NAME IMAGE STATE >PID USER >EPOCH CREATED");
    size_t i;
    json_t *container;
    json_array_foreach(json_object_get(reply, "containers"), i, container)
    {
        if (!args_flag(cmig, "all") && strcmp(api_json_text(container, "state"), "running") != 0)
            continue;
        char id[GUID_TEXT_SIZE];
        uint64_t pid = api_json_number(container, "pid");
        snprintf(id, sizeof id, "%.*s", cmig->full ? GUID_TEXT_SIZE : 13, api_json_text(container, "id"));
        table_add(table, id); /* or its first two groups: as many digits are enough for commands */
        table_add(table, api_json_text(container, "name"));
        table_add(table, api_json_text(container, "image"));
        add_state(table, container);
        if (pid)
            table_add_number(table, pid);
        else
            table_add(table, "-");
        table_add(table, api_json_text(container, "user"));
        table_add_number(table, api_json_number(container, "epoch"));
        table_add(table, api_json_text(container, "created"));
    }
    return table_print(table, err);
}

/* ---- logs, stop, rm ---- */

static int write_bytes(void *ctx, const void *data, size_t len, uint64_t total_bytes, struct err *err)
{
    (void)ctx, (void)total_bytes;
    return file_write_all(STDOUT_FILENO, data, len, "standard output", err);
}

/* With --json: {"line": "..."} for each line. A longer one becomes several; bytes that are not UTF-8 are escaped. */
#define LOG_LINE_SIZE 16384

struct lines {
    char text[LOG_LINE_SIZE];
    size_t len;
};

static void print_line(struct lines *lines)
{
    char safe[4 * LOG_LINE_SIZE + 1];
    OWNED(owned_json) json_t *line = json_pack("{s:s%}", "line", lines->text, lines->len);
    if (!line)
        line = json_pack("{s:s}", "line", log_text(lines->text, lines->len, safe, sizeof safe));
    show_json(line);
    lines->len = 0;
}

static int write_lines(void *ctx, const void *data, size_t len, uint64_t total_bytes, struct err *err)
{
    (void)total_bytes;
    struct lines *lines = ctx;
    for (const char *at = data; len > 0; at++, len--) {
        if (*at != '\n')
            lines->text[lines->len++] = *at;
        if (*at == '\n' || lines->len == sizeof lines->text)
            print_line(lines);
    }
    return fflush(stdout) == 0 ? 0 : err_set(err, ERR_IO, "cannot write to standard output");
}

static int print_logs(struct cmig *cmig, const struct api_call *call, struct err *err)
{
    struct lines lines = {.len = 0};
    if (!cmig->json)
        return api_client_download(cmig->client, call, write_bytes, NULL, err);
    int code = api_client_download(cmig->client, call, write_lines, &lines, err);
    if (lines.len > 0)
        print_line(&lines);
    return code;
}

int container_logs(struct cmig *cmig, struct err *err)
{
    char query[64], tail_text[32] = "";
    uint64_t tail;
    bool follow = args_flag(cmig, "follow") != NULL;
    int code = args_number(cmig, "tail", 0, 1000000, &tail, err);
    if (code < 0)
        return code;
    if (args_flag(cmig, "tail"))
        snprintf(tail_text, sizeof tail_text, "&tail=%llu", (unsigned long long)tail);
    snprintf(query, sizeof query, "follow=%d%s", follow, tail_text);
    struct api_call call = {
        .route = API_ROUTE_container_logs, .name = cmig->operands[0], .query = query, .endless = follow};
    return print_logs(cmig, &call, err);
}

int container_stop(struct cmig *cmig, struct err *err)
{
    uint64_t seconds;
    int code = args_number(cmig, "time", 10, 3600, &seconds, err);
    if (code < 0)
        return code;
    for (int i = 0; i < cmig->operand_count; i++) {
        OWNED(owned_json) json_t *reply = NULL;
        OWNED(owned_json) json_t *body = json_pack("{s:I}", "timeout_s", (json_int_t)seconds);
        struct api_call call = {
            .route = API_ROUTE_container_stop, .name = cmig->operands[i], .body = body, .endless = true};
        code = api_client_call(cmig->client, &call, &reply, err);
        if (code < 0)
            return code;
        if (cmig->json)
            show_json(reply);
        else
            puts(cmig->operands[i]);
    }
    return 0;
}

static bool looks_like_digest(const char *text)
{
    return strncmp(text, "sha256:", 7) == 0; /* no name has a colon */
}

int container_rm(struct cmig *cmig, struct err *err)
{
    for (int i = 0; i < cmig->operand_count; i++) {
        int code = looks_like_digest(cmig->operands[i]) ? args_check_digest(cmig, cmig->operands[i], err) : 0;
        if (code < 0)
            return code;
    }
    for (int i = 0; i < cmig->operand_count; i++) {
        OWNED(owned_json) json_t *reply = NULL;
        struct api_call call = {.route = looks_like_digest(cmig->operands[i]) ? API_ROUTE_object_remove
                                                                              : API_ROUTE_container_remove,
                                .name = cmig->operands[i],
                                .query = args_flag(cmig, "force") ? "force=1" : NULL};
        int code = api_client_call(cmig->client, &call, &reply, err);
        if (code < 0)
            return code;
        const char *warning = json_string_value(json_object_get(reply, "warning"));
        if (warning)
            fprintf(stderr, "cmig: %s: %s\n", cmig->operands[i], warning);
        if (cmig->json)
            show_json(reply);
        else
            puts(cmig->operands[i]);
    }
    return 0;
}
