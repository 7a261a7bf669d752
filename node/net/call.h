/*
 * Calls: a question to another node and its one answer, over links. Payloads are opaque here.
 *
 * 1. Every call ends in exactly one callback: an answer, a refusal, the deadline (ERR_TIMEOUT), or the end of the link
 *    (ERR_CLOSED, which means nothing else: a refusal of that code comes as ERR_UNAVAILABLE).
 * 2. An answer may come later than the request's callback returns, also after the end of its link: it is dropped then.
 * 3. LIMIT_CALL_REQUESTS may wait for answers, LIMIT_CALL_REQUESTS_PER_LINK of one peer; more are refused, ERR_BUSY.
 * Wire format (message types CALL_REQUEST and CALL_REPLY): docs/protocol.md, "Calls".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/limits.h"
#include "node/net/link.h"

#define CALL_REQUEST (SESSION_TYPE_APP + 0)
#define CALL_REPLY (SESSION_TYPE_APP + 1)
#define CALL_METHOD_MAX 32
#define CALL_MAX_BYTES (LIMIT_CONTROL_BYTES - 64) /* of a request or an answer; the rest is for its head */

struct calls;
struct call_request; /* one that came in and wants an answer */

/* `data` lives until the callback returns. Errors of the other node arrive with its code and text, in printable ASCII.
 */
typedef void (*call_reply_cb)(void *ctx, int status, const struct err *err, const uint8_t *data, size_t len_bytes);
/* Answer with call_reply or call_refuse, once, now or later. */
typedef void (*call_request_cb)(void *ctx, struct link *link, const char *method, const uint8_t *data, size_t len_bytes,
                                struct call_request *request);

int calls_new(struct clock clock, call_request_cb on_request, void *ctx, struct calls **ret_calls, struct err *err);
void calls_free(struct calls *calls);

/* A message of type CALL_REQUEST or CALL_REPLY. ERR_PROTOCOL: the link is to be ended. */
int calls_input(struct calls *calls, struct link *link, uint8_t type, const uint8_t *data, size_t len_bytes,
                struct err *err);
void calls_link_down(struct calls *calls, struct link *link, const char *why);
/* Deadlines; returns when to call again, monotonic ms, UINT64_MAX for never. */
uint64_t calls_tick(struct calls *calls);

/* `method` is a word of at most CALL_METHOD_MAX characters. On failure the callback does not come: ERR_CLOSED,
 * ERR_LIMIT for too many bytes, now waiting or in this call, ERR_INVALID. */
int calls_send(struct calls *calls, struct link *link, const char *method, const void *data, size_t len_bytes,
               uint64_t timeout_ms, call_reply_cb reply, void *ctx, struct err *err);
/* Forget all calls with this ctx: their callbacks do not come. */
void calls_cancel(struct calls *calls, const void *ctx);

/* More than CALL_MAX_BYTES become a refusal, ERR_LIMIT. */
void call_reply(struct call_request *request, const void *data, size_t len_bytes);
void call_refuse(struct call_request *request, const struct err *err);
