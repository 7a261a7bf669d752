/*
 * Which route a request means: the method and the raw target (path and query, still percent-encoded) against the
 * table of routes. No sockets and no library here; the bytes are the client's.
 *
 * A path is split at '/' first and its segments decoded afterwards, so that an encoded slash is part of a name.
 * Encoded NULs, broken escapes, empty segments, "." and ".." are refused (faults 95).
 */
#pragma once

#include <stddef.h>

#include "node/api/http.h"
#include "node/base/limits.h"

/* A request's target taken apart. Zero-initialised; owns what it points to. */
struct api_target {
    char *text;                                    /* owned: decoded segments and query, each NUL-terminated */
    const char *segments[LIMIT_API_PATH_SEGMENTS]; /* into text */
    size_t segment_count;
    struct {
        const char *name, *value; /* into text */
    } query[LIMIT_API_QUERY_FIELDS];
    size_t query_count;
    const struct api_route *route; /* borrowed from the table */
};

void api_target_release(struct api_target *target);

/* Take `raw` apart. ERR_INVALID, ERR_LIMIT (too long, too many parts) or ERR_NOMEM. */
int api_target_parse(const char *raw, struct api_target *target, struct err *err);

/* Set target->route. ERR_NOTFOUND if no route has that path, ERR_UNSUPPORTED if one has, but not for this method;
 * then `allow` gets the methods that there are, as the Allow header wants them ("GET, PUT"). */
#define API_ALLOW_SIZE 64
int api_target_route(struct api_target *target, const char *method, const struct api_route *routes, size_t route_count,
                     char allow[API_ALLOW_SIZE], struct err *err);

/* Decoded, borrowed; NULL if there is none. */
const char *api_target_param(const struct api_target *target, const char *name);
const char *api_target_query(const struct api_target *target, const char *name);
