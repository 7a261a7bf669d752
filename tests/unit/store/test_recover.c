/*
 * What is kept of a pack that was left open and what is not, where somebody has taken pains with the bytes. Kills and
 * power cuts at every place are in test_kill.c and test_power.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fixture.h"
#include "store/pack.h"

static bool punching_fails; /* in children */

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (punching_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

static off_t unreadable_from = -1;

ssize_t pread(int fd, void *data, size_t len, off_t offset)
{
    if (unreadable_from >= 0 && offset + (off_t)len > unreadable_from) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, data, len, offset);
}

ssize_t pread64(int fd, void *data, size_t len, off64_t offset)
{
    return pread(fd, data, len, offset);
}

enum { OBJECT_BYTES = 200000, LIE_BYTES = 20000 };

struct content {
    uint8_t *bytes; /* owned */
    size_t len;
    struct id digest;
    struct store_recipe *recipe; /* owned */
};

/* An object of these bytes, which are taken over, as another store has it. */
static void content_make(struct content *content, uint8_t *bytes, size_t len)
{
    void *state;
    struct store_object_info info;
    fixture_setup(&state);
    struct fixture *origin = state;
    fixture_put(origin->store, STORE_LAYER, bytes, len, &info);
    *content = (struct content){bytes, len, info.digest, fixture_recipe(origin->store, &info.digest)};
    fixture_teardown(&state);
}

static void content_release(struct content *content)
{
    store_recipe_free(content->recipe);
    free(content->bytes);
}

static struct store_assembly *begin(struct store *store, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(store, &content->digest, STORE_LAYER, content->recipe, &assembly, &err));
    return assembly;
}

static void add(struct store_assembly *assembly, const struct content *content, uint32_t i)
{
    struct err err = {0};
    must(store_assembly_add(assembly, i, STORE_RAW, content->bytes + content->recipe->offsets[i],
                            content->recipe->chunks[i].length, &err));
}

/* The parent's store is closed meanwhile. */
static void in_a_child_that_is_killed(struct fixture *f, void (*run)(struct fixture *, const struct content *),
                                      const struct content *content)
{
    store_close(f->store);
    f->store = NULL;
    pid_t child = fork();
    if (child == 0) {
        fixture_open(f);
        run(f, content);
        raise(SIGKILL);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome) && WTERMSIG(outcome) == SIGKILL);
}

static uint32_t count_here(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    uint32_t here = 0;
    for (uint32_t i = 0; i < content->recipe->root.chunk_count; i++) {
        uint8_t bit = 0;
        must(store_pieces_have(f->store, &content->recipe->chunks[i].id, 1, &bit, &err));
        here += bit & 1;
    }
    return here;
}

static int open_pack(const struct fixture *f)
{
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Where the record of a chunk begins in the first pack, or that it is not there. */
struct search {
    const struct id *id;
    uint64_t offset;
    uint64_t len_bytes;
    bool found;
};

static int match(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    struct search *search = ctx;
    if (!record || !id_equal(&record->id, search->id))
        return 0;
    search->offset = offset;
    search->len_bytes = len_bytes;
    search->found = true;
    return 1;
}

static struct search find_record(const struct fixture *f, const struct id *id)
{
    struct err err = {0};
    OWNED(owned_free) char *packs = file_path("%s/packs", f->dir);
    struct store_pack *pack;
    struct search search = {.id = id};
    bool cut;
    must(store_pack_open(packs, 1, false, &pack, &err));
    must(store_pack_scan(pack, match, &search, &cut, &err));
    store_pack_unref(pack);
    return search;
}

/* ---- cases ---- */

static void add_to(struct store_assembly *assembly, const struct content *content)
{
    for (uint32_t i = 0; i < content->recipe->root.chunk_count; i++)
        add(assembly, content, i);
}

static void add_all(struct fixture *f, const struct content *content)
{
    add_to(begin(f->store, content), content);
}

/* faults 42, 49: a byte that is wrong costs its chunk and no other */
static void test_recover__takes_no_chunk_of_other_bytes(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, fixture_bytes(1, OBJECT_BYTES), OBJECT_BYTES);
    uint32_t count = content.recipe->root.chunk_count;
    assert_true(count > 3);
    in_a_child_that_is_killed(f, add_all, &content);
    struct search first = find_record(f, &content.recipe->chunks[0].id);
    struct search last = find_record(f, &content.recipe->chunks[count - 1].id);
    assert_true(first.found && last.found);
    int fd = open_pack(f);
    assert_int_equal(pwrite(fd, "!", 1, (off_t)(first.offset + STORE_RECORD_HEAD_BYTES + 100)), 1);
    assert_int_equal(ftruncate(fd, (off_t)(last.offset + last.len_bytes - 1)), 0);
    close(fd);

    fixture_open(f);
    assert_int_equal(count_here(f, &content), count - 2);
    fixture_check_sound(f);
    struct store_assembly *assembly = begin(f->store, &content);
    assert_false(store_assembly_has(assembly, 0));
    assert_false(store_assembly_has(assembly, count - 1));
    struct err err = {0};
    add(assembly, &content, 0);
    add(assembly, &content, count - 1);
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &content.digest, content.bytes, content.len);
    content_release(&content);
}

/* Nobody wants them: the partial object has been dropped. */
static void add_all_and_drop(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *assembly = begin(f->store, content);
    must(store_assembly_sync(assembly, &err));
    add_to(assembly, content);
    assert_int_equal(store_partial_drop(f->store, &content->digest, &err), 1);
}

static void test_recover__keeps_only_what_is_wanted(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, fixture_bytes(2, OBJECT_BYTES), OBJECT_BYTES);
    in_a_child_that_is_killed(f, add_all_and_drop, &content);
    fixture_open(f);
    assert_int_equal(count_here(f, &content), 0);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    fixture_check_sound(f);
    content_release(&content);
}

static void add_all_twice(struct fixture *f, const struct content *content)
{
    struct store_assembly *other = begin(f->store, content);
    add_all(f, content);
    add_to(other, content);
}

static void test_recover__keeps_a_chunk_once(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content, fixture_bytes(3, OBJECT_BYTES), OBJECT_BYTES);
    in_a_child_that_is_killed(f, add_all_twice, &content);
    fixture_open(f);
    assert_int_equal(count_here(f, &content), content.recipe->root.chunk_count);
    assert_in_range(fixture_pack_bytes(f->store), OBJECT_BYTES, OBJECT_BYTES + OBJECT_BYTES / 50);
    fixture_check_sound(f); /* among other things: the rest has been punched */
    assert_int_equal(store_partial_drop(f->store, &content.digest, &err), 1);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    content_release(&content);
}

/* Removed, but the disk did not punch; then wanted again. The places are still to be punched. */
static void remove_and_want_again(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    fixture_put(f->store, STORE_LAYER, content->bytes, content->len, NULL);
    punching_fails = true;
    store_object_remove(f->store, &content->digest, &err);
    begin(f->store, content);
}

static void test_recover__does_not_take_back_what_was_freed(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, fixture_bytes(4, OBJECT_BYTES), OBJECT_BYTES);
    in_a_child_that_is_killed(f, remove_and_want_again, &content);
    assert_true(find_record(f, &content.recipe->chunks[0].id).found);
    fixture_open(f);
    assert_int_equal(count_here(f, &content), 0);
    assert_false(find_record(f, &content.recipe->chunks[0].id).found);
    fixture_check_sound(f);
    content_release(&content);
}

/* A chunk that is no record any more, and in which something looks like one that reaches over what comes next. */
static uint8_t *lying_bytes(void)
{
    uint8_t *bytes = calloc(1, LIE_BYTES);
    struct store_record lie = {.type = STORE_PIECE_CHUNK, .raw_bytes = 200000, .stored_bytes = 200000};
    store_pack_encode_head(&lie, bytes + 10000);
    return bytes;
}

static void add_a_lie_and_an_object(struct fixture *f, const struct content *content)
{
    struct store_assembly *assembly = begin(f->store, content);
    add(assembly, content, 0);
    uint8_t *bytes = fixture_bytes(5, OBJECT_BYTES);
    fixture_put(f->store, STORE_LAYER, bytes, OBJECT_BYTES, NULL);
    free(bytes);
}

/* faults 49: zeros or the bytes of nobody before what looks like a record */
static void test_recover__punches_nothing_where_records_are_hidden(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeros[STORE_RECORD_HEAD_BYTES];
    struct content content;
    content_make(&content, lying_bytes(), LIE_BYTES);
    assert_int_equal(content.recipe->root.chunk_count, 1);
    uint8_t *bytes = fixture_bytes(5, OBJECT_BYTES);
    struct id digest;
    crypto_sha256(bytes, OBJECT_BYTES, &digest);
    in_a_child_that_is_killed(f, add_a_lie_and_an_object, &content);
    struct search lie = find_record(f, &content.recipe->chunks[0].id);
    assert_true(lie.found);
    int fd = open_pack(f);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, (off_t)lie.offset), sizeof zeros);
    close(fd);
    fixture_open(f);
    assert_int_equal(count_here(f, &content), 0);
    fixture_expect(f->store, &digest, bytes, OBJECT_BYTES);
    free(bytes);
    content_release(&content);
}

static void put_an_object_and_add_all(struct fixture *f, const struct content *content)
{
    uint8_t *bytes = fixture_bytes(5, OBJECT_BYTES);
    fixture_put(f->store, STORE_LAYER, bytes, OBJECT_BYTES, NULL);
    free(bytes);
    add_all(f, content);
}

static void test_recover__opens_where_the_disk_refuses_to_read(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content, fixture_bytes(6, OBJECT_BYTES), OBJECT_BYTES);
    in_a_child_that_is_killed(f, put_an_object_and_add_all, &content);
    struct search first = find_record(f, &content.recipe->chunks[0].id);
    assert_true(first.found);
    unreadable_from = (off_t)first.offset;
    fixture_open(f);
    unreadable_from = -1;
    assert_int_equal(count_here(f, &content), 0);
    uint8_t *bytes = fixture_bytes(5, OBJECT_BYTES);
    struct id digest;
    crypto_sha256(bytes, OBJECT_BYTES, &digest);
    fixture_expect(f->store, &digest, bytes, OBJECT_BYTES);
    free(bytes);
    fixture_check_sound(f);
    content_release(&content);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_recover__takes_no_chunk_of_other_bytes),
        on_store(test_recover__keeps_only_what_is_wanted),
        on_store(test_recover__keeps_a_chunk_once),
        on_store(test_recover__does_not_take_back_what_was_freed),
        on_store(test_recover__punches_nothing_where_records_are_hidden),
        on_store(test_recover__opens_where_the_disk_refuses_to_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
