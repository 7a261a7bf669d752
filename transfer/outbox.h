/*
 * Bytes that wait for a stream, in blocks that never move: what was lent to a write stays where it is while more is
 * added. Owns the blocks; does not limit how much waits, its user does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transfer/transfer.h"

/* The most that one reservation may ask for: two full frames fit a block. */
#define OUTBOX_BLOCK_BYTES (2 * (32768 + 128))

struct outbox_block;

struct outbox {
    struct outbox_block *first; /* owned */
    struct outbox_block *last;  /* in the list of first */
    struct outbox_block
        *spare; /* owned; emptied ones: free and malloc would give the pages back and fetch them again */
    size_t waiting_bytes;
};

/* Zeroed is empty. */
void transfer_outbox_release(struct outbox *box);
/* Free the blocks that wait for use. */
void transfer_outbox_trim(struct outbox *box);

/* Where the next `need_bytes` go, which the caller writes and then adds with transfer_outbox_added. NULL: no memory. */
uint8_t *transfer_outbox_reserve(struct outbox *box, size_t need_bytes);
void transfer_outbox_added(struct outbox *box, size_t len_bytes);

/* The longest piece that can be written now; borrowed until it is taken. False when nothing waits. */
bool transfer_outbox_next(const struct outbox *box, const uint8_t **ret_data, size_t *ret_len_bytes);
/* That piece and those after it, at most `max`. Returns how many. */
size_t transfer_outbox_list(const struct outbox *box, struct session_piece *ret_pieces, size_t max);
/* The first len_bytes of all that waits are written. */
void transfer_outbox_taken(struct outbox *box, size_t len_bytes);
