#include "transfer/outbox.h"

#include <stdlib.h>

/* A control message that is alone in the box does not need a large block. */
#define SMALL_BLOCK_BYTES 2048u

struct outbox_block {
    struct outbox_block *next; /* owned */
    size_t start;              /* first byte not yet taken */
    size_t end;
    size_t cap;
    uint8_t data[];
};

static void free_list(struct outbox_block **list)
{
    while (*list) {
        struct outbox_block *block = *list;
        *list = block->next;
        free(block);
    }
}

void transfer_outbox_release(struct outbox *box)
{
    free_list(&box->first);
    free_list(&box->spare);
    *box = (struct outbox){0};
}

void transfer_outbox_trim(struct outbox *box)
{
    free_list(&box->spare);
}

static struct outbox_block *take_spare(struct outbox *box)
{
    struct outbox_block *block = box->spare;
    if (block)
        box->spare = block->next;
    return block;
}

static struct outbox_block *add_block(struct outbox *box, size_t need)
{
    size_t cap = need <= SMALL_BLOCK_BYTES && !box->first ? SMALL_BLOCK_BYTES : OUTBOX_BLOCK_BYTES;
    struct outbox_block *block = cap == OUTBOX_BLOCK_BYTES ? take_spare(box) : NULL;
    if (!block)
        block = malloc(sizeof *block + cap);
    if (!block)
        return NULL;
    *block = (struct outbox_block){.cap = cap};
    if (box->last)
        box->last->next = block;
    else
        box->first = block;
    box->last = block;
    return block;
}

uint8_t *transfer_outbox_reserve(struct outbox *box, size_t need_bytes)
{
    struct outbox_block *block = box->last;
    if (!block || block->cap - block->end < need_bytes)
        block = add_block(box, need_bytes);
    return block ? block->data + block->end : NULL;
}

void transfer_outbox_added(struct outbox *box, size_t len_bytes)
{
    box->last->end += len_bytes;
    box->waiting_bytes += len_bytes;
}

bool transfer_outbox_next(const struct outbox *box, const uint8_t **ret_data, size_t *ret_len_bytes)
{
    const struct outbox_block *block = box->first;
    if (!block || block->start == block->end)
        return false;
    *ret_data = block->data + block->start;
    *ret_len_bytes = block->end - block->start;
    return true;
}

size_t transfer_outbox_list(const struct outbox *box, struct session_piece *ret_pieces, size_t max)
{
    size_t n = 0;
    for (const struct outbox_block *block = box->first; block && n < max && block->start < block->end;
         block = block->next)
        ret_pieces[n++] = (struct session_piece){block->data + block->start, block->end - block->start};
    return n;
}

static void drop_first(struct outbox *box)
{
    struct outbox_block *block = box->first;
    box->first = block->next;
    if (!box->first)
        box->last = NULL;
    if (block->cap < OUTBOX_BLOCK_BYTES) {
        free(block);
        return;
    }
    block->next = box->spare;
    box->spare = block;
}

void transfer_outbox_taken(struct outbox *box, size_t len_bytes)
{
    box->waiting_bytes -= len_bytes;
    while (len_bytes > 0) {
        struct outbox_block *block = box->first;
        size_t part = block->end - block->start < len_bytes ? block->end - block->start : len_bytes;
        block->start += part;
        len_bytes -= part;
        if (block->start == block->end)
            drop_first(box);
    }
}
