/*
 * A real node that lies: all of cmig-node, with what it says to its neighbours about objects changed on its way out.
 *
 * The linker puts __wrap_link_send in the place of link_send. $CMIG_LIE names what is done, see LIES; everything else,
 * from joining to the control socket, is the daemon's, so that a liar is started, asked and stopped as any node is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/scope.h"
#include "node/net/link.h"
#include "transfer/message.h"

#define HONEST_PIECES 8u /* given by one who stalls, before it does */
#define STRAYS 3u        /* for each message of one who floods */

int __real_link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body,
                     size_t body_bytes, struct err *err);
int __wrap_link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body,
                     size_t body_bytes, struct err *err);

/* Change the message, whose list is the caller's to write to and has room for a byte more. False: it is not sent. */
typedef bool (*lie_fn)(struct link *link, struct message *message, uint8_t *items);

static int say(struct link *link, const struct message *message)
{
    uint8_t head[MESSAGE_HEAD_BYTES];
    size_t len = transfer_message_encode(message, head);
    return __real_link_send(link, (uint8_t)message->type, head, len, message->items,
                            message->n_items * transfer_message_item_bytes(message->type), NULL);
}

static bool is_piece(const struct message *message)
{
    return message->type == MESSAGE_CHUNK || message->type == MESSAGE_MORE;
}

/* faults 33, 34 */
static bool flip_a_bit(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    if (is_piece(message))
        items[message->n_items / 2] ^= 1;
    return true;
}

static bool name_another_index(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    (void)items;
    message->index ^= message->type == MESSAGE_CHUNK;
    return true;
}

static bool leave_out_a_byte(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    (void)items;
    if (message->type != MESSAGE_CHUNK || message->n_items < 2)
        return true;
    message->n_items--;
    message->stored_bytes--;
    message->raw_bytes--;
    return true;
}

static bool add_a_byte(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    if (message->type != MESSAGE_CHUNK || message->n_items >= SESSION_FRAME_BYTES - 32)
        return true;
    items[message->n_items++] = 0;
    message->stored_bytes++;
    message->raw_bytes++;
    return true;
}

/* faults 30: blocks of equal bytes without end, in a frame that wants all the window there is. */
static bool send_a_bomb(struct link *link, struct message *message, uint8_t *items)
{
    static const uint8_t HEAD[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8};
    static const uint8_t BLOCK[] = {0x02, 0x00, 0x10, 0x41}; /* not the last, repeated, 128 KiB of 'A' */
    (void)link;
    if (!is_piece(message))
        return true;
    size_t at = 0;
    if (message->type == MESSAGE_CHUNK && message->n_items >= sizeof HEAD) {
        message->encoding = STORE_ZSTD;
        memcpy(items, HEAD, at = sizeof HEAD);
    }
    for (; at + sizeof BLOCK <= message->n_items; at += sizeof BLOCK)
        memcpy(items + at, BLOCK, sizeof BLOCK);
    return true;
}

/* faults 35 */
static bool stall(struct link *link, struct message *message, uint8_t *items)
{
    static unsigned given; /* of this process; the wrapped function has no place to keep it */
    (void)link;
    (void)items;
    given += message->type == MESSAGE_CHUNK;
    return !is_piece(message) || given <= HONEST_PIECES;
}

static bool say_gone(struct link *link, struct message *message, uint8_t *items)
{
    (void)items;
    if (message->type == MESSAGE_CHUNK)
        say(link, &(struct message){.type = MESSAGE_GONE, .request = message->request});
    return !is_piece(message);
}

/* Has everything, gives nothing. */
static bool claim(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    if (message->type == MESSAGE_HAVE_NOT)
        *message = (struct message){.type = MESSAGE_HAVE, .object = message->object, .root = message->object};
    if (message->type == MESSAGE_HAVE)
        message->flags = MESSAGE_HAVE_WHOLE;
    if (message->type == MESSAGE_MAP_IS && message->n_items > 0)
        memset(items, 0xff, message->n_items);
    return !is_piece(message);
}

static bool deal_badly(struct link *link, struct message *message, uint8_t *items)
{
    (void)link;
    (void)items;
    if (message->type == MESSAGE_DEALT) {
        message->first += 100000;
        message->count = MESSAGE_PIECES_MAX;
    }
    return true;
}

/* faults 37 */
static bool flood(struct link *link, struct message *message, uint8_t *items)
{
    static const uint8_t JUNK[1000];
    (void)items;
    for (uint32_t i = 0; i < STRAYS && is_piece(message); i++)
        say(link, &(struct message){.type = MESSAGE_CHUNK,
                                    .request = 0xdead0000 + message->index + i,
                                    .index = message->index,
                                    .stored_bytes = sizeof JUNK,
                                    .raw_bytes = sizeof JUNK,
                                    .items = JUNK,
                                    .n_items = sizeof JUNK});
    return true;
}

/* faults 21, 22, as far as a frame can still be one: too short for what it says to be. */
static bool send_malformed(struct link *link, struct message *message, uint8_t *items)
{
    if (!is_piece(message))
        return true;
    __real_link_send(link, MESSAGE_CHUNK, items, 3, NULL, 0, NULL);
    return false;
}

static const struct {
    const char *name;
    lie_fn lie;
} LIES[] = {
    {"bytes", flip_a_bit},
    {"index", name_another_index},
    {"short", leave_out_a_byte},
    {"long", add_a_byte},
    {"bomb", send_a_bomb},
    {"stall", stall},
    {"gone", say_gone},
    {"claims", claim},
    {"dealt", deal_badly},
    {"flood", flood},
    {"malformed", send_malformed},
};

static lie_fn chosen_lie(void)
{
    const char *name = getenv("CMIG_LIE");
    for (size_t i = 0; name && i < sizeof LIES / sizeof LIES[0]; i++) {
        if (strcmp(LIES[i].name, name) == 0)
            return LIES[i].lie;
    }
    fprintf(stderr, "$CMIG_LIE names no lie: \"%s\"\n", name ? name : "");
    abort();
}

int __wrap_link_send(struct link *link, uint8_t type, const void *head, size_t head_bytes, const void *body,
                     size_t body_bytes, struct err *err)
{
    lie_fn lie = chosen_lie();
    OWNED(owned_free) uint8_t *whole = malloc(head_bytes + body_bytes + 1);
    struct message message;
    if (type >= SESSION_TYPE_APP || !whole)
        return __real_link_send(link, type, head, head_bytes, body, body_bytes, err);
    if (head_bytes > 0)
        memcpy(whole, head, head_bytes);
    if (body_bytes > 0)
        memcpy(whole + head_bytes, body, body_bytes);
    if (transfer_message_decode(type, whole, head_bytes + body_bytes, &message, err) < 0)
        return err->code;
    return lie(link, &message, whole + head_bytes) ? say(link, &message) : 0;
}
