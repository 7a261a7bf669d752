#include "node/base/wire.h"

#include <string.h>

void wire_init(struct wire *wire, const void *data, size_t len_bytes)
{
    static const uint8_t nothing[1];
    const uint8_t *start = data ? data : nothing;
    *wire = (struct wire){.at = start, .end = start + len_bytes};
}

const uint8_t *wire_get_bytes(struct wire *wire, size_t len_bytes)
{
    if (wire->failed || len_bytes > wire_left(wire)) {
        wire->failed = true;
        return NULL;
    }
    const uint8_t *bytes = wire->at;
    wire->at += len_bytes;
    return bytes;
}

uint8_t wire_get_u8(struct wire *wire)
{
    const uint8_t *bytes = wire_get_bytes(wire, 1);
    return bytes ? bytes[0] : 0;
}

uint16_t wire_get_u16(struct wire *wire)
{
    const uint8_t *bytes = wire_get_bytes(wire, 2);
    return bytes ? wire_load_u16(bytes) : 0;
}

uint32_t wire_get_u32(struct wire *wire)
{
    const uint8_t *bytes = wire_get_bytes(wire, 4);
    return bytes ? wire_load_u32(bytes) : 0;
}

uint64_t wire_get_u64(struct wire *wire)
{
    const uint8_t *bytes = wire_get_bytes(wire, 8);
    return bytes ? wire_load_u64(bytes) : 0;
}

void wire_get_copy(struct wire *wire, void *ret_data, size_t len_bytes)
{
    const uint8_t *bytes = wire_get_bytes(wire, len_bytes);
    if (bytes)
        memcpy(ret_data, bytes, len_bytes);
    else
        memset(ret_data, 0, len_bytes);
}

struct id wire_get_id(struct wire *wire)
{
    struct id id;
    wire_get_copy(wire, id.b, sizeof id.b);
    return id;
}

static const uint8_t *get_counted(struct wire *wire, size_t len, size_t max, size_t *ret_len)
{
    if (len > max)
        wire->failed = true;
    const uint8_t *bytes = wire_get_bytes(wire, len);
    *ret_len = bytes ? len : 0;
    return bytes;
}

const uint8_t *wire_get_short(struct wire *wire, size_t max_bytes, size_t *ret_len)
{
    return get_counted(wire, wire_get_u16(wire), max_bytes, ret_len);
}

const uint8_t *wire_get_long(struct wire *wire, size_t max_bytes, size_t *ret_len)
{
    return get_counted(wire, wire_get_u32(wire), max_bytes, ret_len);
}

size_t wire_left(const struct wire *wire)
{
    return (size_t)(wire->end - wire->at);
}

bool wire_done(const struct wire *wire)
{
    return !wire->failed && wire->at == wire->end;
}

void wire_put_u8(struct buf *buf, uint8_t value)
{
    buf_add(buf, &value, 1);
}

void wire_put_u16(struct buf *buf, uint16_t value)
{
    uint8_t bytes[2];
    wire_store_u16(bytes, value);
    buf_add(buf, bytes, sizeof bytes);
}

void wire_put_u32(struct buf *buf, uint32_t value)
{
    uint8_t bytes[4];
    wire_store_u32(bytes, value);
    buf_add(buf, bytes, sizeof bytes);
}

void wire_put_u64(struct buf *buf, uint64_t value)
{
    uint8_t bytes[8];
    wire_store_u64(bytes, value);
    buf_add(buf, bytes, sizeof bytes);
}

void wire_put_id(struct buf *buf, const struct id *id)
{
    buf_add(buf, id->b, sizeof id->b);
}

void wire_put_short(struct buf *buf, const void *data, size_t len_bytes)
{
    if (len_bytes > UINT16_MAX) {
        buf->failed = true;
        return;
    }
    wire_put_u16(buf, (uint16_t)len_bytes);
    buf_add(buf, data, len_bytes);
}

void wire_put_long(struct buf *buf, const void *data, size_t len_bytes)
{
    if (len_bytes > UINT32_MAX) {
        buf->failed = true;
        return;
    }
    wire_put_u32(buf, (uint32_t)len_bytes);
    buf_add(buf, data, len_bytes);
}

uint16_t wire_load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

uint32_t wire_load_u32(const uint8_t *at)
{
    return (uint32_t)wire_load_u16(at) << 16 | wire_load_u16(at + 2);
}

uint64_t wire_load_u64(const uint8_t *at)
{
    return (uint64_t)wire_load_u32(at) << 32 | wire_load_u32(at + 4);
}

void wire_store_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

void wire_store_u32(uint8_t *at, uint32_t value)
{
    wire_store_u16(at, (uint16_t)(value >> 16));
    wire_store_u16(at + 2, (uint16_t)value);
}

void wire_store_u64(uint8_t *at, uint64_t value)
{
    wire_store_u32(at, (uint32_t)(value >> 32));
    wire_store_u32(at + 4, (uint32_t)value);
}
