/* Recipes that waited for a commit when the process was killed: which are taken up, and which are not. */
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fixture.h"
#include "store/pack.h"

static bool dies_at_sync; /* in children */

int fdatasync(int fd)
{
    if (dies_at_sync)
        raise(SIGKILL);
    return (int)syscall(SYS_fdatasync, fd);
}

enum { OBJECT_BYTES = 300000 };

struct content {
    uint8_t *bytes; /* owned */
    struct id digest;
    struct store_recipe *recipe; /* owned */
};

static void content_make(struct content *content)
{
    void *from;
    struct store_object_info info;
    fixture_setup(&from);
    struct fixture *origin = from;
    content->bytes = fixture_bytes(1, OBJECT_BYTES);
    fixture_put(origin->store, STORE_LAYER, content->bytes, OBJECT_BYTES, &info);
    content->digest = info.digest;
    content->recipe = fixture_recipe(origin->store, &info.digest);
    fixture_teardown(&from);
}

static void content_release(struct content *content)
{
    store_recipe_free(content->recipe);
    free(content->bytes);
}

static struct store_assembly *begin(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *assembly = NULL;
    must(store_assembly_new(f->store, &content->digest, STORE_LAYER, content->recipe, &assembly, &err));
    return assembly;
}

static void add(struct store_assembly *assembly, const struct content *content, uint32_t i)
{
    struct err err = {0};
    must(store_assembly_add(assembly, i, STORE_RAW, content->bytes + content->recipe->offsets[i],
                            content->recipe->chunks[i].length, &err));
}

static void add_all(struct store_assembly *assembly, const struct content *content)
{
    for (uint32_t i = 0; i < content->recipe->root.chunk_count; i++)
        add(assembly, content, i);
}

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

static void receive(struct fixture *f, const struct content *content)
{
    add_all(begin(f, content), content);
}

static int take_partial(const struct store_partial_info *info, void *ctx)
{
    *(struct store_partial_info *)ctx = *info;
    return 1;
}

static bool has_partial(struct fixture *f, struct store_partial_info *ret_info)
{
    struct err err = {0};
    int found = store_partial_each(f->store, take_partial, ret_info, &err);
    must(found);
    return found == 1;
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

static void check_nothing_is_left(struct fixture *f, const struct content *content)
{
    struct store_partial_info info;
    assert_false(has_partial(f, &info));
    assert_int_equal(count_here(f, content), 0);
    assert_int_equal(fixture_pack_bytes(f->store), 0);
    assert_int_equal(fixture_check_sound(f).records_unused, 0);
}

/* faults 42 */
static void test_adopt__what_was_received_goes_on(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    content_make(&content);
    uint32_t count = content.recipe->root.chunk_count;
    for (int kill = 0; kill < 2; kill++) { /* the second time it is in the index, and the rest was written twice */
        in_a_child_that_is_killed(f, receive, &content);
        fixture_open(f);
        struct store_partial_info info;
        assert_true(has_partial(f, &info));
        assert_true(id_equal(&info.digest, &content.digest) && id_equal(&info.root, &content.recipe->root_id));
        assert_int_equal(info.kind, STORE_LAYER);
        assert_int_equal(info.started_ms, f->wall_ms);
        assert_int_equal(count_here(f, &content), count);
        assert_int_equal(fixture_check_sound(f).records_unused, 0);
    }
    struct store_assembly *assembly = begin(f, &content);
    for (uint32_t i = 0; i < count; i++)
        assert_true(store_assembly_has(assembly, i));
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    assert_int_equal(store_object_remove(f->store, &content.digest, &err), 1);
    check_nothing_is_left(f, &content);
    content_release(&content);
}

struct search {
    enum store_piece_type type;
    uint64_t offset;
};

static int match(const struct store_record *record, uint64_t offset, uint64_t len_bytes, void *ctx)
{
    (void)len_bytes;
    struct search *search = ctx;
    search->offset = offset;
    return record && record->type == search->type;
}

/* Change a byte of the first record of a type. */
static void spoil(struct fixture *f, enum store_piece_type type, uint64_t byte)
{
    struct err err = {0};
    OWNED(owned_free) char *packs = file_path("%s/packs", f->dir);
    struct store_pack *pack;
    struct search search = {.type = type};
    bool cut;
    must(store_pack_open(packs, 1, false, &pack, &err));
    assert_int_equal(store_pack_scan(pack, match, &search, &cut, &err), 1);
    assert_int_equal(pwrite(pack->fd, "!", 1, (off_t)(search.offset + byte)), 1);
    store_pack_unref(pack);
}

/* faults 49: of a recipe all has to be there, each byte */
static void test_adopt__no_recipe_of_other_bytes(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content);
    static const enum store_piece_type types[] = {STORE_PIECE_LEAF, STORE_PIECE_ROOT};
    for (int i = 0; i < 4; i++) { /* in the body, and in the head */
        in_a_child_that_is_killed(f, receive, &content);
        spoil(f, types[i % 2], i < 2 ? STORE_RECORD_HEAD_BYTES + 30 : 20);
        fixture_open(f);
        check_nothing_is_left(f, &content);
        fixture_teardown(state);
        fixture_setup(state);
        f = *state;
    }
    content_release(&content);
}

static void put_and_die(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_LAYER, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, content->bytes, OBJECT_BYTES, &err));
    dies_at_sync = true;
    store_ingest_finish(ingest, NULL, &err);
}

/* All of it is there, down to its root. But nobody was told so, and nobody asked for it. */
static void test_adopt__nothing_of_an_ingest(void **state)
{
    struct fixture *f = *state;
    struct content content;
    content_make(&content);
    store_close(f->store);
    f->store = NULL;
    fixture_open(f);
    fixture_put(f->store, STORE_BLOB, "abc", 3, NULL); /* the pack is there: its making is a sync as well */
    in_a_child_that_is_killed(f, put_and_die, &content);
    fixture_open(f);
    struct store_partial_info info;
    assert_false(has_partial(f, &info));
    assert_int_equal(count_here(f, &content), 0);
    assert_int_equal(fixture_check_sound(f).records_unused, 0);
    content_release(&content);
}

/* Two receive the same; one of them was ready. */
static void receive_twice(struct fixture *f, const struct content *content)
{
    struct err err = {0};
    struct store_assembly *first = begin(f, content);
    struct store_assembly *second = begin(f, content);
    add_all(first, content);
    add_all(second, content);
    must(store_assembly_finish(first, NULL, &err));
}

static void test_adopt__not_what_is_here(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct content content;
    struct store_partial_info info;
    content_make(&content);
    in_a_child_that_is_killed(f, receive_twice, &content);
    fixture_open(f);
    assert_false(has_partial(f, &info));
    assert_int_equal(fixture_check_sound(f).records_unused, 0);
    fixture_expect(f->store, &content.digest, content.bytes, OBJECT_BYTES);
    assert_int_equal(store_object_remove(f->store, &content.digest, &err), 1);
    check_nothing_is_left(f, &content);
    content_release(&content);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_adopt__what_was_received_goes_on),
        on_store(test_adopt__no_recipe_of_other_bytes),
        on_store(test_adopt__nothing_of_an_ingest),
        on_store(test_adopt__not_what_is_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
