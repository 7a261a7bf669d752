/*
 * JSON from strangers, strictly: no duplicate names, bounded size, depth and number of values, UTF-8 without NUL (which
 * jansson checks). Inside image only. Getters take what is absent as absent and what is of another type as an error.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/id.h"

static inline void owned_json(json_t **json)
{
    json_decref(*json);
}

/* One object or array. `what` names the document in errors. ERR_LIMIT for size, depth, count; ERR_INVALID. */
int image_json_load(const void *data, size_t len_bytes, const char *what, json_t **ret_json, struct err *err);
/* Canonical: sorted names, no spaces, appended to buf. */
int image_json_dump(const json_t *json, struct buf *buf, struct err *err);

/* 1 and borrowed, or 0 if it is absent or null. ERR_INVALID for another type. */
int image_json_string(const json_t *object, const char *name, const char **ret_text, struct err *err);
int image_json_array(const json_t *object, const char *name, const json_t **ret_array, struct err *err);
int image_json_object(const json_t *object, const char *name, const json_t **ret_object, struct err *err);
/* The same, but 0 is ERR_INVALID too. */
int image_json_need_string(const json_t *object, const char *name, const char **ret_text, struct err *err);
int image_json_need_array(const json_t *object, const char *name, const json_t **ret_array, struct err *err);
/* "sha256:<64 lower-case hex digits>" and nothing else (faults 40). */
int image_json_need_digest(const json_t *object, const char *name, struct id *ret_digest, struct err *err);
/* A whole number from 1 to max. */
int image_json_need_size(const json_t *object, const char *name, uint64_t max, uint64_t *ret_size, struct err *err);
