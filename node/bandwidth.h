/*
 * Limits on bandwidth as people write them: words like "up=10M" or "prefetch-down=512K", in the configuration, on the
 * command line and in the API alike. What they do is the exchange's (transfer/pace.h).
 *
 * A name is a way, "up" or "down", for all that is sent or received; "peer-up" and "peer-down" for each peer;
 * "freeze-", "volume-", "layer-" and "prefetch-" before a way for the transfers of a class. Bytes a second; 0: no
 * limit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "node/base/err.h"
#include "transfer/transfer.h"

#define BANDWIDTH_NAMES (2u * (2 + EXCHANGE_CLASSES))
#define BANDWIDTH_NAME_SIZE 16
#define BANDWIDTH_MAX (1ull << 50)

/* The name at `index` < BANDWIDTH_NAMES; returns `name`. */
const char *bandwidth_name(size_t index, char name[BANDWIDTH_NAME_SIZE]);
/* The limit of that name. */
uint64_t *bandwidth_of(struct exchange_limits *limits, size_t index);

/* "up", "10M" or "none". ERR_INVALID with a text for the user, and nothing is changed. */
int bandwidth_set(struct exchange_limits *limits, const char *name, const char *value, struct err *err);
/* "up=10M". */
int bandwidth_set_word(struct exchange_limits *limits, const char *word, struct err *err);
