#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/id.h"
#include "tools/cmig/cmig.h"

/* ---- put ---- */

static void draw_upload(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    progress_draw(ctx, "storing", done_bytes, total_bytes, 0, 0);
}

static int open_input(const char *path, int *ret_fd, int64_t *ret_size, struct err *err)
{
    struct stat status;
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0) {
        int code = err_errno(err, errno, "cannot open '%s'", path);
        if (fd >= 0)
            close(fd);
        return code;
    }
    if (S_ISDIR(status.st_mode)) {
        close(fd);
        return err_set(err, ERR_INVALID, "'%s' is a directory: put takes files; 'tar c %s | cmig put -' makes one",
                       path, path);
    }
    /* Of a file that says 0 the size is not known: those of proc do. */
    off_t at = S_ISREG(status.st_mode) && status.st_size > 0 ? lseek(fd, 0, SEEK_CUR) : -1;
    *ret_size = at >= 0 && at <= status.st_size ? (int64_t)(status.st_size - at) : -1;
    *ret_fd = fd;
    return 0;
}

static int store_file(struct cmig *cmig, const char *path, const char *query, json_t **ret_reply, struct err *err)
{
    OWNED(owned_fd) int fd = -1;
    int64_t size = -1;
    int code = open_input(path, &fd, &size, err);
    if (code < 0)
        return code;
    struct progress progress;
    progress_init(&progress, cmig);
    struct api_call call = {.route = API_ROUTE_object_put, .query = query};
    code = api_client_upload(cmig->client, &call, fd, size, draw_upload, &progress, ret_reply, err);
    progress_end(&progress);
    return code;
}

int object_put(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *reply = NULL;
    int code = store_file(cmig, cmig->operands[0], "kind=blob", &reply, err);
    if (code < 0)
        return code;
    if (cmig->json)
        show_json(reply);
    else
        puts(api_json_text(reply, "digest"));
    return 0;
}

/* ---- get ---- */

struct fetch {
    struct progress progress;
    json_t *result; /* owned */
};

static int on_fetch_event(void *ctx, const json_t *event, struct err *err)
{
    (void)err;
    struct fetch *fetch = ctx;
    const char *name = api_json_text(event, "event");
    if (strcmp(name, API_EVENT_PROGRESS) == 0) {
        progress_draw(&fetch->progress, "fetching", api_json_number(event, "done_bytes"),
                      api_json_number(event, "total_bytes"), api_json_number(event, "rate"),
                      api_json_number(event, "peers"));
    } else if (strcmp(name, API_EVENT_RESULT) == 0) {
        json_decref(fetch->result);
        fetch->result = json_incref((json_t *)event);
    }
    return 0;
}

static int fetch_one(struct cmig *cmig, struct fetch *fetch, const char *digest, json_t *body, struct err *err)
{
    struct api_call call = {.route = API_ROUTE_object_fetch, .name = digest, .body = body};
    progress_init(&fetch->progress, cmig);
    int code = api_client_events(cmig->client, &call, API_EVENT_RESULT, on_fetch_event, fetch, err);
    progress_end(&fetch->progress);
    return code;
}

/* The basis as the daemon knows it: a file of the user's becomes an object, which is evicted before all others. */
static int name_basis(struct cmig *cmig, const char *basis, json_t *body, struct err *err)
{
    OWNED(owned_json) json_t *stored = NULL;
    if (strncmp(basis, "sha256:", 7) != 0) {
        int code = store_file(cmig, basis, "kind=cache", &stored, err);
        if (code < 0)
            return code;
        basis = api_json_text(stored, "digest");
    }
    int code = args_check_digest(cmig, basis, err);
    return code < 0 ? code : json_object_set_new(body, "basis", json_string(basis));
}

static int fetch_body(struct cmig *cmig, json_t **ret_body, struct err *err)
{
    const char *policy = args_flag(cmig, "policy"), *basis = args_flag(cmig, "basis");
    OWNED(owned_json) json_t *body = json_object();
    if (policy && json_object_set_new(body, "policy", json_string(policy)) < 0)
        return args_misuse(cmig, err, "the policy is not UTF-8");
    int code = basis ? name_basis(cmig, basis, body, err) : 0;
    if (code == 0)
        *ret_body = STEAL(body);
    return code;
}

static int fetch_and_write(struct cmig *cmig, struct fetch *fetch, json_t *body, struct download *down, struct err *err)
{
    int code = fetch_one(cmig, fetch, cmig->operands[0], body, err);
    if (code < 0)
        return code;
    struct api_call call = {.route = API_ROUTE_object_get, .name = cmig->operands[0]};
    return download_run(down, &call, cmig->operands[0], err);
}

int object_get(struct cmig *cmig, struct err *err)
{
    struct fetch fetch = {0};
    struct download down;
    OWNED(owned_json) json_t *body = NULL;
    int code = args_check_digest(cmig, cmig->operands[0], err);
    if (code < 0)
        return code;
    code = download_open(cmig, &down, err);
    if (code == 0)
        code = fetch_body(cmig, &body, err);
    if (code == 0)
        code = fetch_and_write(cmig, &fetch, body, &down, err);
    /* The daemon cuts its answer short where the disk has rotted; the second time it fetches what it has lost. */
    if (code == ERR_CLOSED && down.part && !api_client_error(cmig->client))
        code = fetch_and_write(cmig, &fetch, body, &down, err);
    download_close(&down);
    if (code == 0 && cmig->json)
        show_json(fetch.result);
    json_decref(fetch.result);
    return code;
}

int object_prefetch(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *body = json_pack("{s:b}", "prefetch", 1);
    int code = 0;
    for (int i = 0; i < cmig->operand_count && code == 0; i++)
        code = args_check_digest(cmig, cmig->operands[i], err);
    for (int i = 0; i < cmig->operand_count && code == 0; i++) {
        struct fetch fetch = {0};
        code = fetch_one(cmig, &fetch, cmig->operands[i], body, err);
        if (code == 0 && cmig->json)
            show_json(fetch.result);
        json_decref(fetch.result);
    }
    return code;
}

/* ---- the others ---- */

/* All pages of the list as one. */
static int list_objects(struct cmig *cmig, json_t **ret_objects, struct err *err)
{
    OWNED(owned_json) json_t *all = json_array();
    char query[128] = "";
    bool more = true;
    while (more) {
        OWNED(owned_json) json_t *page = NULL;
        struct api_call call = {.route = API_ROUTE_object_list, .query = *query ? query : NULL};
        int code = api_client_call(cmig->client, &call, &page, err);
        if (code < 0)
            return code;
        const json_t *objects = json_object_get(page, "objects");
        const json_t *last = json_array_get(objects, json_array_size(objects) - 1);
        if (json_array_extend(all, (json_t *)objects) < 0)
            return err_set(err, ERR_PROTOCOL, "the daemon's answer has no list of objects");
        more = last && json_is_true(json_object_get(page, "more"));
        snprintf(query, sizeof query, "after=%s", api_json_text(last, "digest"));
    }
    *ret_objects = STEAL(all);
    return 0;
}

int object_ls(struct cmig *cmig, struct err *err)
{
    OWNED(owned_json) json_t *objects = NULL;
    int code = list_objects(cmig, &objects, err);
    if (code < 0)
        return code;
    if (cmig->json) {
        OWNED(owned_json) json_t *reply = json_pack("{s:O, s:b}", "objects", objects, "more", 0);
        show_json(reply);
        return 0;
    }
    OWNED(owned_table) struct table *table = table_new("DIGEST >SIZE KIND >CHUNKS PINNED CREATED");
    size_t i;
    json_t *object;
    json_array_foreach(objects, i, object)
    {
        table_add(table, api_json_text(object, "digest")); /* whole: it is an object's only name */
        table_add_bytes(table, api_json_number(object, "size_bytes"));
        table_add(table, api_json_text(object, "kind"));
        table_add_number(table, api_json_number(object, "chunks"));
        table_add(table, json_is_true(json_object_get(object, "pinned")) ? "yes" : "no");
        table_add(table, api_json_text(object, "created"));
    }
    return table_print(table, err);
}

/* The same call for each digest; stops at the first failure, whose digest the error names. */
static int for_each_digest(struct cmig *cmig, enum api_route_id route, struct err *err)
{
    for (int i = 0; i < cmig->operand_count; i++) {
        int code = args_check_digest(cmig, cmig->operands[i], err);
        if (code < 0)
            return code;
    }
    for (int i = 0; i < cmig->operand_count; i++) {
        OWNED(owned_json) json_t *reply = NULL;
        struct api_call call = {.route = route, .name = cmig->operands[i]};
        int code = api_client_call(cmig->client, &call, &reply, err);
        if (code < 0)
            return code;
        if (cmig->json)
            show_json(reply);
        else
            puts(cmig->operands[i]);
    }
    return 0;
}

int object_pin(struct cmig *cmig, struct err *err)
{
    return for_each_digest(cmig, API_ROUTE_object_pin, err);
}

int object_unpin(struct cmig *cmig, struct err *err)
{
    return for_each_digest(cmig, API_ROUTE_object_unpin, err);
}
