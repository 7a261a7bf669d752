/*
 * A growable byte buffer with a maximum: whatever a peer, file or user can make grow is one of these.
 *
 * 1. `len` never passes `max`; an append that would fails with ERR_LIMIT and changes nothing.
 * 2. A failed append sets `failed`, which sticks until buf_clear: a writer of many fields checks once, at the end.
 * 3. Data pointers are borrowed and live until the next call that may grow, consume or release the buffer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned */
    size_t len;
    size_t cap;
    size_t max;
    bool failed;
};

/* An empty buffer that will hold at most max_bytes. Allocates nothing. */
void buf_init(struct buf *buf, size_t max_bytes);
#define BUF(max_bytes) ((struct buf){.max = (max_bytes)})

/* Free the memory; the buffer may be used again, with the same maximum. Safe on a zeroed struct. */
void buf_release(struct buf *buf);

/* Length 0, no failure; keeps the memory. */
void buf_clear(struct buf *buf);

/* Append. Returns 0, ERR_LIMIT or ERR_NOMEM; on failure nothing is appended and buf->failed is set. */
int buf_add(struct buf *buf, const void *data, size_t len_bytes);
int buf_add_str(struct buf *buf, const char *text);
int buf_addf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for len_bytes more at buf->data + buf->len; the caller fills it and adds to buf->len. NULL on failure. */
uint8_t *buf_reserve(struct buf *buf, size_t len_bytes);

/* Drop the first len_bytes (at most buf->len). */
void buf_consume(struct buf *buf, size_t len_bytes);

/* The content as a NUL-terminated string (the NUL is not counted in len). NULL if there is no room for it. */
const char *buf_str(struct buf *buf);

/* Give the memory to the caller (free it with free) and leave the buffer empty. NULL if nothing was added. */
uint8_t *buf_steal(struct buf *buf);
