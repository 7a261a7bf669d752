/*
 * A request between the HTTP library (http.c) and its handler: what is shared by the files of the server only.
 *
 *   begun --handle--> handled --api_reply, api_stream_begin--> responding --api_http_forget--> gone
 *     `--refuse--> responding, the rest of the body is dropped
 *
 * References: one is the library's, until it forgets the request; one the handler's, from the call to the answer; one
 * belongs to a response that is filled from the request.
 */
#pragma once

#include "node/api/http.h"
#include "node/api/route.h"
#include "node/api/screen.h"
#include "node/base/buf.h"

struct MHD_Response;
struct connection;

struct api_request {
    unsigned refs;
    struct connection *connection; /* borrowed; NULL when the library has forgotten the request */
    char *raw_target;              /* owned */
    struct api_target target;
    struct api_screen screen;
    struct buf body; /* of a JSON request, until it is complete */
    json_t *json;    /* owned */
    const struct api_request_ops *ops;
    void *ops_ctx;

    bool begun;                /* the header was looked at */
    bool body_done;            /* all of it was seen */
    bool handled;              /* the handler was called */
    bool answered;             /* and its answer is complete */
    bool closed;               /* nobody will see the answer */
    bool suspended;            /* the library waits for api_http_resume */
    bool resumed;              /* asked for while it was not suspended */
    bool wants_descriptor;     /* what comes next on the connection is no HTTP */
    uint64_t discard_until_ms; /* 0: the body is wanted */

    struct MHD_Response *response; /* owned until the library has it */
    unsigned status;
    struct buf queue;         /* streams */
    bool ended, cut, refused; /* streams: no more comes; fail after the queue; a write found no room */
    api_pull_cb pull;         /* pulled bodies */
    void (*pull_done)(void *ctx);
    void *pull_ctx;
    bool pulling;    /* pull gave nothing and has not resumed yet */
    bool pull_ended; /* no more is wanted of it */
};

/* ---- request.c ---- */

/* With one reference; NULL when out of memory. */
struct api_request *api_request_new(const char *raw_target, struct connection *connection);
void api_request_unref(struct api_request *req);
void api_request_handle(struct api_request *req, void *ctx);
/* Nobody will see more than was seen: tells the handler, unless it has answered. */
void api_request_close(struct api_request *req);
/* Set an answer that is not the handler's. */
void api_request_set_json(struct api_request *req, unsigned status, json_t *reply);

/* ---- http.c ---- */

/* Results of fill: a count, 0 (suspended), API_PULL_END, API_PULL_ERROR. */
typedef ssize_t (*api_fill_cb)(void *req, uint64_t position, char *ret_data, size_t max_bytes);

/* Set req->response, or close the request when out of memory. Text is from malloc and taken; so is fd. */
void api_http_respond_text(struct api_request *req, unsigned status, char *text);
void api_http_respond_fd(struct api_request *req, const char *content_type, int fd, uint64_t offset, uint64_t length);
void api_http_respond_fill(struct api_request *req, const char *content_type, int64_t length, api_fill_cb fill,
                           void (*done)(void *req));
void api_http_drop_response(struct api_request *req);
/* The next step is the handler's, unless it was taken while the library was still calling (req->resumed). */
void api_http_suspend(struct api_request *req);
void api_http_resume(struct api_request *req);
