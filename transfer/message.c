#include "transfer/message.h"

#include <string.h>

#include "node/base/limits.h"
#include "node/base/wire.h"
#include "store/store.h"
#include "transfer/transfer.h"

enum field {
    FIELD_NONE,
    REQUEST,
    OBJECT,
    ROOT,
    SIZE,
    FLAGS,
    PIECE,
    ENCODING,
    INDEX,
    FIRST,
    COUNT,
    STORED,
    RAW,
    RETRY,
    BASIS,
    CLASS,
    LOAD,
    PRICE,
    CODEC,
    N_FIELDS
};

#define FIELDS_MAX 6

/* Where a field lives in struct message and how many bytes it takes there and on the wire. */
static const struct {
    size_t offset;
    size_t bytes;
} FIELDS[N_FIELDS] = {
    [REQUEST] = {offsetof(struct message, request), 4},     [OBJECT] = {offsetof(struct message, object), ID_BYTES},
    [ROOT] = {offsetof(struct message, root), ID_BYTES},    [SIZE] = {offsetof(struct message, size_bytes), 8},
    [FLAGS] = {offsetof(struct message, flags), 1},         [PIECE] = {offsetof(struct message, piece), 1},
    [ENCODING] = {offsetof(struct message, encoding), 1},   [INDEX] = {offsetof(struct message, index), 4},
    [FIRST] = {offsetof(struct message, first), 4},         [COUNT] = {offsetof(struct message, count), 4},
    [STORED] = {offsetof(struct message, stored_bytes), 4}, [RAW] = {offsetof(struct message, raw_bytes), 4},
    [RETRY] = {offsetof(struct message, retry_ms), 4},      [BASIS] = {offsetof(struct message, basis), ID_BYTES},
    [CLASS] = {offsetof(struct message, class), 1},         [LOAD] = {offsetof(struct message, load), 1},
    [PRICE] = {offsetof(struct message, price), 4},         [CODEC] = {offsetof(struct message, codec), 1},
};

struct row {
    const char *name;
    enum field fields[FIELDS_MAX];
    size_t item_bytes; /* 0: no list */
    size_t items_min;
    size_t items_max;
};

static const struct row ROWS[] = {
    [MESSAGE_WANT] = {"want", {OBJECT}, 0, 0, 0},
    [MESSAGE_HAVE] = {"have", {OBJECT, ROOT, SIZE, FLAGS, LOAD, PRICE}, 0, 0, 0},
    [MESSAGE_HAVE_NOT] = {"have-not", {OBJECT}, 0, 0, 0},
    [MESSAGE_HAVE_MORE] = {"have-more", {ROOT}, 8, 1, MESSAGE_RANGES_MAX},
    [MESSAGE_PIECES] = {"pieces", {REQUEST, PIECE}, ID_BYTES, 1, MESSAGE_PIECES_MAX},
    [MESSAGE_RUN] = {"run", {REQUEST, CLASS, OBJECT, ROOT, FIRST, COUNT}, 0, 0, 0},
    [MESSAGE_CHUNK] = {"chunk", {REQUEST, INDEX, ENCODING, STORED, RAW}, 1, 1, SESSION_FRAME_BYTES},
    [MESSAGE_MORE] = {"more", {REQUEST}, 1, 1, SESSION_FRAME_BYTES},
    [MESSAGE_CANCEL] = {"cancel", {REQUEST}, 0, 0, 0},
    [MESSAGE_BUSY] = {"busy", {REQUEST, RETRY}, 0, 0, 0},
    [MESSAGE_GONE] = {"gone", {REQUEST}, 0, 0, 0},
    [MESSAGE_MAP] = {"map", {OBJECT, ROOT}, ID_BYTES, 0, MESSAGE_SAMPLE_MAX},
    [MESSAGE_MAP_IS] = {"map-is", {ROOT, FIRST, COUNT}, 1, 0, MESSAGE_MAP_BITS / 8},
    [MESSAGE_RECIPE_NEED] = {"recipe-need", {ROOT}, 4, 0, MESSAGE_LEAVES_MAX},
    [MESSAGE_RECIPE_PART] = {"recipe-part", {ROOT, INDEX}, 1, 1, LIMIT_CONTROL_BYTES - 64},
    [MESSAGE_DEAL] = {"deal", {REQUEST, CLASS, OBJECT, ROOT, SIZE}, 8, 1, MESSAGE_DEAL_RANGES_MAX},
    [MESSAGE_DEALT] = {"dealt", {REQUEST, FIRST, COUNT}, 0, 0, 0},
    [MESSAGE_GAPS] = {"gaps", {REQUEST, CLASS, OBJECT, ROOT, BASIS}, MESSAGE_GAP_BYTES, 1, MESSAGE_GAPS_MAX},
    [MESSAGE_SIGN] = {"sign", {REQUEST}, 4, 1, MESSAGE_GAPS_MAX},
    [MESSAGE_SIGNATURE] = {"signature", {REQUEST, INDEX}, 1, 1, MESSAGE_SIGNATURE_MAX},
    [MESSAGE_DELTA] = {"delta", {REQUEST, INDEX, CODEC, STORED, RAW}, 1, 1, SESSION_FRAME_BYTES},
    [MESSAGE_LEAVES] = {"leaves", {REQUEST, BASIS, ROOT}, MESSAGE_STRETCH_BYTES, 1, MESSAGE_STRETCHES_MAX},
    [MESSAGE_PEERS] = {"peers", {OBJECT}, MESSAGE_PEER_BYTES, 1, MESSAGE_PEERS_MAX},
};
#define N_ROWS (sizeof ROWS / sizeof ROWS[0])

static const struct row *row_of(uint8_t type)
{
    return type < N_ROWS && ROWS[type].name ? &ROWS[type] : NULL;
}

const char *transfer_message_name(uint8_t type)
{
    const struct row *row = row_of(type);
    return row ? row->name : "unknown";
}

size_t transfer_message_item_bytes(enum message_type type)
{
    return ROWS[type].item_bytes;
}

static void put_field(enum field field, const struct message *message, uint8_t *at)
{
    const uint8_t *value = (const uint8_t *)message + FIELDS[field].offset;
    uint32_t four;
    uint64_t eight;
    switch (FIELDS[field].bytes) {
    case 4:
        memcpy(&four, value, sizeof four);
        wire_store_u32(at, four);
        return;
    case 8:
        memcpy(&eight, value, sizeof eight);
        wire_store_u64(at, eight);
        return;
    default:
        memcpy(at, value, FIELDS[field].bytes);
    }
}

size_t transfer_message_encode(const struct message *message, uint8_t ret_head[MESSAGE_HEAD_BYTES])
{
    const struct row *row = &ROWS[message->type];
    size_t len = 0;
    for (unsigned i = 0; i < FIELDS_MAX && row->fields[i] != FIELD_NONE; i++) {
        put_field(row->fields[i], message, ret_head + len);
        len += FIELDS[row->fields[i]].bytes;
    }
    return len;
}

static void get_field(enum field field, struct wire *wire, struct message *ret_message)
{
    uint8_t *value = (uint8_t *)ret_message + FIELDS[field].offset;
    uint32_t four;
    uint64_t eight;
    switch (FIELDS[field].bytes) {
    case 4:
        four = wire_get_u32(wire);
        memcpy(value, &four, sizeof four);
        return;
    case 8:
        eight = wire_get_u64(wire);
        memcpy(value, &eight, sizeof eight);
        return;
    default:
        wire_get_copy(wire, value, FIELDS[field].bytes);
    }
}

static bool is_run(const struct message *message)
{
    return message->count <= MESSAGE_PIECES_MAX && message->first < LIMIT_OBJECT_CHUNKS - message->count;
}

/* What the length alone does not tell. Indices and sizes are judged by whoever knows the recipe. */
static bool fields_make_sense(const struct message *message)
{
    switch (message->type) {
    case MESSAGE_HAVE:
        return message->flags <= MESSAGE_HAVE_WHOLE && message->size_bytes <= LIMIT_OBJECT_BYTES;
    case MESSAGE_PIECES:
        return message->piece == STORE_PIECE_LEAF || message->piece == STORE_PIECE_ROOT;
    case MESSAGE_RUN:
        return message->class < EXCHANGE_CLASSES && message->count > 0 && is_run(message);
    case MESSAGE_DEAL:
    case MESSAGE_GAPS:
        return message->class < EXCHANGE_CLASSES;
    case MESSAGE_DEALT:
        return is_run(message);
    case MESSAGE_DELTA:
        return message->codec <= MESSAGE_CODEC_RSYNC && message->n_items <= message->stored_bytes &&
               message->stored_bytes <= 2 * LIMIT_GAP_BYTES && message->raw_bytes <= LIMIT_GAP_BYTES;
    case MESSAGE_CHUNK:
        return message->encoding <= STORE_ZSTD && message->n_items <= message->stored_bytes &&
               message->stored_bytes <= message->raw_bytes && message->raw_bytes <= STORE_ROOT_MAX_BYTES;
    case MESSAGE_MAP_IS:
        return message->count <= MESSAGE_MAP_BITS && message->n_items == (message->count + 7) / 8 &&
               message->first <= LIMIT_OBJECT_CHUNKS - message->count && message->first % 8 == 0;
    default:
        return true;
    }
}

int transfer_message_decode(uint8_t type, const uint8_t *data, size_t len_bytes, struct message *ret_message,
                            struct err *err)
{
    const struct row *row = row_of(type);
    if (!row)
        return err_set(err, ERR_PROTOCOL, "a message of unknown type %u", type);
    struct message message = {.type = type};
    struct wire wire;
    wire_init(&wire, data, len_bytes);
    for (unsigned i = 0; i < FIELDS_MAX && row->fields[i] != FIELD_NONE; i++)
        get_field(row->fields[i], &wire, &message);
    if (row->item_bytes > 0) {
        size_t list_bytes = wire_left(&wire);
        message.n_items = list_bytes / row->item_bytes;
        message.items = wire_get_bytes(&wire, message.n_items * row->item_bytes);
    }
    if (!wire_done(&wire) || message.n_items < row->items_min || message.n_items > row->items_max ||
        !fields_make_sense(&message))
        return err_set(err, ERR_PROTOCOL, "a malformed '%s' of %zu bytes", row->name, len_bytes);
    *ret_message = message;
    return 0;
}

struct id transfer_message_id(const struct message *message, size_t i)
{
    struct id id;
    memcpy(id.b, message->items + i * ID_BYTES, ID_BYTES);
    return id;
}

uint32_t transfer_message_number(const struct message *message, size_t i)
{
    return wire_load_u32(message->items + i * 4);
}

void transfer_message_range(const struct message *message, size_t i, uint32_t *ret_first, uint32_t *ret_count)
{
    *ret_first = wire_load_u32(message->items + i * 8);
    *ret_count = wire_load_u32(message->items + i * 8 + 4);
}

struct message_gap transfer_message_gap(const struct message *message, size_t i)
{
    const uint8_t *at = message->items + i * MESSAGE_GAP_BYTES;
    return (struct message_gap){.first = wire_load_u32(at),
                                .count = wire_load_u32(at + 4),
                                .offset = wire_load_u64(at + 8),
                                .length = wire_load_u32(at + 16)};
}

void transfer_message_put_gap(struct buf *items, const struct message_gap *gap)
{
    wire_put_u32(items, gap->first);
    wire_put_u32(items, gap->count);
    wire_put_u64(items, gap->offset);
    wire_put_u32(items, gap->length);
}

struct message_stretch transfer_message_stretch(const struct message *message, size_t i)
{
    const uint8_t *at = message->items + i * MESSAGE_STRETCH_BYTES;
    struct message_stretch stretch = {.first = wire_load_u32(at + ID_BYTES), .count = wire_load_u32(at + ID_BYTES + 4)};
    memcpy(stretch.leaf.b, at, ID_BYTES);
    return stretch;
}

void transfer_message_put_stretch(struct buf *items, const struct message_stretch *stretch)
{
    wire_put_id(items, &stretch->leaf);
    wire_put_u32(items, stretch->first);
    wire_put_u32(items, stretch->count);
}

bool transfer_message_peer(const struct message *message, size_t i, struct id *ret_node, struct addr *ret_addr)
{
    struct wire wire;
    struct id node;
    wire_init(&wire, message->items + i * MESSAGE_PEER_BYTES, MESSAGE_PEER_BYTES);
    wire_get_copy(&wire, node.b, ID_BYTES);
    struct addr addr = addr_get(&wire);
    if (!wire_done(&wire) || !addr_is_usable(&addr))
        return false;
    *ret_node = node;
    *ret_addr = addr;
    return true;
}

void transfer_message_put_peer(struct buf *items, const struct id *node, const struct addr *addr)
{
    buf_add(items, node->b, ID_BYTES);
    addr_put(items, addr);
}
