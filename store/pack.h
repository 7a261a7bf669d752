/*
 * Pack files: append-only runs of records, each a 64-byte head and a body. What the bytes mean, which of them count and
 * when a pack goes are decided above; here they are framed, written, synced, read, punched and scanned.
 *
 * 1. A sync that failed is never repeated: the pack is `failed` from then on, for every thread, and a batch with
 *    records in it that were not synced before cannot be committed.
 * 2. Positions are handed out once. Two threads write to different places of one file at the same time.
 * 3. Files are opened without following links and must be regular.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "store/store.h"

#define STORE_RECORD_HEAD_BYTES 64u

struct store_record {
    enum store_piece_type type;
    enum store_encoding encoding;
    uint8_t kind;  /* enum store_kind for roots, else 0 */
    bool is_ahead; /* of roots: written by an assembly, which writes the chunks next */
    struct id id;  /* SHA-256 of the raw bytes */
    uint32_t raw_bytes;
    uint32_t stored_bytes;
    uint64_t time_ms; /* wall time for roots, else 0 */
};

void store_pack_encode_head(const struct store_record *record, uint8_t ret_head[STORE_RECORD_HEAD_BYTES]);
/* False if it is no head, is damaged or breaks a limit. */
bool store_pack_decode_head(const uint8_t head[STORE_RECORD_HEAD_BYTES], struct store_record *ret_record);
/* The most raw bytes a piece of this type may have. */
size_t store_pack_max_bytes(enum store_piece_type type);

struct store_pack {
    uint64_t number;
    int fd;     /* owned */
    char *path; /* owned */
    atomic_uint refs;
    uint64_t size;                /* where the next record goes; of packs being written, under the lock of packs.c */
    atomic_uint_fast64_t pending; /* bytes reserved and neither committed nor given up */
    atomic_uint_fast64_t ahead;   /* so far it has its blocks on the disk, written to or not */
    pthread_mutex_t sync_lock;
    atomic_bool failed;
};

enum store_pack_look { STORE_PACK_FILE, STORE_PACK_ABSENT, STORE_PACK_ODD };
/* What has the name of a pack; *ret_size_bytes of a file, 0 otherwise. */
enum store_pack_look store_pack_look(const char *dir, uint64_t number, uint64_t *ret_size_bytes);

/* A pack of one reference. create: it must not exist yet, and its directory entry is durable on return.
 * ERR_NOTFOUND, ERR_CORRUPT if the name is taken by something else than a regular file. */
int store_pack_open(const char *dir, uint64_t number, bool create, struct store_pack **ret_pack, struct err *err);
void store_pack_ref(struct store_pack *pack);
void store_pack_unref(struct store_pack *pack);

/* Write records, at most STORE_PACK_WRITE_RECORDS, one behind the other at an offset that was reserved for them. On an
 * error the place is punched. */
#define STORE_PACK_WRITE_RECORDS 64u
int store_pack_write(struct store_pack *pack, const struct store_record *records, const void *const *bodies,
                     size_t count, uint64_t offset, struct err *err);
/* Nobody will write to it any more: give back what was allocated beyond its end. */
void store_pack_trim(struct store_pack *pack);
/* Make all that was written before the call durable. ERR_IO also if the file has been deleted: nobody would find it. */
int store_pack_sync(struct store_pack *pack, struct err *err);
/* Read a record's body. `offset` is of the record. ERR_CORRUPT if the file ends before or the disk refuses. */
int store_pack_read(struct store_pack *pack, uint64_t offset, void *ret_body, size_t stored_bytes, struct err *err);
/* Give a range back to the file system, zeroing it; where it cannot punch, at least the head is zeroed. Where the disk
 * refuses the blocks at the edges, they stay. */
int store_pack_punch(struct store_pack *pack, uint64_t offset, uint64_t len_bytes, struct err *err);

/* Call back for each record found, in order, and, with a record of NULL, for each stretch of bytes that are neither
 * records nor zeros; holes and zeros are passed over. Bodies are not read. *ret_cut: the last stretch reaches the end
 * of the file, as a record does that was being written. Ends with the callback's first result other than 0. */
typedef int (*store_pack_scan_cb)(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx);
int store_pack_scan(struct store_pack *pack, store_pack_scan_cb cb, void *ctx, bool *ret_cut, struct err *err);

/* The numbers of the packs in a directory, in no order; other names are ignored. Free with free. */
int store_pack_list(const char *dir, uint64_t **ret_numbers, size_t *ret_count, struct err *err);
