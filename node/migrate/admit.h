/* Can this node take a container? Asked before anything moves, so that a refusal costs nothing. */
#pragma once

#include "node/migrate/state.h"

/* `body` is the request "migrate.admit". 0, or why not: ERR_UNSUPPORTED, ERR_NOSPACE, ERR_EXISTS, ERR_INVALID. Blocks.
 */
int admit_check(struct migrate *migrate, const json_t *body, struct runtime_container **ret_container, struct err *err);
