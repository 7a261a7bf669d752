/*
 * SIGKILL before the k-th call that changes a file, for k = 1, 2, 3 ... until the work passes untouched: what was
 * acknowledged is there, what was not is there whole or not at all, and nothing has leaked. The calls are counted by
 * functions of this program that stand in front of libc's, for LMDB as well.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

static long calls_left = -1; /* only children count, and they have one thread */

static void count_call(void)
{
    if (calls_left > 0 && --calls_left == 0)
        raise(SIGKILL);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    count_call();
    return syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
    count_call();
    return syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (calls_left == 1 && count > 1) /* killed within a record: its head is written, its body is not */
        syscall(SYS_pwritev, fd, parts, 1, offset, 0);
    count_call();
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    count_call();
    return syscall(SYS_writev, fd, parts, count);
}

int fdatasync(int fd)
{
    count_call();
    return (int)syscall(SYS_fdatasync, fd);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    count_call();
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int ftruncate(int fd, off_t len)
{
    count_call();
    return (int)syscall(SYS_ftruncate, fd, len);
}

int unlink(const char *path)
{
    count_call();
    return (int)syscall(SYS_unlink, path);
}

/* ---- the work ---- */

enum { OBJECT_BYTES = 300000, STEPS = 6 };

struct content {
    uint8_t *bytes[3];
    struct id digest[3];
    struct store_recipe *recipe; /* of the second */
};

static void content_make(struct content *content)
{
    void *state;
    fixture_setup(&state);
    struct fixture *f = state;
    for (uint64_t i = 0; i < 3; i++) {
        content->bytes[i] = fixture_bytes(i < 2 ? 50 + i : 50, OBJECT_BYTES); /* the third is nearly the first */
        content->bytes[i][100] = (uint8_t)i;
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, content->bytes[i], OBJECT_BYTES, &info);
        content->digest[i] = info.digest;
    }
    content->recipe = fixture_recipe(f->store, &content->digest[1]);
    fixture_teardown(&state);
}

static void content_release(struct content *content)
{
    for (int i = 0; i < 3; i++)
        free(content->bytes[i]);
    store_recipe_free(content->recipe);
}

static void must_work(int status, const struct err *err)
{
    if (status >= 0)
        return;
    fprintf(stderr, "%s\n", err->text);
    _exit(99);
}

static void acknowledge(int fd)
{
    if (fd >= 0 && write(fd, "+", 1) != 1)
        _exit(98);
}

static void ingest(struct store *store, const struct content *content, int which)
{
    struct err err = {0};
    struct store_ingest *ingest;
    must_work(store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err), &err);
    must_work(store_ingest_write(ingest, content->bytes[which], OBJECT_BYTES, &err), &err);
    must_work(store_ingest_finish(ingest, NULL, &err), &err);
    store_ingest_free(ingest);
}

static void assemble(struct store *store, const struct content *content, int acks)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    const struct store_recipe *recipe = content->recipe;
    int here = store_assembly_new(store, &content->digest[1], STORE_BLOB, recipe, &assembly, &err);
    must_work(here, &err);
    if (here == 1)
        return;
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
        const uint8_t *raw = content->bytes[1] + recipe->offsets[i];
        must_work(store_assembly_add(assembly, i, STORE_RAW, raw, recipe->chunks[i].length, &err), &err);
        if (i == 0) {
            must_work(store_assembly_sync(assembly, &err), &err);
            acknowledge(acks);
        }
    }
    must_work(store_assembly_finish(assembly, NULL, &err), &err);
    store_assembly_free(assembly);
}

/* Six acknowledgements. */
static void work(const struct fixture *f, const struct content *content, int acks)
{
    struct err err = {0};
    struct store *store;
    must_work(store_open(&f->options, &store, &err), &err);
    ingest(store, content, 0);
    acknowledge(acks);
    assemble(store, content, acks);
    acknowledge(acks);
    ingest(store, content, 2);
    acknowledge(acks);
    must_work(store_object_remove(store, &content->digest[0], &err), &err);
    acknowledge(acks);
    struct store_ref ref = {.kind = 1, .name = "latest", .digest = content->digest[2]};
    must_work(store_ref_set(store, &ref, &err), &err);
    acknowledge(acks);
    store_close(store);
}

typedef void (*work_cb)(const struct fixture *f, const struct content *content, int acks);

/* How many steps were acknowledged; *ret_done if the child got to the end. */
static int run_child(const struct fixture *f, const struct content *content, work_cb run, long kill_at, bool *ret_done)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        calls_left = kill_at;
        run(f, content, ends[1]);
        _exit(0);
    }
    close(ends[1]);
    int acks = 0;
    char ack;
    while (read(ends[0], &ack, 1) == 1)
        acks++;
    close(ends[0]);
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFEXITED(outcome) ? WEXITSTATUS(outcome) == 0 : WTERMSIG(outcome) == SIGKILL);
    *ret_done = WIFEXITED(outcome);
    return acks;
}

/* There whole, or not at all. */
static bool is_whole(struct store *store, const struct content *content, int which)
{
    struct err err = {0};
    int got = store_object_stat(store, &content->digest[which], NULL, &err);
    if (got == 1)
        fixture_expect(store, &content->digest[which], content->bytes[which], OBJECT_BYTES);
    return got == 1;
}

static void check_steps(struct store *store, const struct content *content, int acks)
{
    struct err err = {0};
    uint8_t bitmap = 0;
    bool here[3];
    for (int i = 0; i < 3; i++)
        here[i] = is_whole(store, content, i);
    if (acks >= 1 && acks < 4)
        assert_true(here[0]);
    if (acks >= 2) { /* the first chunk of the assembly was synced */
        must(store_pieces_have(store, &content->recipe->chunks[0].id, 1, &bitmap, &err));
        assert_int_equal(bitmap, 1);
    }
    assert_true(acks >= 3 ? here[1] : acks >= 2 || !here[1]);
    assert_true(acks >= 4 ? here[2] : acks >= 3 || !here[2]);
    assert_true(acks < 5 || !here[0]);
    struct store_ref ref;
    int named = store_ref_latest(store, 1, "latest", &ref, NULL, &err);
    assert_true(acks >= 6 ? named == 1 : acks >= 5 || named == 0);
}

static void say(const char *finding, void *ctx)
{
    (void)ctx;
    print_message("fsck: %s\n", finding);
}

static void check_sound(const struct fixture *f)
{
    struct err err = {0};
    struct store_fsck_report report;
    int sound = store_fsck(f->dir, false, f->options.clock, &report, say, NULL, &err);
    must(sound);
    assert_int_equal(sound, 1);
    assert_int_equal(report.records_unused, 0);
    assert_int_equal(report.tails_truncated, 0);
}

/* Of a store that was opened since: it is sound, and going on and removing everything leaves nothing. */
static void check_after(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    store_close(f->store);
    f->store = NULL;
    check_sound(f);
    fixture_open(f);
    assemble(f->store, content, -1);
    fixture_expect(f->store, &content->digest[1], content->bytes[1], OBJECT_BYTES);
    for (int i = 0; i < 3; i++)
        must(store_object_remove(f->store, &content->digest[i], &err));
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    store_close(f->store);
    f->store = NULL;
}

/* faults 41, 42, 48 */
static void test_kill__at_every_change_of_a_file(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    bool done = false;
    long k = 1;
    for (; !done; k++) {
        must(file_remove_tree(f->dir, &err));
        int acks = run_child(f, &content, work, k, &done);
        if (done) {
            assert_int_equal(acks, STEPS);
            break;
        }
        fixture_open(f);
        check_steps(f->store, &content, acks);
        check_after(f, &content);
    }
    print_message("killed at %ld places\n", k - 1);
    assert_true(k > 50);
    content_release(&content);
    fixture_open(f);
}

/* Two acknowledgements. Between them an object comes at once, with one commit for its recipe, its chunks and itself. */
static void fetch(const struct fixture *f, const struct content *content, int acks)
{
    struct err err = {0};
    struct store *store;
    struct store_assembly *assembly;
    const struct store_recipe *recipe = content->recipe;
    must_work(store_open(&f->options, &store, &err), &err);
    ingest(store, content, 0);
    acknowledge(acks);
    must_work(store_assembly_new(store, &content->digest[1], STORE_BLOB, recipe, &assembly, &err), &err);
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++)
        must_work(store_assembly_add(assembly, i, STORE_RAW, content->bytes[1] + recipe->offsets[i],
                                     recipe->chunks[i].length, &err),
                  &err);
    must_work(store_assembly_finish(assembly, NULL, &err), &err);
    acknowledge(acks);
    store_assembly_free(assembly);
    store_close(store);
}

/* faults 42, 48 */
static void test_kill__of_an_object_that_is_one_commit(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    bool done = false;
    for (long k = 1; !done; k++) {
        must(file_remove_tree(f->dir, &err));
        int acks = run_child(f, &content, fetch, k, &done);
        assert_true(!done || acks == 2);
        fixture_open(f);
        assert_true(is_whole(f->store, &content, 0) || acks < 1);
        assert_true(is_whole(f->store, &content, 1) ? acks >= 1 : acks < 2);
        check_after(f, &content);
    }
    content_release(&content);
    fixture_open(f);
}

/* ---- what no commit has reached ---- */

/* An acknowledgement for each chunk. Around them, and of them in the middle, others write to the same pack. */
static void receive(const struct fixture *f, const struct content *content, int acks)
{
    struct err err = {0};
    struct store *store;
    struct store_assembly *assembly;
    struct store_ingest *slow;
    const struct store_recipe *recipe = content->recipe;
    must_work(store_open(&f->options, &store, &err), &err);
    must_work(store_assembly_new(store, &content->digest[1], STORE_BLOB, recipe, &assembly, &err), &err);
    must_work(store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &slow, &err), &err);
    must_work(store_ingest_write(slow, content->bytes[0], OBJECT_BYTES, &err), &err);
    for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
        const uint8_t *raw = content->bytes[1] + recipe->offsets[i];
        must_work(store_assembly_add(assembly, i, STORE_RAW, raw, recipe->chunks[i].length, &err), &err);
        acknowledge(acks);
        if (i == 1)
            ingest(store, content, 2);
    }
    _exit(0); /* which leaves as much as a kill */
}

static void just_open(const struct fixture *f, const struct content *content, int acks)
{
    (void)content;
    struct err err = {0};
    struct store *store;
    must_work(store_open(&f->options, &store, &err), &err);
    acknowledge(acks);
    _exit(0);
}

static void check_chunks(struct fixture *f, const struct content *content, int acks)
{
    struct err err = {0};
    fixture_open(f);
    assert_false(is_whole(f->store, content, 0));
    assert_true(is_whole(f->store, content, 2) || acks < 3);
    for (int i = 0; i < acks; i++) {
        static uint8_t raw[LIMIT_CHUNK_BYTES];
        size_t len;
        const struct store_chunk *chunk = &content->recipe->chunks[i];
        must(store_piece_read_raw(f->store, STORE_PIECE_CHUNK, &chunk->id, raw, sizeof raw, &len, &err));
        assert_int_equal(len, chunk->length);
        assert_memory_equal(raw, content->bytes[1] + content->recipe->offsets[i], len);
    }
    check_after(f, content);
}

/* faults 42: a receiver goes on with every chunk that it had */
static void test_kill__loses_no_chunk_of_an_assembly(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    bool done = false;
    for (long k = 1; !done; k++) {
        must(file_remove_tree(f->dir, &err));
        int acks = run_child(f, &content, receive, k, &done);
        assert_true(!done || acks == (int)content.recipe->root.chunk_count);
        check_chunks(f, &content, acks);
    }
    content_release(&content);
    fixture_open(f);
}

static void test_kill__of_a_start_that_keeps_chunks(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    bool done = false;
    long k = 1;
    for (; !done; k++) {
        must(file_remove_tree(f->dir, &err));
        int acks = run_child(f, &content, receive, -1, &done);
        assert_true(done);
        run_child(f, &content, just_open, k, &done);
        check_chunks(f, &content, acks);
    }
    assert_true(k > 5);
    content_release(&content);
    fixture_open(f);
}

/* Pages of which every four make a chunk: many chunks of few bytes, so that an ingest commits before its end. */
static void write_many_chunks(struct store_ingest *ingest)
{
    struct err err = {0};
    static uint8_t pages[8][4096];
    for (uint32_t i = 0; i < 5400; i++) {
        for (size_t j = 0; j < 4; j++)
            memcpy(pages[j], &i, sizeof i);
        must_work(store_ingest_write(ingest, pages, sizeof pages, &err), &err);
    }
}

static void test_kill__of_an_ingest_that_has_committed_leaves(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, &err));
    write_many_chunks(ingest);
    static const uint8_t zeros[4 * 4096];
    struct id id;
    uint8_t bitmap;
    crypto_sha256(zeros, sizeof zeros, &id);
    must(store_pieces_have(f->store, &id, 1, &bitmap, &err));
    assert_int_equal(bitmap, 1); /* there was a commit */
    store_ingest_free(ingest);   /* given up: nothing stays */
    assert_int_equal(fixture_pack_bytes(f->store), 0);

    store_close(f->store);
    f->store = NULL;
    pid_t child = fork();
    if (child == 0) {
        struct store *store;
        must_work(store_open(&f->options, &store, &err), &err);
        must_work(store_ingest_new(store, STORE_CHECKPOINT, STORE_CHUNKING_PAGES, &ingest, &err), &err);
        write_many_chunks(ingest);
        raise(SIGKILL);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome));
    fixture_open(f);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    store_close(f->store);
    f->store = NULL;
    check_sound(f);
    fixture_open(f);
}

/* Records that were never committed, in front of some that were. */
static void test_kill__between_two_writers(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    pid_t child = fork();
    if (child == 0) {
        struct store *store;
        struct store_ingest *slow;
        must_work(store_open(&f->options, &store, &err), &err);
        must_work(store_ingest_new(store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &slow, &err), &err);
        must_work(store_ingest_write(slow, content.bytes[0], OBJECT_BYTES, &err), &err);
        ingest(store, &content, 1);
        raise(SIGKILL);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome));
    fixture_open(f);
    assert_false(is_whole(f->store, &content, 0));
    assert_true(is_whole(f->store, &content, 1));
    store_close(f->store);
    f->store = NULL;
    check_sound(f);
    content_release(&content);
    fixture_open(f);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_kill__at_every_change_of_a_file),     on_store(test_kill__of_an_object_that_is_one_commit),
        on_store(test_kill__loses_no_chunk_of_an_assembly), on_store(test_kill__of_a_start_that_keeps_chunks),
        on_store(test_kill__between_two_writers),           on_store(test_kill__of_an_ingest_that_has_committed_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
