/*
 * Names of sets that are views of what nodes provide, read only: their members are node ids in hex.
 *
 *   cmig:object:sha256:<64 hex digits>    who has an object, by the score that each gives itself
 *   cmig:app:<image tag>                  who has a checkpoint of an image, likewise
 *   cmig:volume:<GUID>                    who has a writable volume, by the counter of its version
 *   cmig:service:<image tag> <user>       who has a service of a user, likewise
 *
 * and the other names of node/mesh/providers.h that begin so, by score.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "node/base/id.h"

#define VIEW_PREFIX "cmig:"

struct view {
    struct id key;   /* of the DHT */
    bool by_version; /* scores are the counters of versions */
};

/* Does the name begin as those of views do? */
bool view_is_meant(const char *name, size_t name_len);
/* False: it is none of the above. */
bool view_parse(const char *name, size_t name_len, struct view *ret_view);
