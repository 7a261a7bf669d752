/*
 * How a newcomer gets in: a guest's link to a member, one call "admit", and the chain of certificates is kept.
 */
#pragma once

#include <uv.h>

#include "node/base/addr.h"
#include "node/base/err.h"
#include "node/identity/identity.h"

/* Join the cluster of an invitation through `peer`: an invitation, or HOST[:PORT] with `token` (may be NULL) as
 * invitation_find takes them. `name` is what this node calls itself, may be "". Runs the loop, at most 10 seconds (and
 * as long as the resolver takes); nothing of it is left on the loop afterwards. On success the identity is a member's
 * and *ret_member says where the member answered. ERR_INVALID: what was given cannot be read; ERR_AUTH: not admitted,
 * or the other side has not proven to be of the cluster; ERR_UNAVAILABLE, ERR_TIMEOUT: it does not answer. */
int admission_join(uv_loop_t *loop, struct identity *identity, const char *peer, const char *token, const char *name,
                   struct addr *ret_member, struct err *err);
