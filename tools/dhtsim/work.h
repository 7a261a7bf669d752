/*
 * What the mesh is used for in a scenario: records that are published, and reads that are checked against them.
 */
#pragma once

#include "tools/dhtsim/world.h"
#include "tools/sim/sample.h"

struct work;

struct work_record {
    struct work *work; /* borrowed */
    struct id key;
    uint32_t number;
    struct id member; /* the publisher's */
    uint32_t publisher;
    uint16_t generation; /* of the publisher */
    uint16_t version;
    bool withdrawn;
    size_t accepted;  /* holders, when it was acknowledged; 0: not acknowledged */
    uint64_t said_us; /* when it was published last */
    uint64_t acknowledged_us;
    uint64_t last_us; /* until then it is due; UINT64_MAX: as long as its publisher lives */
    bool missing;     /* no living node had it when that was looked at last */
};

/* Of reads. */
struct work_figures {
    uint64_t asked, right, empty;
    uint64_t old;   /* what a newer version or a tombstone has replaced */
    uint64_t wrong; /* records that nobody published */
    struct sample hops, requests, first_us, whole_us;
};

struct work_get;

struct work {
    struct world *world;         /* borrowed */
    struct work_record *records; /* owned; does not move */
    size_t record_count;
    size_t record_max;
    size_t members; /* records under one key, of different nodes; 1 unless changed before the first is published */
    size_t acknowledged;
    struct sample acknowledged_us; /* how long that took */
    struct work_figures *figures;  /* borrowed: where the reads under way are counted */
    struct work_get *spare;        /* owned, with those under way */
    struct work_get *all;
    size_t under_way;
    uint32_t askers; /* only the first so many living nodes publish and read; 0: all */
    bool whole;      /* reads ask the closest holders, and do not end at the first one */
};

/* Room for so many records. */
void work_init(struct work *work, struct world *world, size_t record_max);
void work_release(struct work *work);
void work_figures_release(struct work_figures *figures);

/* Publish a new record at a node. NULL without room, and if it has one under this key. */
struct work_record *work_publish(struct work *work, struct node *node);
/* Say it again after a restart, or a greater version of it. */
void work_say(struct work *work, struct work_record *record);
/* Publish so many, at this rate in virtual time, and wait until they are acknowledged or a minute has passed. */
bool work_publish_many(struct work *work, size_t count, uint64_t per_s);

/* One read, by this node. */
void work_get(struct work *work, struct node *node, const struct work_record *record);
/* So many reads of random records, at this rate, and wait for the answers. With a zipf the first are the most popular.
 */
bool work_get_many(struct work *work, uint64_t count, uint64_t per_s, const struct random_zipf *zipf,
                   struct work_figures *figures);
