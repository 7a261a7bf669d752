/* A store in a directory of its own, and bytes to put into it. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/base/clock.h"
#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "store/store.h"

#define must(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail_msg("%s: %s", #call, err.text);                                                                       \
    } while (0)

struct fixture {
    char dir[64];
    struct store_options options;
    struct store *store;
    uint64_t wall_ms; /* of the fixture's clock */
};

static inline uint64_t fixture_now(void *ctx)
{
    return ((struct fixture *)ctx)->wall_ms;
}

static inline void fixture_open(struct fixture *f)
{
    struct err err = {0};
    must(store_open(&f->options, &f->store, &err));
}

static inline void fixture_reopen(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
    fixture_open(f);
}

static inline int fixture_setup(void **state)
{
    struct err err = {0};
    must(crypto_init(&err));
    struct fixture *f = calloc(1, sizeof *f);
    /* In memory where that is possible: what is tested is order, not the patience of a disk. */
    strcpy(f->dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/cmig-store-XXXXXX" : "/tmp/cmig-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->wall_ms = 1700000000000;
    f->options = (struct store_options){.dir = f->dir, .clock = {fixture_now, fixture_now, f}};
    fixture_open(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    store_close(f->store);
    must(file_remove_tree(f->dir, &err));
    free(f);
    return 0;
}

/* Incompressible bytes of a seed; free with free. */
static inline uint8_t *fixture_bytes(uint64_t seed, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    struct rng rng = rng_seeded(&seed);
    rng.fill(rng.ctx, bytes, len);
    return bytes;
}

static inline void fixture_put(struct store *store, enum store_kind kind, const void *data, size_t len,
                               struct store_object_info *ret_info)
{
    struct err err = {0};
    struct store_ingest *ingest;
    must(store_ingest_new(store, kind, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, data, len, &err));
    must(store_ingest_finish(ingest, ret_info, &err));
    store_ingest_free(ingest);
}

/* The object is there, and reads as these bytes. */
static inline void fixture_expect(struct store *store, const struct id *digest, const void *data, size_t len)
{
    struct err err = {0};
    struct store_reader *reader;
    must(store_reader_open(store, digest, &reader, &err));
    uint8_t *back = malloc(len + 1);
    size_t done = 0;
    size_t got = 1;
    while (got > 0) {
        must(store_reader_read(reader, back + done, len + 1 - done, &got, &err));
        done += got;
    }
    assert_int_equal(done, len);
    assert_memory_equal(back, data, len);
    free(back);
    store_reader_close(reader);
}

static inline uint64_t fixture_pack_bytes(struct store *store)
{
    struct err err = {0};
    struct store_usage usage;
    must(store_usage(store, &usage, &err));
    return usage.pack_bytes;
}

/* The recipe of an object of one store, for assembling it in another. */
static inline struct store_recipe *fixture_recipe(struct store *store, const struct id *digest)
{
    struct err err = {0};
    struct store_recipe *recipe = NULL;
    must(store_recipe_load(store, digest, &recipe, &err));
    assert_non_null(recipe);
    return recipe;
}

static inline void fixture_say(const char *finding, void *ctx)
{
    (void)ctx;
    print_message("fsck: %s\n", finding);
}

/* Closes the store, has it checked, and opens it again. Returns what was found, all of it sound. */
static inline struct store_fsck_report fixture_check_sound(struct fixture *f)
{
    struct err err = {0};
    struct store_fsck_report report;
    store_close(f->store);
    f->store = NULL;
    int sound = store_fsck(f->dir, false, f->options.clock, &report, fixture_say, NULL, &err);
    must(sound);
    assert_int_equal(sound, 1);
    fixture_open(f);
    return report;
}
