/*
 * The store: immutable objects named by SHA-256, kept as chunks in append-only pack files, with an LMDB index.
 *
 * It owns one directory: DIR/lock, DIR/index/ (LMDB), DIR/packs/. It never touches the network. Formats on disk are
 * specified in docs/store-format.md.
 *
 * Threads: every function may be called from any thread at any time. One ingest or one reader is used by one thread at
 * a time; store_assembly_add may be called from several at once. Functions block on the disk: not for the event loop.
 * Callbacks run on the calling thread with no lock or transaction held, and may call the store.
 *
 * 1. What was acknowledged is durable: pack bytes are synced before the index commit that makes them exist, and that
 *    commit is synced before the function returns. A failed sync fails the request and retires the pack.
 * 2. An object that store_object_stat finds is complete, but for what has rotted and was not traced yet ("rot" below).
 *    Its bytes are checked against their digests on every read.
 * 3. A chunk is stored once, however many objects and partial objects contain it.
 * 4. Bytes in the index never leave the store by pointer: values are copied, or live during one callback.
 * 5. After SIGKILL or a power cut at any moment the store opens clean: finished objects are there, unfinished ingests
 * are gone. Of unfinished assemblies the synced chunks are there; after SIGKILL all others as well whose
 *    store_assembly_add has returned, after a power cut those that the disk had got (store/recover.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "node/base/buf.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/id.h"
#include "store/recipe.h"

struct store;

/* What an object is for decides when it is evicted (may_evict in store/evict.c): cheapest to lose first. The numbers
 * are on disk. */
enum store_kind {
    STORE_CACHE = 1,      /* kept only because it passed by: a proxy's transit, a page of a mirror */
    STORE_CHECKPOINT = 2, /* memory images; a cache as well: the container itself is the truth */
    STORE_VOLUME = 3,     /* a snapshot of a volume */
    STORE_LAYER = 4,      /* image layers */
    STORE_BLOB = 5,       /* image manifests and configs, raw objects that a user put */
};
bool store_kind_is_valid(unsigned number);
/* "cache", "checkpoint", "volume", "layer", "blob" */
const char *store_kind_name(enum store_kind kind);

/* ---- lifecycle ---- */

struct store_options {
    const char *dir;      /* made if it is not there; borrowed during store_open */
    uint64_t quota_bytes; /* of pack bytes in use; 0: no quota */
    uint64_t floor_bytes; /* of free disk that writes must leave; 0: none */
    struct clock clock;
    uint64_t pack_bytes;      /* rotate packs at this size; 0: STORE_PACK_BYTES */
    uint64_t index_map_bytes; /* first size of the index map, grown when full; 0: a default. Address space, not disk */
};
#define STORE_PACK_BYTES (256ull << 20)

/* Opens, recovers from a kill, and starts a new pack when one is needed. ERR_BUSY "store in use by pid N" if another
 * process (or this one) has it open; ERR_CORRUPT if the index cannot be used: `cmig-node fsck` rebuilds it. ERR_IO if
 * several packs should be there and none is: on a disk that is not mounted, perhaps. */
int store_open(const struct store_options *options, struct store **ret_store, struct err *err);
/* Every ingest, reader and assembly has been freed before. */
void store_close(struct store *store);

/* To be called now and then (minutes): drops partial objects untouched for STORE_PARTIAL_KEEP_MS that nobody pins or
 * assembles and no reference keeps, and that were never complete or are caches; tries again what the disk refused to
 * read; frees what is no longer referenced, clears stale index readers. */
int store_maintain(struct store *store, struct err *err);
#define STORE_PARTIAL_KEEP_MS (7ull * 24 * 3600 * 1000)

struct store_usage {
    uint64_t objects;
    uint64_t object_bytes; /* sum of their sizes, before sharing and compression */
    uint64_t pack_bytes;   /* in use in packs: what the quota is compared with */
    uint64_t quota_bytes;
    uint64_t disk_free_bytes; /* of the file system, for this user */
    uint64_t reader_lag;      /* commits to the index since the oldest reader of it began: while that one reads, the
                               * index grows */
};
int store_usage(struct store *store, struct store_usage *ret_usage, struct err *err);

/* ---- objects ---- */

struct store_object_info {
    struct id digest; /* SHA-256 of the whole */
    struct id root;   /* SHA-256 of the recipe's root record */
    uint64_t size_bytes;
    uint32_t chunk_count;
    uint32_t replicas; /* other providers known; 0: none or unknown */
    enum store_kind kind;
    enum store_chunking chunking;
    uint64_t created_ms; /* wall time */
    uint64_t used_ms;    /* wall time, coarse: moves once in STORE_USED_STEP_MS */
};
#define STORE_USED_STEP_MS (10ull * 60 * 1000)

/* Make an object from a stream. ERR_NOSPACE when quota or floor leave no room even after eviction. */
struct store_ingest;
int store_ingest_new(struct store *store, enum store_kind kind, enum store_chunking chunking,
                     struct store_ingest **ret_ingest, struct err *err);
/* Any number of bytes. After an error only store_ingest_free is useful. */
int store_ingest_write(struct store_ingest *ingest, const void *data, size_t len_bytes, struct err *err);
/* Durable when it returns. An object that is here already is found, not stored twice; the kind that is evicted later
 * stays. ERR_CONFLICT if a chunk that was here and was not stored again has rotted meanwhile: the object is broken
 * then, and whole when the same bytes are taken in once more. The ingest is still to be freed. */
int store_ingest_finish(struct store_ingest *ingest, struct store_object_info *ret_info, struct err *err);
/* Without a finish before it: nothing was stored. NULL is fine. */
void store_ingest_free(struct store_ingest *ingest);

/* 1 and *ret_info if it is here and complete, 0 if not. ret_info may be NULL. */
int store_object_stat(struct store *store, const struct id *digest, struct store_object_info *ret_info,
                      struct err *err);
/* Up to len_bytes from offset, each chunk checked; *ret_len is less only at the end. ERR_NOTFOUND; ERR_CORRUPT names
 * the chunk that has rotted; the object then becomes a partial one, to be fetched again. */
int store_object_read(struct store *store, const struct id *digest, uint64_t offset, void *ret_data, size_t len_bytes,
                      size_t *ret_len, struct err *err);
/* Sequential reading; the object stays readable until close even if it is removed meanwhile. */
struct store_reader;
int store_reader_open(struct store *store, const struct id *digest, struct store_reader **ret_reader, struct err *err);
/* *ret_len is 0 at the end, by when the digest of the whole has been checked too. ERR_CORRUPT as above. */
int store_reader_read(struct store_reader *reader, void *ret_data, size_t len_bytes, size_t *ret_len, struct err *err);
void store_reader_close(struct store_reader *reader);

/* Forget it and free what nothing else needs. Pins and references by name do not prevent it: the caller decides.
 * 1 if it was here, 0 if not. */
int store_object_remove(struct store *store, const struct id *digest, struct err *err);
/* It was used now: evict it later. 1/0 as above. */
int store_object_touch(struct store *store, const struct id *digest, struct err *err);
int store_object_set_replicas(struct store *store, const struct id *digest, uint32_t replicas, struct err *err);
/* In digest order; a callback that returns other than 0 ends the walk, which returns that value. */
typedef int (*store_object_cb)(const struct store_object_info *info, void *ctx);
int store_object_each(struct store *store, store_object_cb cb, void *ctx, struct err *err);

/* Free at least want_bytes, if may_evict in store/evict.c allows; *ret_freed is what was freed. */
int store_evict(struct store *store, uint64_t want_bytes, uint64_t *ret_freed, struct err *err);

/* Objects that were removed, evicted or given up since the last call, whoever did it: nobody is to be told any more
 * that they are here. At most cap of them, the rest waits; of more than STORE_GONE_MAX the oldest are forgotten, and a
 * restart forgets all. What has come back meanwhile may be among them. Costs nothing, to be asked often. */
#define STORE_GONE_MAX 4096u
size_t store_gone_take(struct store *store, struct id *ret_digests, size_t cap);

/* ---- pins ---- */

/* A pinned object is not evicted. Several owners may pin one object; owner is 1 to 255 bytes ("container web-1").
 * Pinning what is not here (yet) is fine. Durable; pinning twice and unpinning what was not pinned are harmless. */
#define STORE_OWNER_MAX_BYTES 255
int store_pin(struct store *store, const struct id *digest, const char *owner, struct err *err);
int store_unpin(struct store *store, const struct id *digest, const char *owner, struct err *err);
/* 1 or 0 */
int store_pinned(struct store *store, const struct id *digest, struct err *err);

/* ---- references: names that point to objects, in versions ---- */

struct store_version {
    uint64_t epoch;
    uint64_t counter;
};

#define STORE_REF_NAME_MAX_BYTES 255 /* 1 to 255 bytes without NUL */
#define STORE_REF_VALUE_MAX_BYTES 4096

struct store_ref {
    uint8_t kind; /* the caller's: images, snapshots, checkpoints ... */
    const char *name;
    struct store_version version;
    struct id digest;  /* need not be here */
    bool keep;         /* the object is not evicted while this reference stands */
    const void *value; /* opaque to the store; in callbacks borrowed for the call */
    size_t value_len;
};

/* Set or replace (kind, name, version). Durable. */
int store_ref_set(struct store *store, const struct store_ref *ref, struct err *err);
/* 1 and filled, or 0. ret_value (may be NULL) gets the opaque bytes appended; name and value in ret_ref are unset. */
int store_ref_get(struct store *store, uint8_t kind, const char *name, struct store_version version,
                  struct store_ref *ret_ref, struct buf *ret_value, struct err *err);
/* The highest (epoch, counter) of a name. */
int store_ref_latest(struct store *store, uint8_t kind, const char *name, struct store_ref *ret_ref,
                     struct buf *ret_value, struct err *err);
/* Those of one name in version order, or of all names of the kind if name is NULL. Ends as store_object_each does. */
typedef int (*store_ref_cb)(const struct store_ref *ref, void *ctx);
int store_ref_each(struct store *store, uint8_t kind, const char *name, store_ref_cb cb, void *ctx, struct err *err);
/* 1 if it was there, 0 if not. The object stays. */
int store_ref_remove(struct store *store, uint8_t kind, const char *name, struct store_version version,
                     struct err *err);

/* ---- pieces, for sending ---- */

/* The four that follow also find pieces that were written but are not durable yet, from the moment when
 * store_assembly_new or store_assembly_add has returned: good to be sent to others, nothing to be promised. Should
 * their sync fail, or their assembly be freed before it, they are gone again. */

enum store_piece_type { STORE_PIECE_CHUNK = 1, STORE_PIECE_LEAF = 2, STORE_PIECE_ROOT = 3 };
enum store_encoding { STORE_RAW = 0, STORE_ZSTD = 1 };

struct store_piece {
    uint32_t stored_bytes; /* as kept and as given to the reader */
    uint32_t raw_bytes;
    enum store_encoding encoding;
};

/* The stored form of a piece, as it would go to a peer; checked against the checksum of what was written, not against
 * its digest (whoever receives it does that). 1 and filled, 0 if it is not here, ERR_CORRUPT if it has rotted (below).
 * cap_bytes of LIMIT_CHUNK_BYTES suffice for chunks and leaves; a root may need STORE_ROOT_MAX_BYTES. ERR_LIMIT if it
 * does not fit. */
int store_piece_read(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                     size_t cap_bytes, struct store_piece *ret_piece, struct err *err);
/* Several, at most STORE_PIECES_MAX, one behind the other in ret_data, with one look at the index. How many: the one
 * behind them is not here, has rotted, or does not fit. */
#define STORE_PIECES_MAX 64u
size_t store_pieces_read(struct store *store, enum store_piece_type type, const struct id *ids, size_t count,
                         void *ret_data, size_t cap_bytes, struct store_piece *ret_pieces);
/* The raw form, checked. 1, 0, or ERR_CORRUPT. *ret_len is its length. */
int store_piece_read_raw(struct store *store, enum store_piece_type type, const struct id *id, void *ret_data,
                         size_t cap_bytes, size_t *ret_len, struct err *err);
/* Bit i (byte i / 8, value 1 << i % 8) tells whether chunk ids[i] is here; ret_bitmap has (count + 7) / 8 bytes. */
int store_pieces_have(struct store *store, const struct id *ids, size_t count, uint8_t *ret_bitmap, struct err *err);
/* The recipe of an object or partial object: 1 and a recipe to free, or 0. */
int store_recipe_load(struct store *store, const struct id *digest, struct store_recipe **ret_recipe, struct err *err);

/* Turn what arrived into raw bytes: copies or decompresses into ret_data, which has room for raw_bytes (at most
 * LIMIT_CHUNK_BYTES). ERR_CORRUPT if it does not give exactly raw_bytes. */
int store_decode(enum store_encoding encoding, const void *data, size_t len_bytes, void *ret_data, size_t raw_bytes,
                 struct err *err);

/* ---- assembly: receiving an object ---- */

/* Begin or resume. 0 and an assembly; 1 if the object is complete here already (no assembly then). The recipe is
 * complete, is of this digest, is borrowed and outlives the assembly. Its records are written, so a partial object can
 * be served to others and survives a kill; of a new object of at most 2048 chunks they become durable, and the partial
 * object is listed, with the first sync, or go to disk with all of it by the finish. ERR_NOSPACE if what is missing
 * does not fit; ERR_CORRUPT if the recipe contradicts a chunk that is here. Two assemblies of one object may run side
 * by side; both finish. */
struct store_assembly;
int store_assembly_new(struct store *store, const struct id *digest, enum store_kind kind,
                       const struct store_recipe *recipe, struct store_assembly **ret_assembly, struct err *err);
/* Is chunk i of the recipe here? */
bool store_assembly_has(struct store_assembly *assembly, uint32_t chunk);
/* How much is missing, counting each distinct place in the recipe. */
void store_assembly_missing(struct store_assembly *assembly, uint32_t *ret_chunks, uint64_t *ret_bytes);
/* One chunk as it arrived. Checked for length and SHA-256 before anything is written: ERR_CORRUPT blames the sender,
 * and the chunk is still missing. What is here already is accepted and ignored. Other places of the recipe that
 * want the same chunk become present as well. Can be read by everybody from now on (store_piece_read), but is not
 * durable before the next sync, which comes by itself every STORE_ASSEMBLY_SYNC_BYTES: a power cut may take it, SIGKILL
 * does not. */
int store_assembly_add(struct store_assembly *assembly, uint32_t chunk, enum store_encoding encoding, const void *data,
                       size_t len_bytes, struct err *err);
#define STORE_ASSEMBLY_SYNC_BYTES (64u << 20)
/* The same for several chunks, borrowed until it returns. They are written next to each other, which costs the kernel
 * less than one by one. Each gets its own status; returned is the last of those that blame no sender, or 0. */
struct store_arrival {
    uint32_t chunk;
    enum store_encoding encoding;
    const void *data;
    size_t len_bytes;
    int ret_status;
};
int store_assembly_add_all(struct store_assembly *assembly, struct store_arrival *arrivals, size_t count,
                           struct err *err);
/* Make what was added durable. */
int store_assembly_sync(struct store_assembly *assembly, struct err *err);
/* All chunks are here: check the digest of the whole and make the object exist, durably. ERR_CONFLICT while chunks are
 * missing. ERR_CORRUPT if the whole does not have the promised digest: the recipe lied; it is forgotten. */
int store_assembly_finish(struct store_assembly *assembly, struct store_object_info *ret_info, struct err *err);
/* Without a finish: the partial object stays, if it is listed; what was added since the last sync is dropped. NULL is
 * fine. */
void store_assembly_free(struct store_assembly *assembly);

struct store_partial_info {
    struct id digest;
    struct id root;
    enum store_kind kind;
    uint64_t started_ms; /* wall time of the latest start or resume */
};
typedef int (*store_partial_cb)(const struct store_partial_info *info, void *ctx);
int store_partial_each(struct store *store, store_partial_cb cb, void *ctx, struct err *err);
/* Forget a partial object and free what nothing else needs. 1 if it was there, 0 if not. */
int store_partial_drop(struct store *store, const struct id *digest, struct err *err);

/* ---- tables: durable maps for the floors above ---- */

#define STORE_TABLE_NAME_MAX_BYTES 32
#define STORE_TABLE_KEY_MAX_BYTES 400
#define STORE_TABLE_VALUE_MAX_BYTES (1u << 20)

/* One change; value NULL removes the key (removing what is not there is fine). */
struct store_table_op {
    const void *key; /* 1 to STORE_TABLE_KEY_MAX_BYTES */
    size_t key_len;
    const void *value;
    size_t value_len;
};
/* All of the changes or none, in order, durable on return. ERR_INVALID for a bad name, key or value. */
int store_table_apply(struct store *store, const char *table, const struct store_table_op *ops, size_t count,
                      struct err *err);
/* One change of its own. */
int store_table_put(struct store *store, const char *table, const void *key, size_t key_len, const void *value,
                    size_t value_len, struct err *err);
/* 1 and the value appended to ret_value, or 0. */
int store_table_get(struct store *store, const char *table, const void *key, size_t key_len, struct buf *ret_value,
                    struct err *err);
/* Keys that begin with the prefix (prefix_len may be 0), in order of bytes, beginning at `from` if from_len > 0.
 * Changes made meanwhile may or may not be seen. Ends as store_object_each does. */
typedef int (*store_table_cb)(const void *key, size_t key_len, const void *value, size_t value_len, void *ctx);
int store_table_each(struct store *store, const char *table, const void *prefix, size_t prefix_len, const void *from,
                     size_t from_len, store_table_cb cb, void *ctx, struct err *err);

/* ---- rot: bytes on disk that are not what was written ---- */

/* Every read checks: object reads and store_piece_read_raw by SHA-256, store_piece_read by a checksum of the stored
 * bytes (store/checksum.h), the scrub by both. Bytes that are bad twice in a row have rotted: the piece is forgotten at
 * once (nobody is told any more that it is here), its place in the pack is given back, and a finding waits to be taken.
 * What needs the piece becomes a partial object and is listed as broken until it is complete again.
 *
 * Bytes that the disk refuses to read are forgotten likewise, but keep their place: it is tried again by
 * store_maintain, and is given back when the piece has come again elsewhere. A disk that refuses whatever it is asked
 * has lost nothing: then reads are ERR_IO, nothing is forgotten, and all is as it was when the disk is there again. */
enum store_rot_cause {                           /* the numbers are on disk */
                       STORE_ROT_BYTES = 1,      /* other bytes than were written */
                       STORE_ROT_UNREADABLE = 2, /* the disk refuses to read them */
                       STORE_ROT_CUT = 3,        /* the pack ends before them */
                       STORE_ROT_MISSING = 4,    /* the pack is gone */
                       STORE_ROT_ODD = 5,        /* something else than a regular file has the pack's name */
};
/* "bytes changed", "unreadable", "pack cut short", "pack missing", "pack is no file" */
const char *store_rot_cause_text(enum store_rot_cause cause);

struct store_rot {
    enum store_piece_type type;
    struct id id; /* of the piece */
    uint64_t pack;
    uint64_t offset; /* of its record in the pack */
    uint32_t stored_bytes;
    enum store_rot_cause cause;
    uint64_t found_ms; /* wall time */
};

/* Findings that wait to be taken; costs nothing, to be asked now and then. They survive a restart. */
uint64_t store_rot_waiting(struct store *store);
/* Take them: the objects that need these pieces are looked up by reading recipes (0.06 % of the store) and become
 * partial ones and broken; then each finding is handed to the callback (may be NULL), in no order, and forgotten. The
 * number of findings. Until then such an object still counts as complete, though reading it says ERR_CORRUPT. */
typedef void (*store_rot_cb)(const struct store_rot *rot, void *ctx);
int64_t store_rot_take(struct store *store, store_rot_cb cb, void *ctx, struct err *err);

struct store_broken {
    struct id digest;
    enum store_kind kind;
    uint64_t since_ms; /* wall time */
};
/* Objects that were complete here and have lost bytes: to be fetched again. They leave the list by being complete (an
 * assembly's or ingest's finish), removed or dropped. Ends as store_object_each does. */
typedef int (*store_broken_cb)(const struct store_broken *broken, void *ctx);
int store_broken_each(struct store *store, store_broken_cb cb, void *ctx, struct err *err);

/* ---- scrub: reading all of it, bit by bit, to find rot before somebody needs it ---- */

struct store_scrub {
    uint64_t passes;          /* finished since the store was made */
    uint64_t last_started_ms; /* wall times of the last finished pass; 0: there was none */
    uint64_t last_finished_ms;
    uint64_t last_bad;   /* pieces that it found rotten */
    uint64_t started_ms; /* of the pass under way; 0: none is */
    uint64_t pieces;     /* that it has looked at */
    uint64_t bytes;      /* that it has read */
    uint64_t bad;        /* pieces rotten: findings of store_rot_take */
    uint64_t mended;     /* records whose bytes are sound, but whose head or row was not: written again */
    uint32_t permille;   /* of the pass, about */
};

/* Go on with the pass under way, or begin one: read pieces from the disk, not from memory, until want_bytes have been
 * read or 256 pieces (one at least), and check each by checksum and SHA-256. 1 if the pass goes on, 0 if this step
 * ended it. The caller gives the pace: for a pass a week, (pack_bytes of store_usage) * (time since the last step) / (a
 * week). A kill costs a minute's steps at most. ERR_BUSY if another thread is in a step. ret_scrub may be NULL. */
int store_scrub_step(struct store *store, uint64_t want_bytes, struct store_scrub *ret_scrub, struct err *err);
/* Does not wait for a step. */
void store_scrub_status(struct store *store, struct store_scrub *ret_scrub);
/* Begin a pass anew; the one under way does not count. ERR_BUSY as above. */
int store_scrub_restart(struct store *store, struct err *err);

/* ---- checking and rebuilding ---- */

struct store_fsck_report {
    uint64_t packs;
    uint64_t records;         /* found whole */
    uint64_t records_bad;     /* framing or digest wrong; dropped by a repair */
    uint64_t records_unused;  /* sound, but part of no recipe; dropped by a repair */
    uint64_t records_unread;  /* the disk refuses to read them; missing now, but kept: it may give them another day */
    uint64_t tails_truncated; /* packs whose last record was cut short */
    uint64_t rows_wrong;      /* pieces that the index counts or places otherwise than recipes and packs do */
    uint64_t objects;         /* complete, whole digest checked */
    uint64_t objects_broken;  /* known by recipe or index, with bytes missing; a repair makes them partial objects */
    uint64_t objects_lost;    /* in the index, without a usable recipe */
    bool index_usable;        /* names, pins and tables could be read; a repair keeps them */
    bool repaired;
};
/* Called for each finding, with text to show. */
typedef void (*store_fsck_cb)(const char *finding, void *ctx);
/* Read everything and compare it with its digests; with repair, write a new index made from the packs (DIR/index.old
 * keeps the former one). Nobody else may have the store open: ERR_BUSY. 1 if all was sound, 0 if something was found
 * (and repaired, if so asked). ERR_IO, and no change, if the disk refuses more than it gives. Call it from a process
 * with one thread: it probes the old index in a child. */
int store_fsck(const char *dir, bool repair, struct clock clock, struct store_fsck_report *ret_report, store_fsck_cb cb,
               void *ctx, struct err *err);
