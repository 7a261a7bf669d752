/*
 * What exchanges say to each other, as bytes and as a struct: one table of types, one encoder, one decoder.
 *
 * A message is the fixed fields that its row names, in that order, big-endian, and then perhaps a list of equal items
 * that takes the rest. Nothing is optional and nothing may follow. docs/protocol-session.md tells what they mean.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/addr.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/id.h"

enum message_type {
    MESSAGE_WANT = 0x01, /* who has this object? */
    MESSAGE_HAVE = 0x02, /* I have it, or some of it, by this recipe */
    MESSAGE_HAVE_NOT = 0x03,
    MESSAGE_HAVE_MORE = 0x04,   /* these ranges of chunks have come since */
    MESSAGE_PIECES = 0x05,      /* send these records of a recipe */
    MESSAGE_RUN = 0x06,         /* send these chunks of a recipe */
    MESSAGE_CHUNK = 0x07,       /* a piece: its head and the first of its bytes */
    MESSAGE_MORE = 0x08,        /* the next of them */
    MESSAGE_CANCEL = 0x09,      /* that request is not needed any more */
    MESSAGE_BUSY = 0x0a,        /* not now: ask again later */
    MESSAGE_GONE = 0x0b,        /* what the request names is not here (any more) */
    MESSAGE_MAP = 0x0c,         /* which chunks of this recipe have you? here is a sample of them */
    MESSAGE_MAP_IS = 0x0d,      /* a stretch of the bitmap; empty: none at all */
    MESSAGE_RECIPE_NEED = 0x0e, /* I don't know the recipe; send its root, or these leaves */
    MESSAGE_RECIPE_PART = 0x0f, /* a root or leaf record */
    MESSAGE_DEAL = 0x10,        /* send some of these ranges, those that you have sent least of all */
    MESSAGE_DEALT = 0x11,       /* these chunks are coming; none: all of the ranges have been dealt */
    MESSAGE_GAPS = 0x12,        /* send these gaps as deltas against ranges of this basis */
    MESSAGE_SIGN = 0x13,        /* I have no such basis: send signatures of these gaps' ranges, or ask otherwise */
    MESSAGE_SIGNATURE = 0x14,   /* the librsync signature of a gap's range of the basis */
    MESSAGE_DELTA = 0x15,       /* a gap: its head and the first of the delta's bytes; MORE brings the next */
    MESSAGE_PEERS = 0x16,       /* these nodes have some of the object as well, or want it */
    MESSAGE_LEAVES = 0x17,      /* send these leaves as deltas against stretches of this recipe */
};

#define MESSAGE_HAVE_WHOLE 1           /* the only flag of HAVE */
#define MESSAGE_PART_ROOT UINT32_MAX   /* the index of a RECIPE_PART that is the root */
#define MESSAGE_HEAD_BYTES 128         /* at most: GAPS has 101 */
#define MESSAGE_PIECES_MAX 256         /* ids in a PIECES, chunks in a RUN */
#define MESSAGE_SAMPLE_MAX 64          /* ids in a MAP */
#define MESSAGE_RANGES_MAX 4096        /* in a HAVE_MORE */
#define MESSAGE_LEAVES_MAX 16384       /* indices in a RECIPE_NEED */
#define MESSAGE_MAP_BITS (512u * 1024) /* in one MAP_IS */
#define MESSAGE_DEAL_RANGES_MAX 512    /* in a DEAL */
#define MESSAGE_GAPS_MAX 64            /* gaps in a GAPS, numbers in a SIGN */
#define MESSAGE_PEERS_MAX 32           /* nodes in a PEERS */
#define MESSAGE_STRETCHES_MAX 16       /* in a LEAVES */
#define MESSAGE_SIGNATURE_MAX (64u * 1024)
#define MESSAGE_GAP_BYTES 20u                           /* an item of GAPS */
#define MESSAGE_STRETCH_BYTES 40u                       /* an item of LEAVES */
#define MESSAGE_PEER_BYTES (ID_BYTES + ADDR_WIRE_BYTES) /* an item of PEERS: node, address */

/* How the bytes of a DELTA give those of its gap. */
enum message_codec {
    MESSAGE_CODEC_PLAIN = 0,  /* one zstd frame */
    MESSAGE_CODEC_PREFIX = 1, /* one zstd frame, with the range of the basis as prefix */
    MESSAGE_CODEC_RSYNC = 2,  /* one zstd frame, of a librsync delta against the range of the basis */
};

/* An item of GAPS: the chunks, and the bytes of the basis that they are compared with. */
struct message_gap {
    uint32_t first;
    uint32_t count;
    uint64_t offset;
    uint32_t length;
};

/* An item of LEAVES: a leaf, and the chunks of the basis whose entries it is compared with. */
struct message_stretch {
    struct id leaf;
    uint32_t first;
    uint32_t count;
};

struct message {
    enum message_type type;
    uint32_t request; /* the asker's number for a PIECES, RUN, DEAL or GAPS and all that answers it */
    struct id object;
    struct id root;
    struct id basis;     /* the object that gaps or leaves are compared with; `root` of LEAVES is that of its recipe */
    uint64_t size_bytes; /* of the object; of DEAL: how much of it may come */
    uint8_t flags;
    uint8_t class;    /* enum exchange_class: what the answer is for */
    uint8_t load;     /* of HAVE: how much of its sending the node has in use, 255: all */
    uint8_t codec;    /* enum message_codec */
    uint32_t price;   /* of HAVE: what a GiB from this node costs, in thousandths of the operators' unit */
    uint8_t piece;    /* enum store_piece_type of PIECES */
    uint8_t encoding; /* enum store_encoding */
    uint32_t index;   /* of a chunk in the recipe, an id in the PIECES, a leaf in the root, a gap in the GAPS */
    uint32_t first;
    uint32_t count;
    uint32_t stored_bytes; /* of the whole piece, as it travels */
    uint32_t raw_bytes;    /* of the whole piece, decoded */
    uint32_t retry_ms;
    const uint8_t *items; /* the list: borrowed from what was decoded, or from the caller */
    size_t n_items;
};

/* ret_head gets at most MESSAGE_HEAD_BYTES, returns how many; the list goes after it as it is. */
size_t transfer_message_encode(const struct message *message, uint8_t ret_head[MESSAGE_HEAD_BYTES]);
/* Bytes that the list of a message of this type takes per item; 0: it has none. */
size_t transfer_message_item_bytes(enum message_type type);
/* ERR_PROTOCOL for an unknown type, a wrong length, a list that is too long or fields that cannot be. */
int transfer_message_decode(uint8_t type, const uint8_t *data, size_t len_bytes, struct message *ret_message,
                            struct err *err);
/* "want", "have" ...; "unknown". */
const char *transfer_message_name(uint8_t type);

/* Item i of a list of ids, of numbers, of ranges. */
struct id transfer_message_id(const struct message *message, size_t i);
uint32_t transfer_message_number(const struct message *message, size_t i);
void transfer_message_range(const struct message *message, size_t i, uint32_t *ret_first, uint32_t *ret_count);
/* Gap i of a GAPS; to put one after others into a list. */
struct message_gap transfer_message_gap(const struct message *message, size_t i);
void transfer_message_put_gap(struct buf *items, const struct message_gap *gap);
/* The same for a LEAVES. */
struct message_stretch transfer_message_stretch(const struct message *message, size_t i);
void transfer_message_put_stretch(struct buf *items, const struct message_stretch *stretch);
/* Peer i of a PEERS; false if its address is none that a node can have. */
bool transfer_message_peer(const struct message *message, size_t i, struct id *ret_node, struct addr *ret_addr);
void transfer_message_put_peer(struct buf *items, const struct id *node, const struct addr *addr);
