/*
 * The wire cursor: every binary format of ours is read and written through it, big-endian.
 *
 * Reading never leaves the given bytes: the first read that would sets `failed`, and from then on every read gives
 * zeros and every borrowed pointer is NULL. A decoder reads all its fields and asks wire_done once.
 * Writing appends to a struct buf, whose own `failed` sticks in the same way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/id.h"

struct wire {
    const uint8_t *at;  /* borrowed: next byte */
    const uint8_t *end; /* one past the last */
    bool failed;
};

void wire_init(struct wire *wire, const void *data, size_t len_bytes);

uint8_t wire_get_u8(struct wire *wire);
uint16_t wire_get_u16(struct wire *wire);
uint32_t wire_get_u32(struct wire *wire);
uint64_t wire_get_u64(struct wire *wire);
/* 32 bytes; zeros after a failure. */
struct id wire_get_id(struct wire *wire);
/* Copy len_bytes out (zeros after a failure). */
void wire_get_copy(struct wire *wire, void *ret_data, size_t len_bytes);
/* Borrow len_bytes in place; NULL after a failure. */
const uint8_t *wire_get_bytes(struct wire *wire, size_t len_bytes);
/* A u16 length, then that many bytes, borrowed. More than max_bytes is a failure. *ret_len is 0 after a failure. */
const uint8_t *wire_get_short(struct wire *wire, size_t max_bytes, size_t *ret_len);
/* The same with a u32 length. */
const uint8_t *wire_get_long(struct wire *wire, size_t max_bytes, size_t *ret_len);

size_t wire_left(const struct wire *wire);
/* True when all was read, to the last byte, without a failure. */
bool wire_done(const struct wire *wire);

void wire_put_u8(struct buf *buf, uint8_t value);
void wire_put_u16(struct buf *buf, uint16_t value);
void wire_put_u32(struct buf *buf, uint32_t value);
void wire_put_u64(struct buf *buf, uint64_t value);
void wire_put_id(struct buf *buf, const struct id *id);
/* u16 length and bytes; more than 65,535 sets buf->failed. */
void wire_put_short(struct buf *buf, const void *data, size_t len_bytes);
void wire_put_long(struct buf *buf, const void *data, size_t len_bytes);

/* Plain big-endian loads and stores, for formats with fixed offsets. */
uint16_t wire_load_u16(const uint8_t *at);
uint32_t wire_load_u32(const uint8_t *at);
uint64_t wire_load_u64(const uint8_t *at);
void wire_store_u16(uint8_t *at, uint16_t value);
void wire_store_u32(uint8_t *at, uint32_t value);
void wire_store_u64(uint8_t *at, uint64_t value);
