#include "node/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#define BUF_FIRST_BYTES 64

void buf_init(struct buf *buf, size_t max_bytes)
{
    *buf = BUF(max_bytes);
}

void buf_release(struct buf *buf)
{
    free(buf->data);
    *buf = BUF(buf->max);
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

static int grow(struct buf *buf, size_t need)
{
    size_t cap = buf->cap ? buf->cap : BUF_FIRST_BYTES;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    uint8_t *data = realloc(buf->data, cap);
    if (!data)
        return ERR_NOMEM;
    buf->data = data;
    buf->cap = cap;
    return 0;
}

/* Room for `len` more bytes within the maximum. One byte beyond the maximum is allowed in capacity, for a NUL. */
static int make_room(struct buf *buf, size_t len)
{
    int status = 0;
    if (buf->len > buf->max || len > buf->max - buf->len)
        status = ERR_LIMIT;
    else if (buf->len + len > buf->cap)
        status = grow(buf, buf->len + len);
    if (status < 0)
        buf->failed = true;
    return status;
}

uint8_t *buf_reserve(struct buf *buf, size_t len_bytes)
{
    if (make_room(buf, len_bytes) < 0)
        return NULL;
    if (!buf->data && grow(buf, BUF_FIRST_BYTES) < 0) {
        buf->failed = true;
        return NULL;
    }
    return buf->data + buf->len;
}

int buf_add(struct buf *buf, const void *data, size_t len_bytes)
{
    int status = make_room(buf, len_bytes);
    if (status < 0 || len_bytes == 0)
        return status;
    memcpy(buf->data + buf->len, data, len_bytes);
    buf->len += len_bytes;
    return 0;
}

int buf_add_str(struct buf *buf, const char *text)
{
    return buf_add(buf, text, strlen(text));
}

int buf_addf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);

    int status = need < 0 ? ERR_INTERNAL : make_room(buf, (size_t)need);
    if (status == 0 && buf->cap < buf->len + (size_t)need + 1)
        status = grow(buf, buf->len + (size_t)need + 1);
    if (status == 0) {
        vsnprintf((char *)buf->data + buf->len, (size_t)need + 1, format, again);
        buf->len += (size_t)need;
    } else {
        buf->failed = true;
    }
    va_end(again);
    return status;
}

void buf_consume(struct buf *buf, size_t len_bytes)
{
    if (len_bytes >= buf->len) {
        buf->len = 0;
        return;
    }
    memmove(buf->data, buf->data + len_bytes, buf->len - len_bytes);
    buf->len -= len_bytes;
}

const char *buf_str(struct buf *buf)
{
    if (buf->cap < buf->len + 1 && grow(buf, buf->len + 1) < 0) {
        buf->failed = true;
        return NULL;
    }
    buf->data[buf->len] = '\0';
    return (const char *)buf->data;
}

uint8_t *buf_steal(struct buf *buf)
{
    uint8_t *data = buf->data;
    buf->data = NULL;
    buf_release(buf);
    return data;
}
