/*
 * Calls: a question to another node and its one answer, over links. Payloads are opaque here.
 *
 * 1. Every call ends in exactly one callback: an answer, a refusal, the deadline, or the end of the link.
 * 2. An answer may come later than the request's callback returns; a request that nobody answered when its link ends is
 *    forgotten, and answering it then is harmless.
 * Wire format (message types CALL_REQUEST and CALL_REPLY): docs/protocol.md, "Calls".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/net/link.h"

#define CALL_REQUEST (SESSION_TYPE_APP + 0)
#define CALL_REPLY (SESSION_TYPE_APP + 1)
#define CALL_METHOD_MAX 32

struct calls;
struct call_request; /* one that came in and wants an answer */

/* `data` lives until the callback returns. Errors of the other node arrive with its code and text. */
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

/* `method` is a word of at most CALL_METHOD_MAX characters. On failure the callback does not come. */
int calls_send(struct calls *calls, struct link *link, const char *method, const void *data, size_t len_bytes,
               uint64_t timeout_ms, call_reply_cb reply, void *ctx, struct err *err);
/* Forget all calls with this ctx: their callbacks do not come. */
void calls_cancel(struct calls *calls, const void *ctx);

void call_reply(struct call_request *request, const void *data, size_t len_bytes);
void call_refuse(struct call_request *request, const struct err *err);
