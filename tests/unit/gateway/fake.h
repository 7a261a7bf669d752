/* A mesh of one node for tests of the gateway: sets as others have them, and what was written to it. One thread. */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "node/base/limits.h"
#include "node/gateway/channels.h"
#include "node/gateway/sets.h"

/* Something that the mesh holds, or was given. */
struct fake_record {
    TAILQ_ENTRY(fake_record)
    entry;
    char set[LIMIT_SET_NAME_BYTES + 1];
    char name[LIMIT_SET_MEMBER_BYTES + 1];
    struct set_change change;
};

/* A set that is open, or is to be. */
struct fake_open {
    TAILQ_ENTRY(fake_open)
    entry;
    struct sets *sets;
    struct set *set;
    bool opened;
};

struct fake_mesh {
    TAILQ_HEAD(fake_records, fake_record) held, given;
    TAILQ_HEAD(fake_opens, fake_open) opens;
    size_t given_count, open_count, opened_ever;
    uint64_t wall_ms;
    uint64_t stamps;
    bool silent;      /* reads never end */
    int open_status;  /* what reads end with */
    int write_status; /* what writes end with */
    size_t open_max;  /* 0: any number */
    size_t listening;
    size_t published;
};

static inline void fake_mesh_init(struct fake_mesh *mesh)
{
    *mesh = (struct fake_mesh){.wall_ms = 1700000000000};
    TAILQ_INIT(&mesh->held);
    TAILQ_INIT(&mesh->given);
    TAILQ_INIT(&mesh->opens);
}

static inline void fake_records_free(struct fake_records *records)
{
    struct fake_record *record;
    while ((record = TAILQ_FIRST(records))) {
        TAILQ_REMOVE(records, record, entry);
        free(record);
    }
}

static inline void fake_mesh_release(struct fake_mesh *mesh)
{
    fake_records_free(&mesh->held);
    fake_records_free(&mesh->given);
}

static inline struct dht_version fake_stamp(void *ctx)
{
    struct fake_mesh *mesh = ctx;
    return (struct dht_version){mesh->wall_ms, ++mesh->stamps};
}

static inline struct fake_record *fake_keep(struct fake_records *records, const char *set,
                                            const struct set_change *change)
{
    struct fake_record *record = calloc(1, sizeof *record);
    if (!record)
        abort();
    record->change = *change;
    snprintf(record->set, sizeof record->set, "%s", set);
    if (change->name_len > 0)
        memcpy(record->name, change->name, change->name_len);
    record->change.name = record->name;
    TAILQ_INSERT_TAIL(records, record, entry);
    return record;
}

/* Another node has written: whoever has read the set is told. */
static inline void fake_put(struct fake_mesh *mesh, const char *set, const struct set_change *change)
{
    struct fake_record *record = fake_keep(&mesh->held, set, change);
    struct fake_open *open;
    TAILQ_FOREACH (open, &mesh->opens, entry) {
        if (open->opened && strcmp(open->set->name.bytes, set) == 0)
            sets_took(open->sets, open->set, &record->change);
    }
}

static inline void fake_put_member(struct fake_mesh *mesh, const char *set, const char *name, double score,
                                   uint64_t epoch)
{
    struct set_change change = {.name = name, .name_len = strlen(name), .score = score, .version = {epoch, 1}};
    fake_put(mesh, set, &change);
}

static inline int fake_open_set(void *ctx, struct sets *sets, struct set *set, void **ret_handle, struct err *err)
{
    struct fake_mesh *mesh = ctx;
    if (mesh->open_max && mesh->open_count >= mesh->open_max)
        return err_set(err, ERR_LIMIT, "too many are open");
    struct fake_open *open = calloc(1, sizeof *open);
    if (!open)
        abort();
    *open = (struct fake_open){.sets = sets, .set = set};
    TAILQ_INSERT_TAIL(&mesh->opens, open, entry);
    mesh->open_count++;
    mesh->opened_ever++;
    *ret_handle = open;
    return 0;
}

static inline void fake_close_set(void *ctx, void *handle)
{
    struct fake_mesh *mesh = ctx;
    struct fake_open *open = handle;
    TAILQ_REMOVE(&mesh->opens, open, entry);
    mesh->open_count--;
    free(open);
}

static inline int fake_write(void *ctx, const struct set *set, const struct set_change *change, struct err *err)
{
    struct fake_mesh *mesh = ctx;
    if (mesh->write_status < 0)
        return err_set(err, mesh->write_status, "the mesh takes no more");
    if (mesh->given_count < 10000)
        fake_keep(&mesh->given, set->name.bytes, change);
    mesh->given_count++;
    return 0;
}

static inline struct fake_open *fake_next_unopened(struct fake_mesh *mesh)
{
    struct fake_open *open;
    TAILQ_FOREACH (open, &mesh->opens, entry) {
        if (!open->opened)
            return open;
    }
    return NULL;
}

/* End the reads under way. */
static inline void fake_mesh_run(struct fake_mesh *mesh)
{
    struct fake_open *open;
    while (!mesh->silent && (open = fake_next_unopened(mesh))) {
        struct fake_record *record;
        open->opened = true;
        TAILQ_FOREACH (record, &mesh->held, entry) {
            if (strcmp(open->set->name.bytes, record->set) == 0)
                sets_took(open->sets, open->set, &record->change);
        }
        sets_opened(open->sets, open->set, mesh->open_status, 0);
    }
}

static inline struct sets_mesh fake_sets_mesh(struct fake_mesh *mesh)
{
    return (struct sets_mesh){fake_stamp, fake_open_set, fake_close_set, fake_write, mesh};
}

static inline int fake_listen(void *ctx, struct channels *channels, struct channel *channel, const void *name,
                              size_t name_len, void **ret_handle, struct err *err)
{
    (void)channels, (void)name, (void)name_len, (void)err;
    struct fake_mesh *mesh = ctx;
    mesh->listening++;
    *ret_handle = channel;
    return 0;
}

static inline void fake_ignore(void *ctx, void *handle)
{
    (void)handle;
    struct fake_mesh *mesh = ctx;
    mesh->listening--;
}

static inline int fake_publish(void *ctx, const void *name, size_t name_len, const void *message, size_t len_bytes,
                               struct err *err)
{
    (void)name, (void)name_len, (void)message, (void)len_bytes, (void)err;
    struct fake_mesh *mesh = ctx;
    mesh->published++;
    return 0;
}

static inline struct channels_mesh fake_channels_mesh(struct fake_mesh *mesh)
{
    return (struct channels_mesh){fake_listen, fake_ignore, fake_publish, mesh};
}
