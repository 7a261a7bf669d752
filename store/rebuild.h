/*
 * A new index from the packs: the heart of fsck.c.
 *
 * First every record is read and checked, and gets a row without references. Then the recipes that count are followed,
 * which gives the references and tells which objects are complete. What nothing refers to is then dropped.
 */
#pragma once

#include "store/core.h"
#include "store/rows.h"

struct store_rebuild_root {
    struct id id;
    enum store_kind kind;
    uint64_t time_ms;
};

struct store_rebuild {
    struct store store;      /* enough of one to read packs by: packs_dir, packs and the new index as db */
    struct store_db *former; /* borrowed; NULL if it cannot be used */
    bool repair;
    struct store_fsck_report *report;
    store_fsck_cb cb; /* may be NULL */
    void *ctx;
    struct store_rebuild_root *roots; /* owned */
    size_t root_count;
    size_t roots_cap;
};

void store_rebuild_say(struct store_rebuild *rebuild, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Read all packs into the new index. */
int store_rebuild_scan(struct store_rebuild *rebuild, struct err *err);
/* Follow one recipe: 1 if its object is complete and has its digest, 0 if chunks are missing (it is a partial object
 * then), ERR_NOTFOUND if the recipe cannot be used, when nothing was counted. *info gets root, size, count and
 * chunking; its digest is given. */
int store_rebuild_follow(struct store_rebuild *rebuild, const struct id *root_id, struct store_object_info *info,
                         struct err *err);
/* Drop what has no references. */
int store_rebuild_drop_unused(struct store_rebuild *rebuild, struct err *err);
