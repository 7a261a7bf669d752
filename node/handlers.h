/*
 * The handlers of the local API, one for each row of API_ROUTES (docs/api.md says what they take and give).
 *
 * handlers.c has the table, the node itself and its peers; handlers_object.c, handlers_registry.c, handlers_image.c,
 * handlers_container.c, handlers_migrate.c and handlers_volume.c their subjects. They own nothing between requests.
 * What blocks goes through node_answer_from_job, upload.h or download.h.
 */
#pragma once

#include "node/api/json.h"
#include "node/base/scope.h"
#include "node/handlers_move.h"
#include "node/node.h"

/* A row without a handler does not link. */
#define X(name, method, path, body) void handlers_##name(void *node, struct api_request *req);
API_ROUTES(X)
#undef X

/* node_answer_from_job with another status than 200. */
void handlers_answer(struct node *node, struct api_request *req, unsigned status, node_work_cb work, void *arg,
                     void (*free_arg)(void *arg));
/* Answer with an error of this text. */
void handlers_refuse(struct api_request *req, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The digest in the path; false: refused. */
bool handlers_digest(struct api_request *req, struct id *ret_digest);
/* A query parameter that is 0 or 1, missing is 0. ERR_INVALID. */
int handlers_query_flag(const struct api_request *req, const char *name, bool *ret_yes, struct err *err);
