/*
 * Providers: the names under which nodes say what they have, as people write them, and the nodes that a read of the
 * DHT names, ranked by a policy.
 */
#pragma once

#include "node/mesh/content.h"
#include "node/mesh/policy.h"

struct provider_key {
    enum dht_kind kind;
    struct id key; /* of the DHT */
};

/* The key of
 *
 *   cmig:object:sha256:HEX   cmig:volume:GUID   cmig:service:TAG USER   cmig:app:TAG   cmig:image:NAME cmig:route:NAME
 *
 * or of a digest, a GUID, "TAG USER" or an image tag alone, which then is an app. ERR_INVALID with a text for the
 * user. */
int providers_parse(const char *text, struct provider_key *ret_key, struct err *err);
/* Does it begin with "cmig:", as no set by hand may? */
bool providers_is_key(const char *text);

/* What is known of those that were found, ourselves left out, best first; `ret_candidates` has room for `count`, and
 * `index` tells which of `found` each is. Returns how many. */
size_t providers_rank(const struct content *content, struct mesh *mesh, const struct policy *policy,
                      const struct dht_found *found, size_t count, struct policy_candidate *ret_candidates);
