/*
 * The spec of a container: what is allowed in one, copies of it, and its JSON (runtime.h has the public part).
 */
#pragma once

#include <stdbool.h>

#include "node/runtime/runtime.h"

/* Users of containers live in a user namespace of this many ids (config.c). */
#define SPEC_MAX_UID 65535

/* Where the container finds what is ours; no volume may lie there. */
#define SPEC_OWN_DIR "/.cmig"

/* ERR_INVALID says what is wrong. A whole spec has a manifest, arguments and a working directory. */
int runtime_spec_check(const struct runtime_spec *spec, bool whole, struct err *err);

/* Deep copy; *ret_spec needs no release on failure. */
int runtime_spec_copy(const struct runtime_spec *spec, struct runtime_spec *ret_spec, struct err *err);

/* Append a copy of `text`, at most RUNTIME_MAX_STRINGS in all. */
int runtime_strings_add(struct runtime_strings *strings, const char *text, struct err *err);
void runtime_strings_release(struct runtime_strings *strings);
