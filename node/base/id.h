/*
 * Names: 256-bit ids (node ids, DHT keys, SHA-256 digests, chunk ids) and 128-bit GUIDs, and their text forms.
 *
 * Text from users and peers becomes one of these before it is used for anything; it never becomes a path or an
 * argument by itself. Parsers accept exactly one spelling: lower-case hex, full length, nothing around it.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ID_BYTES 32
#define ID_HEX_SIZE (2 * ID_BYTES + 1)     /* with the NUL */
#define DIGEST_TEXT_SIZE (7 + ID_HEX_SIZE) /* "sha256:" and hex and NUL */
#define GUID_BYTES 16
#define GUID_TEXT_SIZE 37 /* 8-4-4-4-12 and NUL, RFC 4122 section 3 */

struct id {
    uint8_t b[ID_BYTES];
};

struct guid {
    uint8_t b[GUID_BYTES];
};

static inline bool id_equal(const struct id *a, const struct id *b)
{
    return memcmp(a->b, b->b, ID_BYTES) == 0;
}

/* Order as 256-bit big-endian numbers: <0, 0, >0. Ids are hashes: of two the first 8 bytes nearly always decide. */
static inline int id_compare(const struct id *a, const struct id *b)
{
    uint64_t x, y;
    memcpy(&x, a->b, sizeof x);
    memcpy(&y, b->b, sizeof y);
    if (x != y)
        return be64toh(x) < be64toh(y) ? -1 : 1;
    return memcmp(a->b, b->b, ID_BYTES);
}

bool id_is_zero(const struct id *id);

/* 64 lower-case hex digits into `text` (ID_HEX_SIZE bytes); returns `text`. */
const char *id_hex(const struct id *id, char text[ID_HEX_SIZE]);
/* The first 12 hex digits: how people are shown a node or an object. */
#define ID_SHORT_SIZE 13
const char *id_short(const struct id *id, char text[ID_SHORT_SIZE]);
/* True and *ret_id set if `text` is exactly 64 lower-case hex digits. */
bool id_parse_hex(const char *text, struct id *ret_id);

/* "sha256:<hex>" */
const char *digest_text(const struct id *digest, char text[DIGEST_TEXT_SIZE]);
/* True and set for exactly "sha256:" and 64 lower-case hex digits, as the OCI image spec writes digests. */
bool digest_parse(const char *text, struct id *ret_digest);

const char *guid_text(const struct guid *guid, char text[GUID_TEXT_SIZE]);
/* True and set for exactly 8-4-4-4-12 lower-case hex digits. */
bool guid_parse(const char *text, struct guid *ret_guid);

/* Any number of bytes to and from lower-case hex. `text` has room for 2 * len + 1. */
void hex_encode(const uint8_t *data, size_t len_bytes, char *text);
bool hex_decode(const char *text, size_t text_len, uint8_t *ret_data, size_t len_bytes);

/* A name that users give to containers, images, users and nodes: 1 to NAME_MAX_BYTES of [A-Za-z0-9._-], and for
 * images also [/:@]; the first character is a letter or digit; no ".." anywhere. */
#define NAME_MAX_BYTES 255
bool name_is_valid(const char *text);
bool image_name_is_valid(const char *text);
