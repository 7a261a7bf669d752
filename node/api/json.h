/*
 * JSON from outside, read strictly: what is not exactly as documented is refused with a message that names the field.
 *
 * Values are jansson's; what a getter returns is borrowed from the object. All errors are ERR_INVALID unless said.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "node/base/scope.h"

OWNED_DEFINE(owned_json, json_t, json_decref)

/* Parse one object and nothing after it: UTF-8, no duplicate keys, no NUL in strings, at most LIMIT_JSON_DEPTH deep. */
int api_json_parse(const void *data, size_t len_bytes, json_t **ret_object, struct err *err);

/* Does the object hold no field besides those of `fields` (names between single spaces)? ERR_INVALID names the first
 * stranger, so a misspelt option is an error rather than ignored. */
int api_json_only(const json_t *object, const char *fields, struct err *err);
/* Does the object hold each of `fields`? For checking replies. */
int api_json_has(const json_t *object, const char *fields, struct err *err);

/* A field that is missing or null leaves the default. Strings must not be empty. */
int api_json_get_str(const json_t *object, const char *field, const char *fallback, const char **ret_text,
                     struct err *err);
int api_json_get_u64(const json_t *object, const char *field, uint64_t fallback, uint64_t max, uint64_t *ret_number,
                     struct err *err);
int api_json_get_bool(const json_t *object, const char *field, bool fallback, bool *ret_yes, struct err *err);
/* NULL if missing; ERR_INVALID if it is not an array of strings. */
int api_json_get_strings(const json_t *object, const char *field, const json_t **ret_array, struct err *err);
/* NULL if missing; ERR_INVALID if it is not an object whose values are strings. */
int api_json_get_map(const json_t *object, const char *field, const json_t **ret_object, struct err *err);

/* Leniently, for showing replies to people: "" or 0 where the field is missing or of another type. */
const char *api_json_text(const json_t *object, const char *field);
uint64_t api_json_number(const json_t *object, const char *field);
double api_json_real(const json_t *object, const char *field);

/* {"error": {"code", "message", "remedy"}}; remedy NULL takes the general one for the code. NULL when out of memory. */
json_t *api_json_error(const struct err *err, const char *remedy);
/* {"event": "error", "code", "message", "remedy"}: the last line of a stream that fails. NULL when out of memory. */
json_t *api_json_error_event(const struct err *err, const char *remedy);
/* What a user can do about an error of this code at a route (its path in the table, or NULL), as a clause; "" if there
 * is nothing to add to the message. Static. */
const char *api_error_remedy(int code, const char *path);
/* The HTTP status (RFC 9110) of an error code. */
unsigned api_error_status(int code);
