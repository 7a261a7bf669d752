/*
 * Blocking requests to a daemon's local socket, for the command line.
 *
 * 1. Errors that the daemon reports come back with its code and message; api_client_error has the object itself.
 * 2. A daemon that is not there is ERR_UNAVAILABLE, with what to do in the text.
 * 3. Every wait ends: when the daemon is silent for LIMIT_API_SILENT_MS, or when the cancel callback says so
 *    (ERR_CANCELLED; the connection is closed, which cancels the work in the daemon).
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "node/api/protocol.h"
#include "node/base/err.h"
#include "node/base/scope.h"

struct api_client;

int api_client_new(const char *socket_path, struct api_client **ret_client, struct err *err);
void api_client_free(struct api_client *client);
OWNED_DEFINE(owned_api_client, struct api_client, api_client_free)

/* Asked at least once a second, and at once after a signal that interrupts system calls. */
typedef bool (*api_cancel_cb)(void *ctx);
void api_client_set_cancel(struct api_client *client, api_cancel_cb cancelled, void *ctx);

/* Bytes moved so far in the direction that counts; total 0: unknown. */
typedef void (*api_progress_cb)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);

struct api_call {
    enum api_route_id route;
    const char *name;   /* for the braces in the route's path; any text */
    const char *query;  /* "a=1&b=2", values already percent-encoded; NULL: none */
    const json_t *body; /* borrowed; NULL: none */
    bool endless;       /* may be silent for ever (following a log) */
};

/* Send, wait, parse. *ret_reply is the caller's; ret_reply may be NULL. */
int api_client_call(struct api_client *client, const struct api_call *call, json_t **ret_reply, struct err *err);

/* Give the daemon what can be read from fd: size_bytes of it, or to its end if -1. Where these are the whole of a
 * regular file, the open file is handed over and the daemon reads it; if it cannot, and otherwise, the bytes are the
 * body. */
int api_client_upload(struct api_client *client, const struct api_call *call, int fd, int64_t size_bytes,
                      api_progress_cb progress, void *ctx, json_t **ret_reply, struct err *err);

/* Give the bytes of the answer to `bytes`, which returns 0 or a negative code with err set, which ends it. A body that
 * is cut short is ERR_CLOSED. */
typedef int (*api_bytes_cb)(void *ctx, const void *data, size_t len_bytes, uint64_t total_bytes, struct err *err);
int api_client_download(struct api_client *client, const struct api_call *call, api_bytes_cb bytes, void *ctx,
                        struct err *err);

/* Give each event to `event` (borrowed), which returns 0 or a negative code with err set. The event "error" is not
 * given to it but ends the call with its code; a stream that ends without another last event is ERR_CLOSED: `last` is
 * the name that the last event must have. */
typedef int (*api_event_cb)(void *ctx, const json_t *event, struct err *err);
int api_client_events(struct api_client *client, const struct api_call *call, const char *last, api_event_cb event,
                      void *ctx, struct err *err);

/* The daemon's {"error": {...}} of the last failed call, borrowed until the next call; NULL if it did not come from
 * the daemon. */
const json_t *api_client_error(const struct api_client *client);
