/*
 * A pack as a killed process, a power cut or a bad disk may leave it: records of objects that are complete, records
 * that no commit has reached, and whatever the bytes make of them: they overwrite, forge records whose heads have the
 * right checksum, copy, zero, cut. The store opens whatever it finds, gives no bytes but right ones, and an object none
 * of whose bytes were touched is there as before, however much of what lies around it is a lie.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/crypto.h"
#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/base/wire.h"
#include "store/compress.h"
#include "store/pack.h"

#define KEPT 4u    /* objects that are complete, of one chunk each */
#define WANTED 4u  /* partial ones: of each second the recipe is committed, of the others it is ahead of its commit; */
#define WRITTEN 2u /* the chunks of so many were written, and not committed */
#define CONTENTS (KEPT + WANTED)
#define CONTENT_BYTES 4096u /* at most */
#define PACK_BYTES 65536u   /* at most */
#define STEPS_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

/* ---- the store before ---- */

struct content {
    uint8_t bytes[CONTENT_BYTES];
    size_t len;
    struct id digest; /* of the object, and of its only chunk */
    struct store_recipe *recipe;
    size_t end; /* of its records in the pack, of those that are kept; they begin where the last one's end */
};

static struct world {
    char dir[64];
    struct content contents[CONTENTS];
    uint8_t pack[PACK_BYTES];
    size_t pack_bytes;
    struct buf index; /* data.mdb */
    bool made;
} the_world;

static struct store *open_store(const char *dir)
{
    struct store_options options = {.dir = dir, .clock = clock_system()};
    struct store *store = NULL;
    struct err err;
    if (store_open(&options, &store, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return store;
}

static void new_dir(char dir[64])
{
    snprintf(dir, 64, "%s/cmig-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    expect(mkdtemp(dir));
}

static char *pack_of(const char *dir)
{
    char *path = file_path("%s/packs/%016x.pack", dir, 1);
    expect(path);
    return path;
}

static void put(struct store *store, const struct content *content)
{
    struct store_ingest *ingest = NULL;
    expect(store_ingest_new(store, STORE_LAYER, STORE_CHUNKING_ARCHIVE, &ingest, NULL) == 0);
    expect(store_ingest_write(ingest, content->bytes, content->len, NULL) == 0);
    expect(store_ingest_finish(ingest, NULL, NULL) == 0);
    store_ingest_free(ingest);
}

static void make_contents(struct world *world)
{
    char dir[64];
    new_dir(dir);
    struct store *store = open_store(dir);
    for (unsigned i = 0; i < CONTENTS; i++) {
        struct content *content = &world->contents[i];
        uint64_t seed = i + 1;
        struct rng rng = rng_seeded(&seed);
        content->len = 40 + 60 * i;
        rng.fill(rng.ctx, content->bytes, content->len);
        if (i % 2) { /* one that is kept compressed */
            memset(content->bytes, 'a' + (int)i, CONTENT_BYTES);
            content->len = CONTENT_BYTES - i;
        }
        crypto_sha256(content->bytes, content->len, &content->digest);
        put(store, content);
        expect(store_recipe_load(store, &content->digest, &content->recipe, NULL) == 1);
    }
    store_close(store);
    file_remove_tree(dir, NULL);
}

static size_t bytes_of_pack(const struct world *world)
{
    OWNED(owned_free) char *path = pack_of(world->dir);
    struct stat st;
    expect(stat(path, &st) == 0);
    return (size_t)st.st_size;
}

static void take_files(struct world *world)
{
    OWNED(owned_free) char *path = pack_of(world->dir);
    OWNED(owned_free) char *index = file_path("%s/index/data.mdb", world->dir);
    OWNED(buf_release) struct buf pack = BUF(PACK_BYTES);
    world->index = BUF(16u << 20);
    expect(file_read(path, &pack, NULL) == 0 && file_read(index, &world->index, NULL) == 0);
    memcpy(world->pack, pack.data, pack.len);
    world->pack_bytes = pack.len;
}

/* Both files as they are in the middle of the work: so a killed process leaves them. */
static void live(struct world *world)
{
    struct store *store = open_store(world->dir);
    struct store_assembly *assemblies[WANTED];
    for (unsigned i = 0; i < KEPT; i++) {
        put(store, &world->contents[i]);
        world->contents[i].end = bytes_of_pack(world);
    }
    for (unsigned i = 0; i < WANTED; i++) {
        const struct content *content = &world->contents[KEPT + i];
        expect(store_assembly_new(store, &content->digest, STORE_LAYER, content->recipe, &assemblies[i], NULL) == 0);
        if (i % 2)
            expect(store_assembly_sync(assemblies[i], NULL) == 0);
        if (i < WRITTEN)
            expect(store_assembly_add(assemblies[i], 0, STORE_RAW, content->bytes, content->len, NULL) == 0);
    }
    take_files(world);
    for (unsigned i = 0; i < WANTED; i++)
        store_assembly_free(assemblies[i]);
    store_close(store);
}

static void forget_world(void)
{
    file_remove_tree(the_world.dir, NULL);
    buf_release(&the_world.index);
    for (unsigned i = 0; i < CONTENTS; i++)
        store_recipe_free(the_world.contents[i].recipe);
}

static const struct world *world_of_all(void)
{
    struct world *world = &the_world;
    if (world->made)
        return world;
    expect(crypto_init(NULL) == 0);
    make_contents(world);
    new_dir(world->dir);
    live(world);
    world->made = true;
    atexit(forget_world);
    return world;
}

/* ---- what becomes of the pack ---- */

struct pack {
    uint8_t bytes[PACK_BYTES];
    size_t len;
};

/* Bytes behind the end make it longer. */
static uint8_t *reach(struct pack *pack, size_t at, size_t len)
{
    if (at + len > PACK_BYTES)
        return NULL;
    if (pack->len < at + len)
        pack->len = at + len;
    return pack->bytes + at;
}

/* The body of a content, raw or compressed; its length. */
static size_t body_of(const struct content *content, enum store_encoding encoding, uint8_t *ret_body)
{
    struct store_compress *press;
    size_t len = content->len;
    const uint8_t *body = content->bytes;
    expect(store_compress_new(&press, NULL) == 0);
    const uint8_t *pressed = encoding == STORE_ZSTD ? store_compress_chunk(press, body, len, &len) : NULL;
    if (!pressed)
        len = content->len;
    memcpy(ret_body, pressed ? pressed : body, len);
    store_compress_free(press);
    return len;
}

/* A record of a content, as it should be but for what the bytes say otherwise. */
static void forge(struct pack *pack, const struct world *world, struct wire *wire, size_t at)
{
    uint8_t which = wire_get_u8(wire);
    uint8_t lies = wire_get_u8(wire);
    const struct content *content = &world->contents[which % CONTENTS];
    uint8_t body[CONTENT_BYTES];
    enum store_encoding encoding = which & 0x40 ? STORE_ZSTD : STORE_RAW;
    size_t len = body_of(content, encoding, body);
    struct store_record record = {.type = STORE_PIECE_CHUNK,
                                  .encoding = encoding,
                                  .id = content->digest,
                                  .raw_bytes = (uint32_t)content->len,
                                  .stored_bytes = (uint32_t)len};
    if (lies & 1)
        record.stored_bytes = wire_get_u16(wire);
    if (lies & 2)
        record.raw_bytes = wire_get_u32(wire);
    if (lies & 4)
        record.type = wire_get_u8(wire);
    if (lies & 8)
        record.id.b[0] ^= wire_get_u8(wire);
    record.is_ahead = lies & 64;
    if (lies & 16)
        body[0] ^= 1;
    uint8_t head[STORE_RECORD_HEAD_BYTES];
    store_pack_encode_head(&record, head);
    uint8_t *to = reach(pack, at, sizeof head);
    if (to)
        memcpy(to, head, sizeof head);
    to = lies & 32 ? NULL : reach(pack, at + sizeof head, len);
    if (to)
        memcpy(to, body, len);
}

static void copy_range(struct pack *pack, struct wire *wire, size_t at)
{
    size_t from = wire_get_u16(wire);
    size_t len = wire_get_u16(wire);
    uint8_t *to = from + len <= pack->len ? reach(pack, at, len) : NULL;
    if (to)
        memmove(to, pack->bytes + from, len);
}

static void set_range(struct pack *pack, struct wire *wire, size_t at, bool zero)
{
    size_t len = zero ? wire_get_u16(wire) : wire_get_u8(wire);
    const uint8_t *from = zero ? NULL : wire_get_bytes(wire, len);
    uint8_t *to = zero || from ? reach(pack, at, len) : NULL;
    if (to && zero)
        memset(to, 0, len);
    else if (to)
        memcpy(to, from, len);
}

static void cut(struct pack *pack, size_t len)
{
    if (pack->len < len)
        memset(pack->bytes + pack->len, 0, len - pack->len);
    pack->len = len;
}

static void step(struct pack *pack, const struct world *world, struct wire *wire)
{
    uint8_t op = wire_get_u8(wire);
    size_t at = wire_get_u16(wire);
    if (op & 0x80) /* from what the index knows of on: the more interesting half */
        at = (at + world->contents[KEPT - 1].end) % PACK_BYTES;
    switch (op & 7) {
    case 0:
        set_range(pack, wire, at, false);
        break;
    case 1:
        set_range(pack, wire, at, true);
        break;
    case 2:
        copy_range(pack, wire, at);
        break;
    case 3:
        cut(pack, at);
        break;
    case 4:
        if (at < pack->len)
            pack->bytes[at] ^= (uint8_t)(1u << (op >> 3 & 7));
        break;
    case 5: /* at the end */
        forge(pack, world, wire, pack->len);
        break;
    default:
        forge(pack, world, wire, at);
    }
}

/* ---- the store after ---- */

static void write_out(const struct world *world, const struct pack *pack)
{
    OWNED(owned_free) char *packs = file_path("%s/packs", world->dir);
    OWNED(owned_free) char *path = pack_of(world->dir);
    OWNED(owned_free) char *index = file_path("%s/index", world->dir);
    OWNED(owned_free) char *data = file_path("%s/index/data.mdb", world->dir);
    expect(file_remove_tree(packs, NULL) == 0 && file_remove_tree(index, NULL) == 0);
    expect(file_make_dirs(packs, 0700, NULL) == 0 && file_make_dirs(index, 0700, NULL) == 0);
    expect(file_write_atomic(path, pack->bytes, pack->len, 0600, NULL) == 0);
    expect(file_write_atomic(data, world->index.data, world->index.len, 0600, NULL) == 0);
}

static void check_kept(struct store *store, const struct world *world, const struct pack *pack)
{
    uint8_t back[CONTENT_BYTES];
    for (unsigned i = 0; i < KEPT; i++) {
        const struct content *content = &world->contents[i];
        size_t start = i > 0 ? content[-1].end : 0;
        size_t len = 0;
        bool untouched =
            pack->len >= content->end && memcmp(pack->bytes + start, world->pack + start, content->end - start) == 0;
        int status = store_object_read(store, &content->digest, 0, back, sizeof back, &len, NULL);
        expect(status == 0 || !untouched);
        expect(status < 0 || (len == content->len && memcmp(back, content->bytes, len) == 0));
    }
}

static void check_wanted(struct store *store, const struct world *world)
{
    uint8_t back[LIMIT_CHUNK_BYTES];
    for (unsigned i = KEPT; i < CONTENTS; i++) {
        const struct content *content = &world->contents[i];
        size_t len = 0;
        int got = store_piece_read_raw(store, STORE_PIECE_CHUNK, &content->digest, back, LIMIT_CHUNK_BYTES, &len, NULL);
        expect(got != 1 || (len == content->len && memcmp(back, content->bytes, len) == 0));
    }
}

/* What is missing comes again, what stands before records that are right is mended; then all of it is there. */
static void complete(struct store *store, const struct world *world)
{
    int more;
    while ((more = store_scrub_step(store, UINT64_MAX, NULL, NULL)) == 1)
        continue;
    expect(more == 0);
    expect(store_rot_take(store, NULL, NULL, NULL) >= 0);
    expect(store_maintain(store, NULL) == 0);
    for (unsigned i = 0; i < CONTENTS; i++) {
        uint8_t back[CONTENT_BYTES];
        size_t len;
        const struct content *content = &world->contents[i];
        put(store, content);
        expect(store_object_read(store, &content->digest, 0, back, sizeof back, &len, NULL) == 0);
    }
}

/* Not beside libFuzzer's threads: fsck looks at the index in a child, and memory is nobody's to take there. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
static void check_sound(const struct world *world)
{
    (void)world;
}
#else
static void check_sound(const struct world *world)
{
    struct store_fsck_report report;
    int sound = store_fsck(world->dir, false, clock_system(), &report, NULL, NULL, NULL);
    expect(sound >= 0 && report.index_usable && report.objects == CONTENTS);
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct world *world = world_of_all();
    OWNED(owned_free) struct pack *pack = malloc(sizeof *pack);
    struct wire wire;
    expect(pack);
    memcpy(pack->bytes, world->pack, world->pack_bytes);
    pack->len = world->pack_bytes;
    wire_init(&wire, data, size);
    for (unsigned i = 0; i < STEPS_MAX && wire_left(&wire) > 0; i++)
        step(pack, world, &wire);
    write_out(world, pack);
    for (int opened = 0; opened < 2; opened++) { /* the second time everything is closed, and was tidied up */
        struct store *store = open_store(world->dir);
        check_kept(store, world, pack);
        check_wanted(store, world);
        if (opened == 1)
            complete(store, world);
        store_close(store);
    }
    check_sound(world);
    return 0;
}
