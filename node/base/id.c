#include "node/base/id.h"

#include <ctype.h>
#include <string.h>

static const char digest_prefix[] = "sha256:";

bool id_is_zero(const struct id *id)
{
    static const struct id zero;
    return id_equal(id, &zero);
}

void hex_encode(const uint8_t *data, size_t len_bytes, char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len_bytes; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    text[2 * len_bytes] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool hex_decode(const char *text, size_t text_len, uint8_t *ret_data, size_t len_bytes)
{
    if (text_len != 2 * len_bytes)
        return false;
    for (size_t i = 0; i < len_bytes; i++) {
        int high = hex_value(text[2 * i]);
        int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret_data[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

const char *id_hex(const struct id *id, char text[ID_HEX_SIZE])
{
    hex_encode(id->b, ID_BYTES, text);
    return text;
}

const char *id_short(const struct id *id, char text[ID_SHORT_SIZE])
{
    hex_encode(id->b, ID_SHORT_SIZE / 2, text);
    return text;
}

bool id_parse_hex(const char *text, struct id *ret_id)
{
    struct id id;
    if (!hex_decode(text, strlen(text), id.b, ID_BYTES))
        return false;
    *ret_id = id;
    return true;
}

const char *digest_text(const struct id *digest, char text[DIGEST_TEXT_SIZE])
{
    memcpy(text, digest_prefix, sizeof digest_prefix - 1);
    hex_encode(digest->b, ID_BYTES, text + sizeof digest_prefix - 1);
    return text;
}

bool digest_parse(const char *text, struct id *ret_digest)
{
    if (strncmp(text, digest_prefix, sizeof digest_prefix - 1) != 0)
        return false;
    return id_parse_hex(text + sizeof digest_prefix - 1, ret_digest);
}

/* Bytes before each hyphen of a GUID: 4-2-2-2-6. */
static const uint8_t guid_groups[] = {4, 2, 2, 2, 6};

const char *guid_text(const struct guid *guid, char text[GUID_TEXT_SIZE])
{
    const uint8_t *from = guid->b;
    char *to = text;
    for (size_t i = 0; i < sizeof guid_groups; i++) {
        hex_encode(from, guid_groups[i], to);
        from += guid_groups[i];
        to += 2 * guid_groups[i];
        *to++ = i + 1 < sizeof guid_groups ? '-' : '\0';
    }
    return text;
}

bool guid_parse(const char *text, struct guid *ret_guid)
{
    if (strlen(text) != GUID_TEXT_SIZE - 1)
        return false;
    struct guid guid;
    uint8_t *to = guid.b;
    for (size_t i = 0; i < sizeof guid_groups; i++) {
        if (!hex_decode(text, 2 * (size_t)guid_groups[i], to, guid_groups[i]))
            return false;
        to += guid_groups[i];
        text += 2 * guid_groups[i];
        if (i + 1 < sizeof guid_groups && *text++ != '-')
            return false;
    }
    *ret_guid = guid;
    return true;
}

static bool name_matches(const char *text, const char *also)
{
    size_t len = strnlen(text, NAME_MAX_BYTES + 1);
    if (len == 0 || len > NAME_MAX_BYTES || strstr(text, ".."))
        return false;
    if (!isalnum((unsigned char)text[0]))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x80 || (!isalnum(c) && !strchr(also, c)))
            return false;
    }
    return true;
}

bool name_is_valid(const char *text)
{
    return name_matches(text, "._-");
}

bool image_name_is_valid(const char *text)
{
    return name_matches(text, "._-/:@");
}
