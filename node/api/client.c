#include "node/api/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/api/descriptor.h"
#include "node/api/json.h"
#include "node/base/buf.h"
#include "node/base/limits.h"

#define REPLY_MAX_BYTES (64u << 20) /* a list of 200,000 objects */
#define LINE_MAX_BYTES (2u << 20)   /* an event is queued whole by the daemon: LIMIT_API_STREAM_BYTES */
#define CONNECT_MS 5000L

struct api_client {
    CURL *curl;    /* owned */
    char *socket;  /* owned */
    json_t *error; /* owned */
    api_cancel_cb cancelled;
    void *cancel_ctx;
};

/* One request on its way; the callbacks of the library get this. */
struct exchange {
    struct api_client *client;
    struct err *err;
    int code; /* of a callback that ended it; 0: none */
    long status;
    struct buf reply; /* of what is not streamed */
    /* exactly one of these for a good answer; none: it is collected in reply */
    api_bytes_cb bytes;
    api_event_cb event;
    void *ctx;
    const char *last; /* name of the last event */
    bool complete;    /* it came */
    /* sending */
    int upload_fd;
    int handed_fd; /* borrowed: what API_EVENT_SEND asks for; -1: nothing */
    bool asked;    /* it did */
    int socket;    /* the library's, for that */
    api_progress_cb progress;
    void *progress_ctx;
};

int api_client_new(const char *socket_path, struct api_client **ret_client, struct err *err)
{
    OWNED(owned_api_client) struct api_client *client = calloc(1, sizeof *client);
    if (!client || !(client->socket = strdup(socket_path)))
        return err_set(err, ERR_NOMEM, "out of memory");
    if (curl_global_init(CURL_GLOBAL_NOTHING) != 0 || !(client->curl = curl_easy_init()))
        return err_set(err, ERR_NOMEM, "cannot start the HTTP client library");
    *ret_client = STEAL(client);
    return 0;
}

void api_client_free(struct api_client *client)
{
    if (!client)
        return;
    if (client->curl)
        curl_easy_cleanup(client->curl);
    json_decref(client->error);
    free(client->socket);
    free(client);
}

void api_client_set_cancel(struct api_client *client, api_cancel_cb cancelled, void *ctx)
{
    client->cancelled = cancelled;
    client->cancel_ctx = ctx;
}

const json_t *api_client_error(const struct api_client *client)
{
    return client->error;
}

/* ---- callbacks of the library ---- */

static int hand_over(struct exchange *x)
{
    if (x->handed_fd < 0 || x->asked)
        return err_set(x->err, ERR_PROTOCOL, "the daemon asks for a file that it was not promised");
    x->asked = true;
    return api_descriptor_send(x->socket, x->handed_fd, x->err);
}

/* Give whole lines to the event callback; what is left waits for more. */
static int take_lines(struct exchange *x)
{
    size_t start = 0;
    for (;;) {
        const uint8_t *end = x->reply.len > start ? memchr(x->reply.data + start, '\n', x->reply.len - start) : NULL;
        if (!end)
            break;
        size_t len = (size_t)(end - (x->reply.data + start));
        OWNED(owned_json) json_t *event = NULL;
        int code = api_json_parse(x->reply.data + start, len, &event, x->err);
        if (code < 0)
            return err_wrap(x->err, "the daemon's event");
        start += len + 1;
        const char *name = api_json_text(event, "event");
        if (strcmp(name, API_EVENT_ERROR) == 0) {
            json_decref(x->client->error);
            json_object_del(event, "event"); /* then it is as in any other answer */
            x->client->error = json_pack("{s:O}", "error", event);
            code = err_code_of_name(api_json_text(event, "code"));
            return err_set(x->err, code ? code : ERR_INTERNAL, "%s", api_json_text(event, "message"));
        }
        x->complete = strcmp(name, x->last) == 0;
        code = strcmp(name, API_EVENT_SEND) == 0 ? hand_over(x) : x->event(x->ctx, event, x->err);
        if (code < 0)
            return code;
    }
    buf_consume(&x->reply, start);
    return 0;
}

static int take_body(struct exchange *x, const char *data, size_t len)
{
    bool good = x->status >= 200 && x->status < 300;
    if (good && x->bytes) {
        curl_off_t total = -1;
        curl_easy_getinfo(x->client->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &total);
        return x->bytes(x->ctx, data, len, total > 0 ? (uint64_t)total : 0, x->err);
    }
    if (buf_add(&x->reply, data, len) < 0)
        return err_set(x->err, ERR_LIMIT, "the daemon's answer is longer than %zu bytes", x->reply.max);
    return good && x->event ? take_lines(x) : 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    size_t len = size * count;
    curl_easy_getinfo(x->client->curl, CURLINFO_RESPONSE_CODE, &x->status);
    x->code = take_body(x, data, len);
    return x->code < 0 ? 0 : len;
}

static size_t on_read(char *data, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    for (;;) {
        ssize_t got = read(x->upload_fd, data, size * count);
        if (got >= 0)
            return (size_t)got;
        if (errno == EINTR && !(x->client->cancelled && x->client->cancelled(x->client->cancel_ctx)))
            continue;
        x->code = errno == EINTR ? err_set(x->err, ERR_CANCELLED, "interrupted")
                                 : err_errno(x->err, errno, "cannot read what is to be sent");
        return CURL_READFUNC_ABORT;
    }
}

static int on_progress(void *ctx, curl_off_t down_total, curl_off_t down_done, curl_off_t up_total, curl_off_t up_done)
{
    (void)down_total, (void)down_done;
    struct exchange *x = ctx;
    if (x->client->cancelled && x->client->cancelled(x->client->cancel_ctx)) {
        x->code = err_set(x->err, ERR_CANCELLED, "interrupted");
        return 1;
    }
    if (x->progress && up_done > 0)
        x->progress(x->progress_ctx, (uint64_t)up_done, (uint64_t)up_total);
    return 0;
}

static int on_socket(void *ctx, curl_socket_t socket, curlsocktype purpose)
{
    (void)purpose;
    struct exchange *x = ctx;
    x->socket = socket;
    return CURL_SOCKOPT_OK;
}

/* ---- one request ---- */

static void set_common(struct exchange *x, const struct api_call *call, const char *url)
{
    CURL *curl = x->client->curl;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, x->client->socket);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, api_route_specs[call->route].method);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    if (!call->endless) {
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)(LIMIT_API_SILENT_MS / 1000));
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
}

static void set_upload(struct exchange *x, int64_t size_bytes)
{
    CURL *curl = x->client->curl;
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size_bytes);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(curl, CURLOPT_READDATA, x);
}

/* On a connection of its own, for only of a new one the library says which socket it is. */
static void set_hand_over(struct exchange *x)
{
    CURL *curl = x->client->curl;
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(curl, CURLOPT_SOCKOPTDATA, x);
}

/* The daemon's own words, or what its HTTP status says if there are none. */
static int refused(struct exchange *x)
{
    struct err ignored;
    json_t *reply = NULL;
    int code = x->reply.len > 0 ? api_json_parse(x->reply.data, x->reply.len, &reply, &ignored) : ERR_PROTOCOL;
    const json_t *error = json_object_get(reply, "error");
    if (code < 0 || !error) {
        json_decref(reply);
        return err_set(x->err, ERR_PROTOCOL, "what answers at '%s' is no cmig-node: HTTP status %ld", x->client->socket,
                       x->status);
    }
    code = err_code_of_name(api_json_text(error, "code"));
    err_set(x->err, code ? code : ERR_INTERNAL, "%s", api_json_text(error, "message"));
    x->client->error = reply;
    return code ? code : ERR_INTERNAL;
}

static int failed(const struct exchange *x, CURLcode result)
{
    const char *socket = x->client->socket;
    if (x->code < 0)
        return x->code;
    switch (result) {
    case CURLE_COULDNT_CONNECT:
        if (access(socket, W_OK) < 0 && errno == EACCES)
            return err_set(x->err, ERR_DENIED, "no right to use '%s': run as root or as a member of its group", socket);
        return err_set(x->err, ERR_UNAVAILABLE,
                       "no cmig-node answers at %s: start it with 'cmig-node start', or give --socket", socket);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(x->err, ERR_TIMEOUT, "the node at '%s' was silent for too long", socket);
    case CURLE_OUT_OF_MEMORY:
        return err_set(x->err, ERR_NOMEM, "out of memory");
    default:
        return err_set(x->err, ERR_CLOSED, "the node at '%s' ended the connection before its answer was complete: %s",
                       socket, curl_easy_strerror(result));
    }
}

static int perform(struct exchange *x, const struct api_call *call, int64_t upload_bytes)
{
    struct api_client *client = x->client;
    json_decref(client->error);
    client->error = NULL;
    OWNED(owned_free) char *path = api_route_path(call->route, call->name, call->query);
    OWNED(owned_free) char *url = NULL;
    OWNED(owned_free) char *body = call->body ? json_dumps(call->body, JSON_COMPACT) : NULL;
    if (!path || asprintf(&url, "http://localhost%s", path) < 0 || (call->body && !body))
        return err_set(x->err, ERR_NOMEM, "out of memory");
    set_common(x, call, url);
    struct curl_slist *headers =
        curl_slist_append(NULL, body ? "Content-Type: application/json" : "Content-Type: application/octet-stream");
    if (body || x->upload_fd >= 0)
        curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
    if (x->upload_fd >= 0)
        set_upload(x, upload_bytes);
    else if (x->handed_fd >= 0)
        set_hand_over(x);
    else if (body)
        curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
    CURLcode result = curl_easy_perform(client->curl);
    curl_slist_free_all(headers);
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &x->status);
    /* A refusal may come while the body is still being sent, which then fails. */
    if (x->code == 0 && x->status >= 300 && x->reply.len > 0)
        return refused(x);
    if (result != CURLE_OK)
        return failed(x, result);
    return x->status >= 300 ? refused(x) : 0;
}

static void release(struct exchange *x)
{
    buf_release(&x->reply);
}

static struct exchange exchange_of(struct api_client *client, size_t reply_max, struct err *err)
{
    return (struct exchange){.client = client, .err = err, .upload_fd = -1, .handed_fd = -1, .reply = BUF(reply_max)};
}

static int parse_reply(const struct exchange *x, json_t **ret_reply)
{
    if (!ret_reply)
        return 0;
    if (x->reply.len == 0) {
        *ret_reply = json_object();
        return *ret_reply ? 0 : err_set(x->err, ERR_NOMEM, "out of memory");
    }
    int code = api_json_parse(x->reply.data, x->reply.len, ret_reply, x->err);
    return code < 0 ? err_wrap(x->err, "the daemon's answer") : 0;
}

int api_client_call(struct api_client *client, const struct api_call *call, json_t **ret_reply, struct err *err)
{
    OWNED(release) struct exchange x = exchange_of(client, REPLY_MAX_BYTES, err);
    int code = perform(&x, call, 0);
    return code < 0 ? code : parse_reply(&x, ret_reply);
}

/* ---- uploads ---- */

struct handed {
    json_t *result; /* owned */
    bool begun;     /* some of it was read */
    api_progress_cb progress;
    void *progress_ctx;
};

static int on_handed_event(void *ctx, const json_t *event, struct err *err)
{
    (void)err;
    struct handed *handed = ctx;
    const char *name = api_json_text(event, "event");
    bool is_progress = strcmp(name, API_EVENT_PROGRESS) == 0;
    handed->begun |= is_progress;
    if (is_progress && handed->progress)
        handed->progress(handed->progress_ctx, api_json_number(event, "done_bytes"),
                         api_json_number(event, "total_bytes"));
    if (strcmp(name, API_EVENT_RESULT) == 0 && !handed->result) {
        handed->result = json_deep_copy(event);
        json_object_del(handed->result, "event");
    }
    return 0;
}

/* Instead of the bytes of a whole file, the open file. *ret_begun: the daemon has read some of it; else ERR_UNSUPPORTED
 * means that it cannot, or has not asked. */
static int upload_by_descriptor(struct api_client *client, const struct api_call *call, int fd,
                                api_progress_cb progress, void *ctx, json_t **ret_reply, bool *ret_begun,
                                struct err *err)
{
    OWNED(owned_free) char *query = NULL;
    *ret_begun = false;
    if (asprintf(&query, "%s%sfrom=" API_FROM_DESCRIPTOR, call->query ? call->query : "", call->query ? "&" : "") < 0)
        return err_set(err, ERR_NOMEM, "out of memory");
    struct api_call asked = *call;
    asked.query = query;
    struct handed handed = {.progress = progress, .progress_ctx = ctx};
    OWNED(release) struct exchange x = exchange_of(client, LINE_MAX_BYTES, err);
    x.handed_fd = fd;
    x.event = on_handed_event;
    x.ctx = &handed;
    x.last = API_EVENT_RESULT;
    int code = perform(&x, &asked, 0);
    *ret_begun = handed.begun;
    if (code == 0 && !x.asked)
        code = err_set(err, ERR_UNSUPPORTED, "the daemon does not know how to take an open file");
    else if (code == 0 && !handed.result)
        code = err_set(err, ERR_CLOSED, "the node ended the stream of events before its last one");
    if (code == 0 && ret_reply)
        *ret_reply = STEAL(handed.result);
    json_decref(handed.result);
    return code;
}

/* From its beginning, as what the daemon reads; a descriptor in the middle of a file is a stream as any other. */
static bool is_whole_file(int fd, int64_t size_bytes)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0 && size_bytes == st.st_size;
}

int api_client_upload(struct api_client *client, const struct api_call *call, int fd, int64_t size_bytes,
                      api_progress_cb progress, void *ctx, json_t **ret_reply, struct err *err)
{
    if (is_whole_file(fd, size_bytes)) {
        bool begun;
        int code = upload_by_descriptor(client, call, fd, progress, ctx, ret_reply, &begun, err);
        if (code == 0)
            lseek(fd, 0, SEEK_END); /* where reading it would have left it */
        if (code != ERR_UNSUPPORTED || begun)
            return code;
    }
    OWNED(release) struct exchange x = exchange_of(client, REPLY_MAX_BYTES, err);
    x.upload_fd = fd;
    x.progress = progress;
    x.progress_ctx = ctx;
    int code = perform(&x, call, size_bytes);
    return code < 0 ? code : parse_reply(&x, ret_reply);
}

int api_client_download(struct api_client *client, const struct api_call *call, api_bytes_cb bytes, void *ctx,
                        struct err *err)
{
    OWNED(release) struct exchange x = exchange_of(client, REPLY_MAX_BYTES, err);
    x.bytes = bytes;
    x.ctx = ctx;
    return perform(&x, call, 0);
}

int api_client_events(struct api_client *client, const struct api_call *call, const char *last, api_event_cb event,
                      void *ctx, struct err *err)
{
    OWNED(release) struct exchange x = exchange_of(client, LINE_MAX_BYTES, err);
    x.event = event;
    x.ctx = ctx;
    x.last = last;
    int code = perform(&x, call, 0);
    if (code == 0 && (!x.complete || x.reply.len > 0))
        return err_set(err, ERR_CLOSED, "the node ended the stream of events before its last one");
    return code;
}
