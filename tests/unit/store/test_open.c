#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

/* faults 58 */
static void test_open__second_opener_is_told_who_has_it(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct store *second = NULL;
    assert_int_equal(store_open(&f->options, &second, &err), ERR_BUSY);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "store in use by pid %d", (int)getpid());
    assert_non_null(strstr(err.text, wanted));

    pid_t child = fork(); /* another process fares no better */
    if (child == 0)
        _exit(store_open(&f->options, &second, &err) == ERR_BUSY && strstr(err.text, wanted) ? 0 : 1);
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0);

    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL); /* and the first is none the worse */
    fixture_reopen(f);
}

static void test_open__two_stores_in_one_process(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    void *other;
    fixture_setup(&other);
    struct fixture *g = other;
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, "only here", 9, &info);
    assert_int_equal(store_object_stat(g->store, &info.digest, NULL, &err), 0);
    fixture_teardown(&other);
}

/* faults 57 */
static void test_open__what_cannot_be_a_store_is_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    OWNED(owned_free) char *file = file_path("%s/file", f->dir);
    must(file_write_atomic(file, "x", 1, 0600, &err));
    struct store_options options = f->options;
    options.dir = file;
    struct store *none = NULL;
    assert_true(store_open(&options, &none, &err) < 0);
    assert_non_null(strstr(err.text, file));
    options.dir = "/proc/nowhere";
    assert_true(store_open(&options, &none, &err) < 0);
    assert_null(none);
}

/* faults 54 */
static void test_open__index_of_another_version_is_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    store_close(f->store);
    f->store = NULL;
    OWNED(owned_free) char *data = file_path("%s/index/data.mdb", f->dir);
    struct buf bytes = BUF(1u << 20);
    must(file_read(data, &bytes, &err));
    uint32_t *version = (uint32_t *)(void *)(bytes.data + 20); /* behind the page header and the magic of both metas */
    uint32_t *version2 = (uint32_t *)(void *)(bytes.data + 4096 + 20);
    *version = *version2 = 999;
    must(file_write_atomic(data, bytes.data, bytes.len, 0600, &err));
    assert_int_equal(store_open(&f->options, &f->store, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "cmig-node fsck"));
    buf_release(&bytes);
    must(file_remove_tree(f->dir, &err));
    fixture_open(f);
}

static void test_open__garbage_in_the_lock_files_does_no_harm(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL);
    store_close(f->store);
    f->store = NULL;
    OWNED(owned_free) char *lock = file_path("%s/lock", f->dir);
    OWNED(owned_free) char *index_lock = file_path("%s/index/lock.mdb", f->dir);
    uint8_t *noise = fixture_bytes(1, 8192);
    must(file_write_atomic(lock, noise, 100, 0600, &err));
    must(file_write_atomic(index_lock, noise, 8192, 0600, &err));
    free(noise);
    fixture_open(f);
    struct store_usage usage;
    must(store_usage(f->store, &usage, &err));
    assert_int_equal(usage.objects, 1);
    assert_int_equal(usage.object_bytes, 3);
    assert_true(usage.disk_free_bytes > 0);
}

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static void test_open__closing_gives_everything_back(void **state)
{
    struct fixture *f = *state;
    int before = count_fds();
    for (int i = 0; i < 3; i++) {
        fixture_reopen(f);
        fixture_put(f->store, STORE_BLOB, &i, sizeof i, NULL);
        fixture_reopen(f);
    }
    assert_int_equal(count_fds(), before);
}

/* A store as the first version left it: tests/vectors/store-1, the index compressed. */
static void make_format_1(struct fixture *f, struct id *ret_digest)
{
    struct err err = {0};
    enum { INDEX_BYTES = 61440 };
    store_close(f->store);
    f->store = NULL;
    must(file_remove_tree(f->dir, &err));
    OWNED(buf_release) struct buf pack = BUF(1u << 20);
    OWNED(buf_release) struct buf pressed = BUF(1u << 20);
    must(file_read("vectors/store-1/0000000000000001.pack", &pack, &err));
    must(file_read("vectors/store-1/data.mdb.zst", &pressed, &err));
    OWNED(owned_free) uint8_t *index = malloc(INDEX_BYTES);
    must(store_decode(STORE_ZSTD, pressed.data, pressed.len, index, INDEX_BYTES, &err));
    OWNED(owned_free) char *packs = file_path("%s/packs", f->dir);
    OWNED(owned_free) char *indexes = file_path("%s/index", f->dir);
    OWNED(owned_free) char *pack_path = file_path("%s/0000000000000001.pack", packs);
    OWNED(owned_free) char *index_path = file_path("%s/data.mdb", indexes);
    must(file_make_dirs(packs, 0700, &err));
    must(file_make_dirs(indexes, 0700, &err));
    must(file_write_atomic(pack_path, pack.data, pack.len, 0600, &err));
    must(file_write_atomic(index_path, index, INDEX_BYTES, 0600, &err));
    assert_true(id_parse_hex("4bb7843e6eda748d60bf33955af959882cc0cb2742c3fda857d9e269cf194e5d", ret_digest));
}

static void expect_format_1(struct fixture *f, const struct id *digest)
{
    struct err err = {0};
    uint8_t bytes[20000];
    for (int i = 0; i < 20000; i++)
        bytes[i] = (uint8_t)('a' + i * i % 23);
    fixture_expect(f->store, digest, bytes, sizeof bytes);
    assert_int_equal(store_pinned(f->store, digest, &err), 1);
    OWNED(buf_release) struct buf value = BUF(100);
    assert_int_equal(store_table_get(f->store, "journal", "k", 1, &value, &err), 1);
    struct store_recipe *recipe = fixture_recipe(f->store, digest);
    uint8_t stored[65536];
    struct store_piece piece;
    assert_int_equal(
        store_piece_read(f->store, STORE_PIECE_CHUNK, &recipe->chunks[0].id, stored, sizeof stored, &piece, &err), 1);
    assert_int_equal(piece.encoding, STORE_ZSTD);
    store_recipe_free(recipe);
}

/* faults 54: an older format is read as it is, and its pieces are checked by their digests instead */
static void test_open__a_store_of_format_1(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id digest;
    make_format_1(f, &digest);
    fixture_open(f);
    expect_format_1(f, &digest);
    fixture_put(f->store, STORE_BLOB, "new", 3, NULL);
    fixture_reopen(f);
    expect_format_1(f, &digest);

    OWNED(owned_free) char *pack = file_path("%s/packs/0000000000000001.pack", f->dir);
    struct store_recipe *recipe = fixture_recipe(f->store, &digest);
    store_close(f->store);
    f->store = NULL;
    int fd = open(pack, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "?", 1, 64 + 40), 1);
    close(fd);
    fixture_open(f);
    uint8_t stored[65536];
    struct store_piece piece;
    assert_int_equal(
        store_piece_read(f->store, STORE_PIECE_CHUNK, &recipe->chunks[0].id, stored, sizeof stored, &piece, &err),
        ERR_CORRUPT);
    assert_int_equal(store_rot_waiting(f->store), 1);
    store_recipe_free(recipe);
}

static void test_open__fsck_of_a_store_of_format_1(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id digest;
    struct store_fsck_report report;
    make_format_1(f, &digest);
    assert_int_equal(store_fsck(f->dir, false, f->options.clock, &report, NULL, NULL, &err), 1);
    assert_int_equal(store_fsck(f->dir, true, f->options.clock, &report, NULL, NULL, &err), 1);
    fixture_open(f);
    expect_format_1(f, &digest);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_open__second_opener_is_told_who_has_it),
        on_store(test_open__two_stores_in_one_process),
        on_store(test_open__what_cannot_be_a_store_is_refused),
        on_store(test_open__index_of_another_version_is_refused),
        on_store(test_open__garbage_in_the_lock_files_does_no_harm),
        on_store(test_open__closing_gives_everything_back),
        on_store(test_open__a_store_of_format_1),
        on_store(test_open__fsck_of_a_store_of_format_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
