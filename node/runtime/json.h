/*
 * Strict reading of JSON objects, in the manner of base/wire.h: a decoder asks for all its fields and asks once, at the
 * end, whether they were all right. The first thing that is wrong sticks; from then on every get gives nothing. A key
 * that is absent gives the zero value of its type, so what must be there is checked by its value.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"

struct runtime_json {
    const json_t *object; /* borrowed */
    const char *what;     /* borrowed: "container", for messages */
    size_t known;         /* keys of the object that were asked for */
    int status;
    struct err *err;
};

void runtime_json_init(struct runtime_json *json, const json_t *object, const char *what, struct err *err);

/* Borrowed from the object; "" if absent. Longer than max_bytes is an error. */
const char *runtime_json_text(struct runtime_json *json, const char *key, size_t max_bytes);
/* 0 to max. */
uint64_t runtime_json_u64(struct runtime_json *json, const char *key, uint64_t max);
bool runtime_json_bool(struct runtime_json *json, const char *key);
/* Borrowed; NULL if absent. */
const json_t *runtime_json_object(struct runtime_json *json, const char *key);
const json_t *runtime_json_array(struct runtime_json *json, const char *key, size_t max_items);

/* ERR_INVALID if anything was wrong, or if the object has a key that nobody asked for. */
int runtime_json_done(struct runtime_json *json);
