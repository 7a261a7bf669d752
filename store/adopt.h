/*
 * Recipes that an assembly had written and not committed yet (assembly.h) when its process was killed or the power
 * failed: found whole in a pack that was left open, they become partial objects, and the chunks behind them are wanted.
 *
 * Leaves come before their root, in the same pack, with records of others in between at most. Which root is to be
 * adopted its record tells (is_ahead), and nothing that stands here is believed: each byte is checked by its digest.
 * Where the index knows the object, whole or partial, it is right. Used by recover.c only.
 */
#pragma once

#include "store/core.h"

/* Other writers may have put leaves of theirs in between, of which there is one for 100 chunks or more. */
#define STORE_ADOPT_LEAVES 64u

struct store_adopt_leaf {
    struct id id;
    uint64_t offset;
    uint32_t bytes;
};

struct store_adopt {
    struct store *store;                                /* borrowed */
    struct store_pack *pack;                            /* borrowed */
    struct store_adopt_leaf leaves[STORE_ADOPT_LEAVES]; /* that were seen last, in a ring */
    uint64_t seen;
};

void store_adopt_init(struct store_adopt *adopt, struct store *store, struct store_pack *pack);
/* A leaf or root that no row points to and that lies over none that one does, in the order of the pack. What is adopted
 * is durable. */
int store_adopt_look(struct store_adopt *adopt, const struct store_record *record, uint64_t offset, struct err *err);
