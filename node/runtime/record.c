#include "node/runtime/record.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/buf.h"
#include "node/base/file.h"
#include "node/base/limits.h"
#include "node/base/scope.h"
#include "node/runtime/json.h"
#include "node/runtime/spec.h"

#define PID_MAX (1u << 22) /* PID_MAX_LIMIT of Linux */

OWNED_DEFINE(owned_container, struct runtime_container, runtime_container_free)
OWNED_DEFINE(owned_json, json_t, json_decref)

static const char *const state_names[] = {
#define X(name, text) [name] = text,
    RUNTIME_STATES(X)
#undef X
};
#define STATE_COUNT (sizeof state_names / sizeof *state_names)

void runtime_container_free(struct runtime_container *container)
{
    if (!container)
        return;
    runtime_spec_release(&container->spec);
    free(container);
}

int runtime_container_copy(const struct runtime_container *container, struct runtime_container **ret_copy,
                           struct err *err)
{
    OWNED(owned_container) struct runtime_container *copy = malloc(sizeof *copy);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a container");
    *copy = *container;
    copy->spec = (struct runtime_spec){0};
    int status = runtime_spec_copy(&container->spec, &copy->spec, err);
    if (status == 0)
        *ret_copy = STEAL(copy);
    return status;
}

json_t *runtime_container_to_json(const struct runtime_container *container)
{
    char id[GUID_TEXT_SIZE];
    return json_pack("{s:s, s:o, s:s, s:I, s:i, s:I, s:I, s:I, s:I}", "id", guid_text(&container->id, id), "spec",
                     runtime_spec_to_json(&container->spec), "state", state_names[container->state], "pid",
                     (json_int_t)container->pid, "exit_code", container->exit_code, "epoch",
                     (json_int_t)container->epoch, "counter", (json_int_t)container->counter, "created_ms",
                     (json_int_t)container->created_ms, "started_ms", (json_int_t)container->started_ms);
}

static int state_from_json(struct runtime_json *json, enum runtime_state *ret_state)
{
    const char *text = runtime_json_text(json, "state", 32);
    for (size_t i = 0; i < STATE_COUNT; i++) {
        if (strcmp(text, state_names[i]) == 0) {
            *ret_state = (enum runtime_state)i;
            return 0;
        }
    }
    return json->status < 0 ? json->status : err_set(json->err, ERR_INVALID, "container: 'state' is not a state");
}

/* The one field that may be negative. */
static int exit_code_from_json(struct runtime_json *json, const json_t *object)
{
    const json_t *value = json_object_get(object, "exit_code");
    if (!json_is_integer(value) || json_integer_value(value) != -1)
        return (int)runtime_json_u64(json, "exit_code", 255);
    json->known++;
    return -1;
}

int runtime_container_from_json(const json_t *json, struct runtime_container **ret_container, struct err *err)
{
    struct runtime_json fields;
    runtime_json_init(&fields, json, "container", err);
    OWNED(owned_container) struct runtime_container *container = calloc(1, sizeof *container);
    if (!container)
        return err_set(err, ERR_NOMEM, "no memory for a container");
    const char *id = runtime_json_text(&fields, "id", GUID_TEXT_SIZE - 1);
    const json_t *spec = runtime_json_object(&fields, "spec");
    int status = state_from_json(&fields, &container->state);
    container->pid = (pid_t)runtime_json_u64(&fields, "pid", PID_MAX);
    container->exit_code = exit_code_from_json(&fields, json);
    container->epoch = runtime_json_u64(&fields, "epoch", INT64_MAX);
    container->counter = runtime_json_u64(&fields, "counter", INT64_MAX);
    container->created_ms = runtime_json_u64(&fields, "created_ms", INT64_MAX);
    container->started_ms = runtime_json_u64(&fields, "started_ms", INT64_MAX);
    if (status == 0)
        status = runtime_json_done(&fields);
    if (status == 0 && !guid_parse(id, &container->id))
        status = err_set(err, ERR_INVALID, "container: 'id' is not 8-4-4-4-12 lower-case hex digits");
    if (status == 0)
        status = runtime_spec_from_json(spec, &container->spec, err);
    if (status == 0)
        status = runtime_spec_check(&container->spec, true, err);
    if (status == 0)
        *ret_container = STEAL(container);
    return status;
}

int runtime_record_write(const char *path, const struct runtime_container *container, struct err *err)
{
    OWNED(owned_json) json_t *json = runtime_container_to_json(container);
    OWNED(owned_free) char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    if (!text)
        return err_set(err, ERR_INVALID, "container '%s': its spec is not UTF-8, or memory is short",
                       container->spec.name);
    return file_write_atomic(path, text, strlen(text), 0600, err);
}

int runtime_record_read(const char *path, struct runtime_container **ret_container, struct err *err)
{
    OWNED(buf_release) struct buf text = BUF(LIMIT_RUNTIME_RECORD_BYTES);
    int status = file_read(path, &text, err);
    if (status < 0)
        return status;
    json_error_t wrong;
    OWNED(owned_json) json_t *json = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &wrong);
    if (!json)
        return err_set(err, ERR_CORRUPT, "'%s' is not JSON: line %d: %s", path, wrong.line, wrong.text);
    if (runtime_container_from_json(json, ret_container, err) < 0) {
        err_wrap(err, "'%s'", path);
        return err ? (err->code = ERR_CORRUPT) : ERR_CORRUPT;
    }
    return 0;
}
