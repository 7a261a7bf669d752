/*
 * The power fails after each change of a file, and the disk keeps of what was not synced nothing, all, all but the
 * last, or any part (disk.h): what was acknowledged is there, the rest is there whole or not at all, and the store is
 * sound.
 */
#include "disk.h"
#include "store/pack.h"

enum { OBJECT_BYTES = 250000, OBJECTS = 4 };

struct content {
    uint8_t *bytes[OBJECTS]; /* owned */
    struct id digest[OBJECTS];
    struct store_recipe *recipe[OBJECTS]; /* owned */
};

static void content_make(struct content *content)
{
    void *state;
    fixture_setup(&state);
    struct fixture *f = state;
    for (uint64_t i = 0; i < OBJECTS; i++) {
        content->bytes[i] = fixture_bytes(i == 2 ? 60 : 60 + i, OBJECT_BYTES); /* the third is nearly the first */
        content->bytes[i][OBJECT_BYTES - 100] = (uint8_t)i;
        memset(content->bytes[i] + 50000, 'z', 20000);
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, content->bytes[i], OBJECT_BYTES, &info);
        content->digest[i] = info.digest;
        content->recipe[i] = fixture_recipe(f->store, &info.digest);
        assert_true(info.chunk_count > 1);
    }
    fixture_teardown(&state);
}

static void content_release(struct content *content)
{
    for (int i = 0; i < OBJECTS; i++) {
        store_recipe_free(content->recipe[i]);
        free(content->bytes[i]);
    }
}

static struct store_assembly *begin(struct store *store, const struct content *content, int which)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(store, &content->digest[which], STORE_BLOB, content->recipe[which], &assembly, &err));
    assert_non_null(assembly);
    return assembly;
}

static void add(struct store_assembly *assembly, const struct content *content, int which, uint32_t i)
{
    struct err err = {0};
    const struct store_recipe *recipe = content->recipe[which];
    must(store_assembly_add(assembly, i, STORE_RAW, content->bytes[which] + recipe->offsets[i],
                            recipe->chunks[i].length, &err));
}

/* What is promised after how many acknowledgements: of each object whether it is here, whether the chunk is that was
 * synced on the way, and the value in the table. */
enum { STEPS = 9 };
static const struct {
    bool here[OBJECTS];
    bool first_chunk;
    char value;
} promised[STEPS + 1] = {
    {{0, 0, 0, 0}, 0, 0},   {{1, 0, 0, 0}, 0, 0},   {{1, 0, 0, 0}, 0, '1'}, {{1, 0, 0, 0}, 1, '1'},
    {{1, 1, 0, 0}, 1, '1'}, {{1, 1, 1, 0}, 1, '1'}, {{0, 1, 1, 0}, 1, '1'}, {{0, 1, 1, 1}, 1, '1'},
    {{0, 1, 1, 1}, 1, '2'}, {{0, 0, 1, 1}, 0, '2'},
};

static void work(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    fixture_open(f);
    fixture_put(f->store, STORE_BLOB, content->bytes[0], OBJECT_BYTES, NULL);
    disk_ack();
    must(store_table_put(f->store, "journal", "key", 3, "1", 1, &err));
    disk_ack();
    struct store_assembly *assembly = begin(f->store, content, 1);
    struct store_assembly *other = begin(f->store, content, 3);
    add(other, content, 3, 1); /* never synced for its own sake */
    add(assembly, content, 1, 0);
    must(store_assembly_sync(assembly, &err));
    disk_ack();
    for (uint32_t i = 1; i < content->recipe[1]->root.chunk_count; i++)
        add(assembly, content, 1, i);
    must(store_assembly_finish(assembly, NULL, &err));
    disk_ack();
    store_assembly_free(assembly);
    store_assembly_free(other);
    fixture_put(f->store, STORE_BLOB, content->bytes[2], OBJECT_BYTES, NULL);
    disk_ack();
    assert_int_equal(store_object_remove(f->store, &content->digest[0], &err), 1);
    disk_ack();
    fixture_reopen(f);
    fixture_put(f->store, STORE_BLOB, content->bytes[3], OBJECT_BYTES, NULL);
    disk_ack();
    must(store_table_put(f->store, "journal", "key", 3, "2", 1, &err));
    disk_ack();
    assert_int_equal(store_object_remove(f->store, &content->digest[1], &err), 1);
    disk_ack();
    store_close(f->store);
    f->store = NULL;
}

static bool is_whole(struct store *store, const struct content *content, int which)
{
    struct err err = {0};
    int got = store_object_stat(store, &content->digest[which], NULL, &err);
    must(got);
    if (got == 1)
        fixture_expect(store, &content->digest[which], content->bytes[which], OBJECT_BYTES);
    return got == 1;
}

/* As promised, or as it would be promised next. */
static void check_promises(struct store *store, const struct content *content, int acks)
{
    struct err err = {0};
    int next = acks < STEPS ? acks + 1 : acks;
    for (int i = 0; i < OBJECTS; i++) {
        bool here = is_whole(store, content, i);
        assert_true(here == promised[acks].here[i] || here == promised[next].here[i]);
    }
    uint8_t bit;
    must(store_pieces_have(store, &content->recipe[1]->chunks[0].id, 1, &bit, &err));
    assert_true(bit || !promised[acks].first_chunk || !promised[next].first_chunk);
    OWNED(buf_release) struct buf value = BUF(10);
    int got = store_table_get(store, "journal", "key", 3, &value, &err);
    must(got);
    char found = got == 1 ? (char)value.data[0] : 0;
    assert_true(found == promised[acks].value || found == promised[next].value);
    assert_int_equal(store_rot_waiting(store), 0);
}

static int count_bytes(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    if (!record)
        fail_msg("%llu bytes at %llu are nobody's", (unsigned long long)len_bytes, (unsigned long long)offset);
    *(uint64_t *)ctx += len_bytes;
    return 0;
}

/* What is in the packs is what counts: nothing has leaked. */
static void check_leaks(const struct fixture *f)
{
    struct err err = {0};
    OWNED(owned_free) char *packs = file_path("%s/packs", f->dir);
    OWNED(owned_free) uint64_t *numbers = NULL;
    size_t count = 0;
    uint64_t bytes = 0;
    must(store_pack_list(packs, &numbers, &count, &err));
    for (size_t i = 0; i < count; i++) {
        struct store_pack *pack;
        bool cut;
        must(store_pack_open(packs, numbers[i], false, &pack, &err));
        must(store_pack_scan(pack, count_bytes, &bytes, &cut, &err));
        store_pack_unref(pack);
    }
    assert_int_equal(bytes, fixture_pack_bytes(f->store));
}

/* Going on works, and removing everything leaves nothing. */
static void go_on(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    for (int i = 0; i < OBJECTS; i++) {
        fixture_put(f->store, STORE_BLOB, content->bytes[i], OBJECT_BYTES, NULL);
        fixture_expect(f->store, &content->digest[i], content->bytes[i], OBJECT_BYTES);
    }
    for (int i = 0; i < OBJECTS; i++)
        assert_int_equal(store_object_remove(f->store, &content->digest[i], &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
}

/* An empty directory, recorded from now on. */
static void start(struct fixture *f, struct content *ret_content)
{
    struct err err = {0};
    content_make(ret_content);
    store_close(f->store);
    f->store = NULL;
    must(file_remove_tree(f->dir, &err));
    assert_int_equal(mkdir(f->dir, 0700), 0);
    f->options.pack_bytes = 300000; /* several packs, of which some go */
    disk_begin(f->dir);
}

static void try_cut(struct fixture *f, const struct content *content, size_t n, enum disk_luck luck, uint64_t seed)
{
    struct err err = {0};
    int acks = disk_after_power_cut(f->dir, n, luck, seed);
    if (store_open(&f->options, &f->store, &err) < 0)
        fail_msg("after change %zu, luck %d, seed %llu: %s", n, luck, (unsigned long long)seed, err.text);
    check_promises(f->store, content, acks);
    check_leaks(f);
    if (seed % 14 == 0)
        fixture_check_sound(f);
    if (seed % 13 == 0)
        go_on(f, content);
    store_close(f->store);
    f->store = NULL;
}

static void try_cuts(struct fixture *f, const struct content *content, size_t first)
{
    disk_end();
    print_message("%zu changes\n", disk.count - first);
    for (size_t n = first; n <= disk.count; n++) {
        try_cut(f, content, n, DISK_NOTHING, 3 * n);
        try_cut(f, content, n, DISK_ANY, 3 * n + 1);
        if (n % 3 == 0)
            try_cut(f, content, n, DISK_NOT_THE_LAST, 3 * n + 2);
        if (n % 3 == 1)
            try_cut(f, content, n, DISK_ALL, 3 * n + 2);
    }
}

/* faults 49 */
static void test_power__fails_after_each_change(void **state)
{
    struct fixture *f = *state;
    struct content content;
    start(f, &content);
    work(f, &content);
    try_cuts(f, &content, 0);
    disk_release();
    content_release(&content);
    fixture_open(f);
}

/* faults 49: while an index is rebuilt, there is the one or the other */
static void test_power__fails_while_fsck_repairs(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    struct store_fsck_report report;
    start(f, &content);
    work(f, &content);
    size_t first = disk.count;
    must(store_fsck(f->dir, true, f->options.clock, &report, fixture_say, NULL, &err));
    assert_true(report.repaired);
    try_cuts(f, &content, first);
    disk_release();
    content_release(&content);
    fixture_open(f);
}

/* faults 49: of two writers one had committed, of the other's record the disk kept the end, but not the head */
static void test_power__fails_between_two_writers(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    start(f, &content);
    f->options.pack_bytes = 0;
    fixture_open(f);
    struct store_ingest *slow;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &slow, &err));
    must(store_ingest_write(slow, content.bytes[3], OBJECT_BYTES, &err));
    fixture_put(f->store, STORE_BLOB, content.bytes[0], OBJECT_BYTES, NULL);
    size_t n = disk.count;
    disk_end();
    store_ingest_free(slow);
    store_close(f->store);
    f->store = NULL;
    assert_int_equal(disk_after_power_cut(f->dir, n, DISK_ALL, 0), 0);
    OWNED(owned_free) char *pack = file_path("%s/packs/%016x.pack", f->dir, 1);
    int fd = open(pack, O_RDWR | O_CLOEXEC);
    static const uint8_t nothing[64];
    assert_int_equal(pwrite(fd, nothing, sizeof nothing, 0), sizeof nothing);
    close(fd);
    fixture_open(f);
    assert_true(is_whole(f->store, &content, 0));
    assert_false(is_whole(f->store, &content, 3));
    fixture_check_sound(f);
    go_on(f, &content);
    disk_release();
    content_release(&content);
}

/* The object of which the first chunks were added without a sync: no promise, but each that is here is right, and if
 * the disk had got all of it, so is all of it. */
static void check_unpromised(struct fixture *f, const struct content *content, enum disk_luck luck, int added,
                             int *tally)
{
    struct err err = {0};
    OWNED(owned_free) uint8_t *raw = malloc(LIMIT_CHUNK_BYTES);
    const struct store_recipe *recipe = content->recipe[1];
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
        size_t len;
        int got = store_piece_read_raw(f->store, STORE_PIECE_CHUNK, &recipe->chunks[i].id, raw, LIMIT_CHUNK_BYTES, &len,
                                       &err);
        must(got);
        assert_true(got == 1 || luck != DISK_ALL || (int)i >= added);
        if (got == 0)
            continue;
        tally[luck]++;
        assert_int_equal(len, recipe->chunks[i].length);
        assert_memory_equal(raw, content->bytes[1] + recipe->offsets[i], len);
    }
    assert_int_equal(store_rot_waiting(f->store), 0);
}

static void try_unpromised(struct fixture *f, const struct content *content, size_t n, enum disk_luck luck,
                           uint64_t seed, int *tally)
{
    struct err err = {0};
    int acks = disk_after_power_cut(f->dir, n, luck, seed);
    fixture_open(f);
    check_unpromised(f, content, luck, acks - 1, tally); /* the first is that it has begun */
    check_leaks(f);
    fixture_check_sound(f);
    if (acks > 0) {
        struct store_assembly *assembly = begin(f->store, content, 1);
        for (uint32_t i = 0; i < content->recipe[1]->root.chunk_count; i++)
            add(assembly, content, 1, i);
        must(store_assembly_finish(assembly, NULL, &err));
        store_assembly_free(assembly);
        assert_true(is_whole(f->store, content, 1));
    }
    store_close(f->store);
    f->store = NULL;
}

/* faults 42, 49: what the disk had got of chunks that were not synced yet is kept, and nothing else */
static void test_power__keeps_what_the_disk_had_got(void **state)
{
    struct fixture *f = *state;
    struct content content;
    int tally[DISK_ANY + 1] = {0};
    start(f, &content);
    f->options.pack_bytes = 0;
    fixture_open(f);
    struct store_assembly *assembly = begin(f->store, &content, 1);
    size_t first = disk.count;
    disk_ack();
    for (uint32_t i = 0; i < content.recipe[1]->root.chunk_count; i++) {
        add(assembly, &content, 1, i);
        disk_ack();
    }
    size_t end = disk.count;
    disk_end();
    store_assembly_free(assembly);
    store_close(f->store);
    f->store = NULL;
    for (size_t n = first; n <= end; n++) {
        try_unpromised(f, &content, n, DISK_NOTHING, n, tally);
        try_unpromised(f, &content, n, DISK_ALL, n, tally);
        try_unpromised(f, &content, n, DISK_NOT_THE_LAST, n, tally);
        try_unpromised(f, &content, n, DISK_ANY, n, tally);
    }
    assert_int_equal(tally[DISK_NOTHING], 0);
    assert_true(tally[DISK_NOT_THE_LAST] > 0 && tally[DISK_NOT_THE_LAST] < tally[DISK_ALL]);
    disk_release();
    content_release(&content);
    fixture_open(f);
}

static void finish_all(struct store *store, const struct content *content, int which)
{
    struct err err = {0};
    if (is_whole(store, content, which))
        return;
    struct store_assembly *assembly = begin(store, content, which);
    for (uint32_t i = 0; i < content->recipe[which]->root.chunk_count; i++)
        add(assembly, content, which, i);
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
}

static void try_one_commit(struct fixture *f, const struct content *content, size_t n, enum disk_luck luck,
                           uint64_t seed)
{
    int acks = disk_after_power_cut(f->dir, n, luck, seed);
    fixture_open(f);
    assert_true(is_whole(f->store, content, 0) || acks < 1);
    assert_true(is_whole(f->store, content, 1) ? acks >= 1 : acks < 2);
    check_leaks(f);
    if (seed % 3 == 0)
        fixture_check_sound(f);
    finish_all(f->store, content, 1);
    assert_true(is_whole(f->store, content, 1));
    store_close(f->store);
    f->store = NULL;
}

/* faults 49: recipe, chunks and object are one commit, before which the disk may have got any of it */
static void test_power__fails_while_an_object_comes_at_once(void **state)
{
    struct fixture *f = *state;
    struct content content;
    start(f, &content);
    f->options.pack_bytes = 0;
    fixture_open(f);
    fixture_put(f->store, STORE_BLOB, content.bytes[0], OBJECT_BYTES, NULL);
    size_t first = disk.count;
    disk_ack();
    finish_all(f->store, &content, 1);
    disk_ack();
    size_t end = disk.count;
    disk_end();
    store_close(f->store);
    f->store = NULL;
    for (size_t n = first; n <= end; n++) {
        try_one_commit(f, &content, n, DISK_NOTHING, n);
        try_one_commit(f, &content, n, DISK_ALL, n);
        for (uint64_t seed = 0; seed < 4; seed++)
            try_one_commit(f, &content, n, DISK_ANY, 4 * n + seed);
    }
    disk_release();
    content_release(&content);
    fixture_open(f);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_power__fails_after_each_change),
        on_store(test_power__fails_while_fsck_repairs),
        on_store(test_power__fails_between_two_writers),
        on_store(test_power__keeps_what_the_disk_had_got),
        on_store(test_power__fails_while_an_object_comes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
