/*
 * What a user asks for when he runs a container: the request's JSON made into a spec for the runtime, and containers
 * made into the JSON that the API shows. Pure: no disk, no loop.
 */
#pragma once

#include <jansson.h>

#include "node/runtime/runtime.h"

/* The body of POST /v1/containers (API_FIELDS_CONTAINER_SPEC), strictly. What the image's config is to fill in is left
 * open; a container without a name gets one that begins with its image's. ERR_INVALID names the field. Release the
 * spec with runtime_spec_release. */
int spec_from_request(const json_t *body, struct runtime_spec *ret_spec, struct err *err);

/* API_FIELDS_CONTAINER; NULL when out of memory. */
json_t *spec_container_to_json(const struct runtime_container *container);

/* "2026-03-01T12:00:00Z" (RFC 3339) of milliseconds since 1970; returns `text`. */
#define SPEC_TIME_SIZE 32
const char *spec_time(uint64_t wall_ms, char text[SPEC_TIME_SIZE]);
