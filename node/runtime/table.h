/*
 * The containers in memory, and who is at work on which.
 *
 * Whoever works on a container has taken its entry: no other operation starts until it gives it back, and it alone
 * changes it. Readers look at the container under the table's lock, so changes are published under it; they never wait
 * for the work itself.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "node/runtime/bundle.h"
#include "node/runtime/driver.h"
#include "node/runtime/runtime.h"

struct runtime_entry {
    struct runtime_container *container; /* owned */
    struct runtime_bundle bundle;
    int pid_fd; /* of its first process while it lives, or -1: cannot mean another process, as a pid can */
    bool taken;
};

struct runtime {
    struct runtime_options options; /* strings owned */
    char *containers_dir, *volumes_dir, *layers_dir, *engine_dir;
    struct driver *driver;   /* owned; NULL when we are not root */
    pthread_rwlock_t layers; /* read-held while layers are unpacked and noted in a record, write-held while unused go */

    pthread_mutex_t lock;                                  /* of what follows */
    pthread_cond_t given;                                  /* an entry was given back */
    struct runtime_entry *entries[RUNTIME_MAX_CONTAINERS]; /* owned, in no order */
    size_t count;
};

/* ERR_UNSUPPORTED with a remedy if no container can be run at all. */
int runtime_need_driver(const struct runtime *runtime, struct err *err);

void runtime_lock(struct runtime *runtime);
void runtime_unlock(struct runtime *runtime);

/* Add `container` (stolen on success) as an entry that the caller has taken. ERR_EXISTS if its name or id is there,
 * ERR_BUSY if it may not share its volumes, ERR_LIMIT. */
int runtime_table_add(struct runtime *runtime, struct runtime_container **container, struct runtime_entry **ret_entry,
                      struct err *err);

/* Wait until nobody works on it and take it. By name, id or prefix of the id; ERR_NOTFOUND. */
int runtime_table_take(struct runtime *runtime, const char *name, struct runtime_entry **ret_entry, struct err *err);
int runtime_table_take_id(struct runtime *runtime, const struct guid *id, struct runtime_entry **ret_entry,
                          struct err *err);
/* The index-th if nobody works on it, else NULL: never waits. */
struct runtime_entry *runtime_table_try(struct runtime *runtime, size_t index);

void runtime_table_give(struct runtime *runtime, struct runtime_entry *entry);
/* Instead of giving it back: forget it, but not its files. */
void runtime_table_drop(struct runtime *runtime, struct runtime_entry *entry);

/* By name, id or prefix of the id of 8 digits or more, with the lock held; NULL if there is none. */
struct runtime_entry *runtime_table_find(struct runtime *runtime, const char *name);
/* The name of a container that may use the volume now, with the lock held; NULL if none does. `writers_only`: that
 * mounts it read-write. */
const char *runtime_table_user_of(struct runtime *runtime, const struct guid *volume, bool writers_only);

/* Of a taken entry: write the record of `next`, which is its container but for numbers and state, and publish it. */
int runtime_table_save(struct runtime *runtime, struct runtime_entry *entry, const struct runtime_container *next,
                       struct err *err);
/* Without the record: a pid, which is no one's business but this machine's. */
void runtime_table_set_pid(struct runtime *runtime, struct runtime_entry *entry, pid_t pid);
