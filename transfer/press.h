/*
 * Compressing again for slow peers: chunks are kept as zstd frames of level 1, and where the link is slow enough, the
 * time for a better one is less than the time that sending it saves.
 *
 * Knows rates and what was gained so far; the work itself is the store's (store/compress.h).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of one peer. Zeroed is the beginning. */
struct press {
    unsigned skip_next; /* batches, after the next one that gains nothing */
    unsigned skip_left;
};

/* zstd's level for a peer that takes so many bytes a second; 0: as it is. Unknown rates (0) are fast. Counts the
 * batches that are skipped because those before gained nothing: ask once a batch. */
int transfer_press_level(struct press *press, uint64_t bytes_per_s);
/* A batch became so much shorter. */
void transfer_press_judge(struct press *press, size_t before_bytes, size_t after_bytes);
