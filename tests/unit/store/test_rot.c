/* Bytes on disk that are not what was written: found on every path, named, traced to the objects, and repaired. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fixture.h"
#include "store/pack.h"

static off_t bad_sector = -1; /* reads that cover this byte of a file fail */
static bool bad_disk;         /* all reads in the directory of the packs fail */
static bool bad_pack;         /* all reads of packs fail */
static int refusals = -1;     /* so many reads of the bad sector fail, then it can be read; -1: all */

static bool is_named(int fd, const char *part)
{
    char link[32];
    char path[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && strstr(path, part);
}

/* In front of libc's. */
static ssize_t read_disk(int fd, void *data, size_t len, off_t offset)
{
    struct stat st;
    bool is_bad = bad_sector >= offset && bad_sector < offset + (off_t)len && fstat(fd, &st) == 0 &&
                  st.st_size > bad_sector && refusals != 0;
    if (is_bad || (bad_disk && is_named(fd, "/packs/")) || (bad_pack && is_named(fd, ".pack"))) {
        refusals -= refusals > 0;
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, data, len, offset);
}

ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
    return read_disk(fd, data, len, offset);
}

ssize_t pread64(int fd, void *data, size_t len, off64_t offset)
{
    return read_disk(fd, data, len, offset);
}

static const char *leaves[2]; /* when the name of a file is looked up next, the first of these becomes the second */

int lstat(const char *path, struct stat *ret_st)
{
    if (leaves[0] && rename(leaves[0], leaves[1]) == 0)
        leaves[0] = NULL;
    return fstatat(AT_FDCWD, path, ret_st, AT_SYMLINK_NOFOLLOW);
}

/* ---- a small store and a record of it ---- */

#define BYTES 400000u

struct small {
    struct fixture *f;
    uint8_t *bytes; /* owned; two objects, which share their first half */
    struct store_object_info info[2];
    struct store_recipe *recipe[2]; /* owned */
    char *pack;                     /* owned; path of the first */
};

static void small_fill(struct small *small)
{
    struct err err = {0};
    for (int i = 0; i < 2; i++) {
        small->bytes[BYTES - 1] = (uint8_t)i;
        fixture_put(small->f->store, STORE_LAYER, small->bytes, BYTES, &small->info[i]);
        if (!small->recipe[i])
            small->recipe[i] = fixture_recipe(small->f->store, &small->info[i].digest);
    }
    assert_int_equal(store_rot_waiting(small->f->store), 0);
    assert_int_equal(store_rot_take(small->f->store, NULL, NULL, &err), 0);
}

static void small_make(struct small *small, struct fixture *f)
{
    *small = (struct small){.f = f, .bytes = fixture_bytes(9, BYTES)};
    memset(small->bytes + 100000, 'z', 100000); /* a chunk or two that are compressed */
    small->pack = file_path("%s/packs/%016x.pack", f->dir, 1);
    small_fill(small);
}

static void small_release(struct small *small)
{
    for (int i = 0; i < 2; i++)
        store_recipe_free(small->recipe[i]);
    free(small->bytes);
    free(small->pack);
}

static void small_renew(struct small *small)
{
    struct err err = {0};
    store_close(small->f->store);
    small->f->store = NULL;
    must(file_remove_tree(small->f->dir, &err));
    fixture_open(small->f);
    small_fill(small);
}

static const uint8_t *object_bytes(struct small *small, int i)
{
    small->bytes[BYTES - 1] = (uint8_t)i;
    return small->bytes;
}

struct records {
    struct store_record records[64];
    uint64_t offsets[64];
    size_t count;
};

static int remember(const struct store_record *record, uint64_t offset, uint64_t len, void *ctx)
{
    struct records *records = ctx;
    (void)len;
    assert_non_null(record);
    records->records[records->count] = *record;
    records->offsets[records->count++] = offset;
    return 0;
}

static void list_records(struct small *small, struct records *ret_records)
{
    struct err err = {0};
    struct store_pack *pack = NULL;
    bool cut;
    OWNED(owned_free) char *packs = file_path("%s/packs", small->f->dir);
    ret_records->count = 0;
    must(store_pack_open(packs, 1, false, &pack, &err));
    must(store_pack_scan(pack, remember, ret_records, &cut, &err));
    store_pack_unref(pack);
}

static void flip(const char *path, uint64_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_int_equal(syscall(SYS_pread64, fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* ---- findings ---- */

struct findings {
    struct store_rot rots[64];
    size_t count;
};

static void take_one(const struct store_rot *rot, void *ctx)
{
    struct findings *findings = ctx;
    assert_in_range(findings->count, 0, 63);
    findings->rots[findings->count++] = *rot;
}

static int count_broken(const struct store_broken *broken, void *ctx)
{
    assert_int_equal(broken->kind, STORE_LAYER);
    assert_int_equal(broken->since_ms, 1700000000000);
    ++*(int *)ctx;
    return 0;
}

static int count_any(const struct store_broken *broken, void *ctx)
{
    (void)broken;
    ++*(int *)ctx;
    return 0;
}

static int broken(struct store *store)
{
    struct err err = {0};
    int count = 0;
    must(store_broken_each(store, count_broken, &count, &err));
    return count;
}

static void take(struct store *store, struct findings *ret_findings)
{
    struct err err = {0};
    ret_findings->count = 0;
    uint64_t waiting = store_rot_waiting(store);
    int64_t took = store_rot_take(store, take_one, ret_findings, &err);
    must(took);
    assert_int_equal(took, waiting);
    assert_int_equal(ret_findings->count, waiting);
    assert_int_equal(store_rot_waiting(store), 0);
}

/* Which of both objects lists the piece? */
static bool needs(const struct small *small, int i, const struct store_rot *rot)
{
    const struct store_recipe *recipe = small->recipe[i];
    bool found = id_equal(&recipe->root_id, &rot->id);
    for (uint32_t leaf = 0; leaf < recipe->root.leaf_count; leaf++)
        found = found || id_equal(&recipe->root.leaves[leaf].id, &rot->id);
    for (uint32_t chunk = 0; chunk < recipe->root.chunk_count; chunk++)
        found = found || id_equal(&recipe->chunks[chunk].id, &rot->id);
    return found;
}

/* Objects that are not complete come again, piece by piece; nothing is wrong afterwards. */
static void repair(struct small *small)
{
    struct err err = {0};
    for (int i = 0; i < 2; i++) {
        const struct store_recipe *recipe = small->recipe[i];
        const uint8_t *bytes = object_bytes(small, i);
        struct store_assembly *assembly = NULL;
        must(store_assembly_new(small->f->store, &recipe->root.object, STORE_LAYER, recipe, &assembly, &err));
        for (uint32_t chunk = 0; assembly && chunk < recipe->root.chunk_count; chunk++)
            must(store_assembly_add(assembly, chunk, STORE_RAW, bytes + recipe->offsets[chunk],
                                    recipe->chunks[chunk].length, &err));
        if (assembly)
            must(store_assembly_finish(assembly, NULL, &err));
        store_assembly_free(assembly);
        fixture_expect(small->f->store, &recipe->root.object, bytes, BYTES);
    }
    assert_int_equal(broken(small->f->store), 0);
    assert_int_equal(store_rot_waiting(small->f->store), 0);
}

static void expect_sound(struct small *small, uint64_t objects)
{
    struct err err = {0};
    struct store_fsck_report report;
    store_close(small->f->store);
    small->f->store = NULL;
    int sound = store_fsck(small->f->dir, false, small->f->options.clock, &report, NULL, NULL, &err);
    must(sound);
    assert_int_equal(sound, 1);
    assert_int_equal(report.objects, objects);
    fixture_open(small->f);
}

/* ---- every byte ---- */

enum path { SERVE, READ, RAW, PATHS };

/* Ask for everything on one of the paths: true if one piece was refused as corrupt, wrong bytes never come. */
static bool ask_for_all(struct small *small, const struct records *records, enum path path)
{
    struct err err = {0};
    struct store *store = small->f->store;
    uint8_t *back = malloc(STORE_ROOT_MAX_BYTES);
    bool refused = false;
    if (path == READ) {
        for (int i = 0; i < 2; i++) {
            size_t len = 0;
            int status = store_object_read(store, &small->info[i].digest, 0, back, BYTES, &len, &err);
            assert_true(status == 0 || status == ERR_CORRUPT);
            refused = refused || status < 0;
            if (status == 0)
                assert_true(len == BYTES && memcmp(back, object_bytes(small, i), BYTES) == 0);
        }
    }
    for (size_t i = 0; i < records->count && path != READ; i++) {
        const struct store_record *record = &records->records[i];
        struct store_piece piece = {.encoding = STORE_RAW};
        size_t len = 0;
        int got = path == SERVE
                      ? store_piece_read(store, record->type, &record->id, back, STORE_ROOT_MAX_BYTES, &piece, &err)
                      : store_piece_read_raw(store, record->type, &record->id, back, STORE_ROOT_MAX_BYTES, &len, &err);
        assert_true(got == 1 || (got == ERR_CORRUPT && !refused));
        if (got != 1) {
            refused = true;
            /* and is not here any more */
            assert_int_equal(
                store_piece_read(store, record->type, &record->id, back, STORE_ROOT_MAX_BYTES, &piece, &err), 0);
        } else if (piece.encoding == STORE_RAW) {
            struct id id;
            crypto_sha256(back, record->raw_bytes, &id);
            assert_true(id_equal(&id, &record->id));
        }
    }
    free(back);
    return refused;
}

/* faults 56: each field of the head, and the front, middle and end of the body, of each record, on each path */
static void test_rot__is_found_wherever_it_is_and_repaired(void **state)
{
    struct small small;
    small_make(&small, *state);
    static const int fields[] = {0, 4, 5, 6, 7, 8, 39, 40, 44, 48, 56, 63};
    struct records records;
    list_records(&small, &records);
    assert_true(records.count > 8);
    for (size_t r = 0; r < records.count; r++) {
        const struct store_record *record = &records.records[r];
        for (int place = 0; place < 15; place++) {
            bool in_head = place < 12;
            uint64_t at = in_head ? (uint64_t)fields[place]
                                  : STORE_RECORD_HEAD_BYTES + (uint64_t)(place - 12) * (record->stored_bytes - 1) / 2;
            small_renew(&small);
            flip(small.pack, records.offsets[r] + at);
            bool refused = ask_for_all(&small, &records, (enum path)(place % PATHS));
            if (in_head) /* what reading does not need; the scrub and fsck look at it */
                assert_false(refused);
            else
                assert_true(refused);
            struct findings findings;
            take(small.f->store, &findings);
            assert_int_equal(findings.count, refused);
            if (refused) {
                assert_int_equal(findings.rots[0].type, record->type);
                assert_true(id_equal(&findings.rots[0].id, &record->id));
                assert_int_equal(findings.rots[0].pack, 1);
                assert_int_equal(findings.rots[0].offset, records.offsets[r]);
                assert_int_equal(findings.rots[0].cause, STORE_ROT_BYTES);
                int needed = 0;
                for (int i = 0; i < 2; i++) {
                    bool need = needs(&small, i, &findings.rots[0]);
                    needed += need;
                    assert_int_equal(store_object_stat(small.f->store, &small.info[i].digest, NULL, NULL), !need);
                }
                assert_int_equal(broken(small.f->store), needed);
            }
            repair(&small);
            if (refused)
                expect_sound(&small, 2);
        }
    }
    small_release(&small);
}

/* ---- whole packs ---- */

static const char *const ways[] = {"missing", "symlink", "fifo", "directory", "cut", "unreadable"};
static const enum store_rot_cause causes[] = {STORE_ROT_MISSING, STORE_ROT_ODD, STORE_ROT_ODD,
                                              STORE_ROT_ODD,     STORE_ROT_CUT, STORE_ROT_UNREADABLE};

static void spoil(struct small *small, int way)
{
    OWNED(owned_free) char *elsewhere = file_path("%s/elsewhere", small->f->dir);
    struct stat st;
    assert_int_equal(stat(small->pack, &st), 0);
    if (way == 4)
        assert_int_equal(truncate(small->pack, st.st_size / 2), 0);
    if (way == 5)
        bad_sector = 200;
    if (way >= 4)
        return;
    assert_int_equal(rename(small->pack, elsewhere), 0);
    if (way == 1)
        assert_int_equal(symlink("../elsewhere", small->pack), 0);
    else if (way == 2)
        assert_int_equal(mkfifo(small->pack, 0600), 0);
    else if (way == 3)
        assert_int_equal(mkdir(small->pack, 0700), 0);
}

/* faults 55, 56: named, once, at the start or at the first read; other packs read on; all of it can come again */
static void test_rot__packs_that_are_gone_cost_what_was_in_them(void **state)
{
    struct small small;
    small_make(&small, *state);
    for (int way = 0; way < 6; way++) {
        print_message("%s\n", ways[way]);
        small_renew(&small);
        struct store_object_info other;
        uint8_t *kept = fixture_bytes(77, 300000);
        fixture_reopen(small.f); /* the first pack is closed now, the next one takes what follows */
        fixture_put(small.f->store, STORE_LAYER, kept, 300000, &other);
        store_close(small.f->store);
        small.f->store = NULL;
        spoil(&small, way);
        fixture_open(small.f);
        if (way == 5) {
            uint8_t byte;
            size_t len;
            struct err err = {0};
            assert_int_equal(store_object_read(small.f->store, &small.info[0].digest, 0, &byte, 1, &len, &err),
                             ERR_CORRUPT);
        }
        struct findings findings;
        take(small.f->store, &findings);
        bad_sector = -1;
        assert_true(way == 5 ? findings.count == 1 : findings.count > 3);
        for (size_t i = 0; i < findings.count; i++) {
            assert_int_equal(findings.rots[i].cause, causes[way]);
            assert_int_equal(findings.rots[i].pack, 1);
        }
        assert_int_equal(broken(small.f->store), 2);
        fixture_expect(small.f->store, &other.digest, kept, 300000);
        repair(&small);
        expect_sound(&small, 3);
        fixture_expect(small.f->store, &other.digest, kept, 300000);
        free(kept);
    }
    small_release(&small);
}

static void test_rot__a_pack_that_goes_while_it_is_written_is_not_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, 300000);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, bytes, 300000, &err));
    OWNED(owned_free) char *pack = file_path("%s/packs/%016x.pack", f->dir, 1);
    assert_int_equal(unlink(pack), 0);
    assert_int_equal(store_ingest_finish(ingest, NULL, &err), ERR_IO);
    assert_non_null(strstr(err.text, "deleted"));
    store_ingest_free(ingest);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, 300000, &info);
    fixture_reopen(f);
    fixture_expect(f->store, &info.digest, bytes, 300000);
    free(bytes);
}

/* A finding and what it broke are there after a restart; what came again before it was taken is not broken. */
static void test_rot__findings_survive_a_restart(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct records records;
    list_records(&small, &records);
    flip(small.pack, records.offsets[0] + STORE_RECORD_HEAD_BYTES);
    assert_true(ask_for_all(&small, &records, SERVE));
    assert_int_equal(store_rot_waiting(small.f->store), 1);
    fixture_reopen(small.f);
    assert_int_equal(store_rot_waiting(small.f->store), 1);
    struct findings findings;
    take(small.f->store, &findings);
    assert_int_equal(broken(small.f->store), 2);
    fixture_reopen(small.f);
    assert_int_equal(broken(small.f->store), 2);
    repair(&small);

    small_renew(&small);
    flip(small.pack, records.offsets[0] + STORE_RECORD_HEAD_BYTES);
    assert_true(ask_for_all(&small, &records, SERVE));
    struct store_object_info info; /* brings the first chunk with it */
    fixture_put(small.f->store, STORE_LAYER, small.bytes, 100000, &info);
    take(small.f->store, &findings);
    assert_int_equal(findings.count, 1);
    assert_int_equal(broken(small.f->store), 0);
    repair(&small);

    assert_int_equal(store_object_remove(small.f->store, &small.info[0].digest, NULL), 1);
    small_release(&small);
}

/* What was broken is so no more when it is given up. */
static void test_rot__the_list_forgets_what_is_dropped(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct records records;
    list_records(&small, &records);
    flip(small.pack, records.offsets[0] + STORE_RECORD_HEAD_BYTES);
    ask_for_all(&small, &records, READ);
    assert_int_equal(broken(small.f->store), 2);
    struct findings findings;
    take(small.f->store, &findings);
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_partial_drop(small.f->store, &small.info[i].digest, NULL), 1);
    assert_int_equal(broken(small.f->store), 0);
    assert_int_equal(fixture_pack_bytes(small.f->store), 0);
    small_release(&small);
}

/* faults 57: packs on a disk that is not mounted are not forgotten; if they are lost, fsck says what to fetch */
static void test_rot__no_pack_at_all_is_somebodys_mistake(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct err err = {0};
    uint8_t *more = fixture_bytes(50, 300000);
    struct store_object_info info;
    fixture_reopen(small.f);
    fixture_put(small.f->store, STORE_LAYER, more, 300000, &info);
    store_close(small.f->store);
    small.f->store = NULL;
    OWNED(owned_free) char *packs = file_path("%s/packs", small.f->dir);
    OWNED(owned_free) char *aside = file_path("%s/aside", small.f->dir);
    assert_int_equal(rename(packs, aside), 0);
    assert_int_equal(store_open(&small.f->options, &small.f->store, &err), ERR_IO);
    assert_non_null(strstr(err.text, "not mounted"));
    assert_int_equal(rmdir(packs), 0);
    assert_int_equal(rename(aside, packs), 0);
    fixture_open(small.f);
    fixture_expect(small.f->store, &info.digest, more, 300000);
    assert_int_equal(broken(small.f->store), 0);

    store_close(small.f->store);
    small.f->store = NULL;
    must(file_remove_tree(packs, &err));
    struct store_fsck_report report;
    assert_int_equal(store_fsck(small.f->dir, true, small.f->options.clock, &report, NULL, NULL, &err), 0);
    assert_int_equal(report.objects_lost, 3);
    fixture_open(small.f);
    int lost = 0;
    must(store_broken_each(small.f->store, count_any, &lost, &err));
    assert_int_equal(lost, 3);
    must(store_partial_drop(small.f->store, &info.digest, &err)); /* nobody wants this one any more */
    repair(&small);
    free(more);
    small_release(&small);
}

/* A disk that goes away while it is used, and comes back, costs nothing either. */
static void test_rot__a_disk_that_is_away_for_a_while_is_no_rot(void **state)
{
    struct small small;
    small_make(&small, *state);
    uint8_t *more = fixture_bytes(50, 300000);
    struct store_object_info info;
    fixture_reopen(small.f);
    fixture_put(small.f->store, STORE_LAYER, more, 300000, &info);
    fixture_reopen(small.f);
    OWNED(owned_free) char *packs = file_path("%s/packs", small.f->dir);
    OWNED(owned_free) char *aside = file_path("%s/aside", small.f->dir);
    assert_int_equal(rename(packs, aside), 0);
    for (int with_dir = 0; with_dir < 2; with_dir++) {
        struct err err = {0};
        uint8_t byte;
        size_t len;
        assert_int_equal(store_object_read(small.f->store, &info.digest, 0, &byte, 1, &len, &err), ERR_IO);
        while (store_scrub_step(small.f->store, UINT64_MAX, NULL, NULL) == 1)
            ;
        assert_int_equal(store_rot_waiting(small.f->store), 0);
        assert_int_equal(with_dir ? rmdir(packs) : mkdir(packs, 0700), 0);
    }
    assert_int_equal(rename(aside, packs), 0);
    for (int i = 0; i < 2; i++)
        fixture_expect(small.f->store, &small.info[i].digest, object_bytes(&small, i), BYTES);
    fixture_expect(small.f->store, &info.digest, more, 300000);
    assert_int_equal(broken(small.f->store), 0);
    free(more);
    small_release(&small);
}

/* ---- the marker of the disk ---- */

static char *marker_of(const struct small *small)
{
    return file_path("%s/packs/disk", small->f->dir);
}

static void look_for_mount(const char *finding, void *ctx)
{
    bool *told = ctx;
    *told = *told || strstr(finding, "not mounted");
}

/* faults 57: the only pack is not there, with its disk or without it */
static void test_rot__the_only_pack_is_away_or_lost(void **state)
{
    struct small small;
    small_make(&small, *state);
    OWNED(owned_free) char *packs = file_path("%s/packs", small.f->dir);
    OWNED(owned_free) char *aside = file_path("%s/aside", small.f->dir);
    struct err err = {0};
    store_close(small.f->store);
    small.f->store = NULL;
    assert_int_equal(rename(packs, aside), 0);
    for (int i = 0; i < 2; i++) { /* the first makes the directory */
        assert_int_equal(store_open(&small.f->options, &small.f->store, &err), ERR_IO);
        assert_non_null(strstr(err.text, "not mounted, so mount it"));
    }
    struct store_fsck_report report;
    bool told = false;
    assert_int_equal(store_fsck(small.f->dir, false, small.f->options.clock, &report, look_for_mount, &told, &err), 0);
    assert_true(told);
    assert_int_equal(rmdir(packs), 0); /* nothing was put there */
    assert_int_equal(rename(aside, packs), 0);
    fixture_open(small.f);
    for (int i = 0; i < 2; i++)
        fixture_expect(small.f->store, &small.info[i].digest, object_bytes(&small, i), BYTES);
    assert_int_equal(broken(small.f->store), 0);

    assert_int_equal(unlink(small.pack), 0);
    fixture_reopen(small.f);
    struct findings findings;
    take(small.f->store, &findings);
    assert_true(findings.count > 3);
    assert_int_equal(findings.rots[0].cause, STORE_ROT_MISSING);
    assert_int_equal(broken(small.f->store), 2);
    repair(&small);
    expect_sound(&small, 2);
    small_release(&small);
}

/* A store without a pack has a disk too, and what is written goes there or nowhere. */
static void test_rot__nothing_is_written_under_a_disk_that_is_away(void **state)
{
    struct fixture *f = *state;
    OWNED(owned_free) char *packs = file_path("%s/packs", f->dir);
    OWNED(owned_free) char *aside = file_path("%s/aside", f->dir);
    OWNED(owned_free) uint8_t *bytes = fixture_bytes(8, 100000);
    struct err err = {0};
    assert_int_equal(rename(packs, aside), 0);
    assert_int_equal(mkdir(packs, 0700), 0);
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    int status = store_ingest_write(ingest, bytes, 100000, &err);
    if (status == 0)
        status = store_ingest_finish(ingest, NULL, &err);
    assert_int_equal(status, ERR_IO);
    store_ingest_free(ingest);
    store_close(f->store);
    f->store = NULL;
    assert_int_equal(store_open(&f->options, &f->store, &err), ERR_IO);
    assert_int_equal(rmdir(packs), 0);
    assert_int_equal(rename(aside, packs), 0);
    fixture_open(f);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, 100000, &info);
}

/* Damaged, gone, a link, a store from before there were markers: packs tell that the disk is there. */
static void test_rot__the_marker_is_mended(void **state)
{
    struct small small;
    small_make(&small, *state);
    OWNED(owned_free) char *marker = marker_of(&small);
    struct buf first = BUF(100);
    struct err err = {0};
    must(file_read(marker, &first, &err));
    for (int way = 0; way < 4; way++) {
        struct buf now = BUF(100);
        assert_int_equal(unlink(marker), 0);
        if (way == 1)
            must(file_write_atomic(marker, "short\n", 6, 0600, &err));
        else if (way == 2)
            assert_int_equal(symlink("/dev/zero", marker), 0);
        else if (way == 3)
            assert_int_equal(mkfifo(marker, 0600), 0);
        fixture_reopen(small.f);
        must(file_read(marker, &now, &err));
        assert_string_equal(buf_str(&now), buf_str(&first));
        buf_release(&now);
    }
    for (int i = 0; i < 2; i++)
        fixture_expect(small.f->store, &small.info[i].digest, object_bytes(&small, i), BYTES);
    buf_release(&first);
    small_release(&small);
}

/* The disk of another store is mounted there; fsck makes it this one's, if that is what is wanted. */
static void test_rot__another_stores_disk_is_refused(void **state)
{
    struct small small;
    small_make(&small, *state);
    OWNED(owned_free) char *packs = file_path("%s/packs", small.f->dir);
    OWNED(owned_free) char *mine = file_path("%s/mine", small.f->dir);
    struct err err = {0};
    void *other_state;
    fixture_setup(&other_state);
    struct fixture *other = other_state;
    struct store_object_info info;
    uint8_t *bytes = fixture_bytes(60, 300000);
    fixture_put(other->store, STORE_LAYER, bytes, 300000, &info);
    store_close(other->store);
    other->store = NULL;
    store_close(small.f->store);
    small.f->store = NULL;
    OWNED(owned_free) char *theirs = file_path("%s/packs", other->dir);
    assert_int_equal(rename(packs, mine), 0);
    assert_int_equal(rename(theirs, packs), 0);
    assert_int_equal(store_open(&small.f->options, &small.f->store, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "another store"));
    assert_int_equal(rename(packs, theirs), 0);
    assert_int_equal(rename(mine, packs), 0);
    fixture_open(small.f);
    assert_int_equal(broken(small.f->store), 0);

    store_close(small.f->store);
    small.f->store = NULL;
    assert_int_equal(rename(packs, mine), 0);
    assert_int_equal(rename(theirs, packs), 0);
    struct store_fsck_report report;
    assert_int_equal(store_fsck(small.f->dir, true, small.f->options.clock, &report, NULL, NULL, &err), 0);
    fixture_open(small.f);
    assert_int_equal(broken(small.f->store), 2);
    fixture_reopen(small.f);
    free(bytes);
    fixture_teardown(&other_state);
    small_release(&small);
}

/* The marker is on that disk too: if it can be read, it is the sector, however little else there is. */
static void test_rot__one_bad_sector_is_all_there_is(void **state)
{
    struct fixture *f = *state;
    struct store_object_info info;
    uint8_t byte;
    size_t len;
    fixture_put(f->store, STORE_BLOB, "tiny", 4, &info);
    bad_pack = true;
    struct err err = {0};
    assert_int_equal(store_object_read(f->store, &info.digest, 0, &byte, 1, &len, &err), ERR_CORRUPT);
    bad_pack = false;
    assert_int_equal(store_rot_waiting(f->store), 1);
}

/* ---- disks that refuse ---- */

static uint64_t body_of(const struct records *records, size_t i)
{
    return records->offsets[i] + STORE_RECORD_HEAD_BYTES;
}

/* Does the pack have anything but zeros there? */
static bool has_bytes(struct small *small, uint64_t at, size_t len)
{
    uint8_t bytes[4096];
    int fd = open(small->pack, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && len <= sizeof bytes);
    assert_int_equal(syscall(SYS_pread64, fd, bytes, len, (off_t)at), len);
    close(fd);
    bool has = false;
    for (size_t i = 0; i < len; i++)
        has = has || bytes[i];
    return has;
}

/* The chunk of record 0, which both objects need, is refused; then its objects are broken. */
static void lose_first_chunk(struct small *small, struct records *ret_records)
{
    struct findings findings;
    list_records(small, ret_records);
    bad_sector = (off_t)body_of(ret_records, 0) + 500;
    assert_true(ask_for_all(small, ret_records, RAW));
    take(small->f->store, &findings);
    assert_int_equal(findings.count, 1);
    assert_int_equal(findings.rots[0].cause, STORE_ROT_UNREADABLE);
    assert_int_equal(broken(small->f->store), 2);
}

/* faults 55, 56: a sector that is read again another day */
static void test_rot__what_is_refused_keeps_its_bytes_and_is_tried_again(void **state)
{
    struct small small;
    small_make(&small, *state);
    for (int restarts = 0; restarts < 2; restarts++) {
        struct err err = {0};
        struct records records;
        struct store_piece piece;
        uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
        small_renew(&small);
        uint64_t before = fixture_pack_bytes(small.f->store);
        lose_first_chunk(&small, &records);
        for (int i = 0; i < 2; i++) {
            must(store_maintain(small.f->store, &err));
            if (restarts)
                fixture_reopen(small.f);
        }
        assert_true(has_bytes(&small, body_of(&records, 0), 400));
        assert_int_equal(fixture_pack_bytes(small.f->store), before);
        const struct id *id = &records.records[0].id;
        assert_int_equal(store_piece_read(small.f->store, STORE_PIECE_CHUNK, id, back, LIMIT_CHUNK_BYTES, &piece, &err),
                         0);
        bad_sector = -1;
        must(store_maintain(small.f->store, &err));
        assert_int_equal(store_piece_read(small.f->store, STORE_PIECE_CHUNK, id, back, LIMIT_CHUNK_BYTES, &piece, &err),
                         1);
        repair(&small); /* without a byte being written */
        assert_int_equal(fixture_pack_bytes(small.f->store), before);
        expect_sound(&small, 2);
        free(back);
    }
    small_release(&small);
}

/* faults 57: the disk goes away while places on it are tried again */
static void test_rot__what_is_refused_outlives_a_disk_that_goes(void **state)
{
    struct small small;
    struct err err = {0};
    struct records records;
    small_make(&small, *state);
    uint64_t before = fixture_pack_bytes(small.f->store);
    lose_first_chunk(&small, &records);
    OWNED(owned_free) char *packs = file_path("%s/packs", small.f->dir);
    OWNED(owned_free) char *aside = file_path("%s/aside", small.f->dir);
    leaves[0] = packs;
    leaves[1] = aside;
    assert_int_equal(store_maintain(small.f->store, &err), ERR_IO);
    assert_null(leaves[0]);
    assert_int_equal(rename(aside, packs), 0);
    assert_int_equal(fixture_pack_bytes(small.f->store), before);
    bad_sector = -1;
    must(store_maintain(small.f->store, &err));
    repair(&small); /* without a byte being written */
    assert_int_equal(fixture_pack_bytes(small.f->store), before);
    expect_sound(&small, 2);
    small_release(&small);
}

/* What came again elsewhere, or turns out to be wrong, or is wanted by nobody, gives its place back. */
static void test_rot__what_is_refused_is_freed_when_it_is_of_no_use(void **state)
{
    struct small small;
    small_make(&small, *state);
    static const char *const whys[] = {"came again", "wrong", "unwanted", "pack gone"};
    for (int why = 0; why < 4; why++) {
        print_message("%s\n", whys[why]);
        struct err err = {0};
        struct records records;
        small_renew(&small);
        uint64_t before = fixture_pack_bytes(small.f->store);
        lose_first_chunk(&small, &records);
        if (why == 0) {
            repair(&small);
        } else if (why == 1) {
            bad_sector = -1;
            flip(small.pack, body_of(&records, 0) + 7);
        } else if (why == 2) {
            for (int i = 0; i < 2; i++)
                assert_int_equal(store_partial_drop(small.f->store, &small.info[i].digest, &err), 1);
        } else {
            struct store_object_info other; /* in another pack: the disk is there */
            fixture_reopen(small.f);
            fixture_put(small.f->store, STORE_LAYER, small.bytes + 250000, 100000, &other);
            assert_int_equal(unlink(small.pack), 0);
            fixture_reopen(small.f);
            assert_int_equal(store_object_remove(small.f->store, &other.digest, &err), 1);
        }
        must(store_maintain(small.f->store, &err));
        uint64_t after = fixture_pack_bytes(small.f->store);
        if (why < 2)
            assert_false(has_bytes(&small, body_of(&records, 0), 400));
        if (why < 2)
            assert_int_equal(after, why == 0 ? before : before - 64 - records.records[0].stored_bytes);
        else
            assert_int_equal(after, 0);
        bad_sector = -1;
        if (why > 1)
            continue;
        repair(&small);
        assert_int_equal(fixture_pack_bytes(small.f->store), before);
        expect_sound(&small, 2);
    }
    small_release(&small);
}

/* faults 55, 57: a cable that is out. One pack, so that nothing else tells. */
static void test_rot__a_disk_that_refuses_everything_has_lost_nothing(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct store *store = small.f->store;
    struct records records;
    list_records(&small, &records);
    uint64_t before = fixture_pack_bytes(store);
    uint8_t *back = malloc(STORE_ROOT_MAX_BYTES);
    bad_disk = true;
    for (size_t i = 0; i < records.count; i++) {
        struct err err = {0};
        struct store_piece piece;
        assert_int_equal(store_piece_read(store, records.records[i].type, &records.records[i].id, back,
                                          STORE_ROOT_MAX_BYTES, &piece, &err),
                         ERR_IO);
        assert_non_null(strstr(err.text, "wherever it is asked"));
    }
    for (int i = 0; i < 2; i++) {
        struct err err = {0};
        size_t len;
        assert_int_equal(store_object_read(store, &small.info[i].digest, 0, back, 1, &len, &err), ERR_IO);
        assert_int_equal(store_scrub_step(store, UINT64_MAX, NULL, &err), ERR_IO);
    }
    assert_int_equal(store_rot_waiting(store), 0);
    /* Somebody removes what cannot be read: all of it is freed, sooner or later. */
    assert_int_equal(store_object_remove(store, &small.info[1].digest, NULL), 1);
    fixture_reopen(small.f);
    store = small.f->store;
    bad_disk = false;
    fixture_expect(store, &small.info[0].digest, object_bytes(&small, 0), BYTES);
    struct err err = {0};
    must(store_maintain(store, &err));
    struct store_object_info again;
    fixture_put(store, STORE_LAYER, object_bytes(&small, 1), BYTES, &again);
    assert_int_equal(fixture_pack_bytes(store), before);
    assert_int_equal(broken(store), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(store_object_remove(store, &small.info[i].digest, NULL), 1);
    assert_int_equal(fixture_pack_bytes(store), 0);
    free(back);
    small_release(&small);
}

/* Twice in a row, but not for ever: not rot, and nobody gets wrong bytes or an object fewer. */
static void test_rot__a_disk_that_stutters_is_no_rot(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct records records;
    list_records(&small, &records);
    bad_sector = (off_t)body_of(&records, 0) + 500;
    refusals = 2;
    fixture_expect(small.f->store, &small.info[0].digest, object_bytes(&small, 0), BYTES);
    assert_int_equal(refusals, 0);
    assert_int_equal(store_rot_waiting(small.f->store), 0);
    bad_sector = -1;
    refusals = -1;
    expect_sound(&small, 2);
    small_release(&small);
}

/* fsck drops nothing that it could not read, and makes no index of a disk that gives nothing. */
static void test_rot__fsck_keeps_what_is_refused(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct fixture *f = small.f;
    struct err err = {0};
    struct records records;
    struct store_fsck_report report;
    list_records(&small, &records);
    store_close(f->store);
    f->store = NULL;
    bad_sector = (off_t)body_of(&records, 0) + 500;
    assert_int_equal(store_fsck(f->dir, true, f->options.clock, &report, NULL, NULL, &err), 0);
    assert_int_equal(report.records_unread, 1);
    assert_int_equal(report.records_bad, 0);
    assert_int_equal(report.objects_broken, 2);
    fixture_open(f);
    assert_int_equal(broken(f->store), 2);
    must(store_maintain(f->store, &err));
    bad_sector = -1;
    assert_true(has_bytes(&small, body_of(&records, 0), 400));
    must(store_maintain(f->store, &err));
    repair(&small);
    expect_sound(&small, 2);

    store_close(f->store);
    f->store = NULL;
    bad_disk = true;
    assert_int_equal(store_fsck(f->dir, true, f->options.clock, &report, NULL, NULL, &err), ERR_IO);
    bad_disk = false;
    fixture_open(f);
    assert_int_equal(broken(f->store), 0);
    expect_sound(&small, 2);
    small_release(&small);
}

/* An assembly counts on a chunk of another object; that rots while the rest comes. */
static void test_rot__an_assembly_looks_again(void **state)
{
    struct small small;
    small_make(&small, *state);
    struct err err = {0};
    struct store *store = small.f->store;
    const struct store_recipe *recipe = small.recipe[1];
    assert_int_equal(store_object_remove(store, &small.info[1].digest, &err), 1);
    struct records records;
    list_records(&small, &records);
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(store, &recipe->root.object, STORE_LAYER, recipe, &assembly, &err));
    assert_true(store_assembly_has(assembly, 0));
    flip(small.pack, records.offsets[0] + STORE_RECORD_HEAD_BYTES);
    uint8_t *back = malloc(LIMIT_CHUNK_BYTES);
    struct store_piece piece;
    assert_int_equal(
        store_piece_read(store, STORE_PIECE_CHUNK, &recipe->chunks[0].id, back, LIMIT_CHUNK_BYTES, &piece, &err),
        ERR_CORRUPT);
    const uint8_t *bytes = object_bytes(&small, 1);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
            must(
                store_assembly_add(assembly, i, STORE_RAW, bytes + recipe->offsets[i], recipe->chunks[i].length, &err));
        assert_int_equal(store_assembly_finish(assembly, NULL, &err), round == 0 ? ERR_CONFLICT : 0);
        assert_int_equal(store_assembly_has(assembly, 0), round == 1);
    }
    store_assembly_free(assembly);
    fixture_expect(store, &recipe->root.object, bytes, BYTES);
    free(back);
    small_release(&small);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_rot__is_found_wherever_it_is_and_repaired),
        on_store(test_rot__packs_that_are_gone_cost_what_was_in_them),
        on_store(test_rot__a_pack_that_goes_while_it_is_written_is_not_acknowledged),
        on_store(test_rot__findings_survive_a_restart),
        on_store(test_rot__the_list_forgets_what_is_dropped),
        on_store(test_rot__an_assembly_looks_again),
        on_store(test_rot__no_pack_at_all_is_somebodys_mistake),
        on_store(test_rot__a_disk_that_is_away_for_a_while_is_no_rot),
        on_store(test_rot__the_only_pack_is_away_or_lost),
        on_store(test_rot__nothing_is_written_under_a_disk_that_is_away),
        on_store(test_rot__the_marker_is_mended),
        on_store(test_rot__another_stores_disk_is_refused),
        on_store(test_rot__one_bad_sector_is_all_there_is),
        on_store(test_rot__what_is_refused_keeps_its_bytes_and_is_tried_again),
        on_store(test_rot__what_is_refused_outlives_a_disk_that_goes),
        on_store(test_rot__what_is_refused_is_freed_when_it_is_of_no_use),
        on_store(test_rot__a_disk_that_refuses_everything_has_lost_nothing),
        on_store(test_rot__a_disk_that_stutters_is_no_rot),
        on_store(test_rot__fsck_keeps_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
