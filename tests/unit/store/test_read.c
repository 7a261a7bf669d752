/* Several pieces at once: the same bytes as one by one, as far as they go. */
#include <fcntl.h>
#include <unistd.h>

#include "fixture.h"

#define BYTES 900000u

struct several {
    struct store_recipe *recipe; /* owned */
    struct id ids[STORE_PIECES_MAX + 1];
    uint8_t *back; /* owned */
    struct store_piece pieces[STORE_PIECES_MAX];
};

static void begin(struct several *several, struct fixture *f)
{
    OWNED(owned_free) uint8_t *bytes = fixture_bytes(5, BYTES);
    memset(bytes + 200000, 'z', 300000); /* some are compressed, some are equal */
    struct store_object_info info;
    fixture_put(f->store, STORE_LAYER, bytes, BYTES, &info);
    several->recipe = fixture_recipe(f->store, &info.digest);
    several->back = malloc(BYTES);
    assert_in_range(info.chunk_count, 5, STORE_PIECES_MAX);
    for (uint32_t i = 0; i < info.chunk_count; i++)
        several->ids[i] = several->recipe->chunks[i].id;
}

static void end(struct several *several)
{
    store_recipe_free(several->recipe);
    free(several->back);
}

static size_t read_all(struct several *several, struct fixture *f, size_t cap)
{
    return store_pieces_read(f->store, STORE_PIECE_CHUNK, several->ids, several->recipe->root.chunk_count,
                             several->back, cap, several->pieces);
}

static void check(const struct several *several, struct fixture *f, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        static uint8_t one[LIMIT_CHUNK_BYTES];
        struct store_piece piece;
        struct err err = {0};
        assert_int_equal(store_piece_read(f->store, STORE_PIECE_CHUNK, &several->ids[i], one, sizeof one, &piece, &err),
                         1);
        assert_int_equal(piece.stored_bytes, several->pieces[i].stored_bytes);
        assert_int_equal(piece.raw_bytes, several->pieces[i].raw_bytes);
        assert_int_equal(piece.encoding, several->pieces[i].encoding);
        assert_memory_equal(one, several->back + used, piece.stored_bytes);
        used += piece.stored_bytes;
    }
}

static void test_read__several_are_what_each_is(void **state)
{
    struct fixture *f = *state;
    struct several s;
    begin(&s, f);
    uint32_t n = s.recipe->root.chunk_count;
    assert_int_equal(read_all(&s, f, BYTES), n);
    check(&s, f, n);
    assert_int_equal(store_pieces_read(f->store, STORE_PIECE_CHUNK, s.ids, 0, s.back, BYTES, s.pieces), 0);
    struct store_piece root;
    assert_int_equal(
        store_pieces_read(f->store, STORE_PIECE_ROOT, &s.recipe->root_id, 1, s.back, STORE_ROOT_MAX_BYTES, &root), 1);
    struct id id;
    crypto_sha256(s.back, root.stored_bytes, &id);
    assert_true(id_equal(&id, &s.recipe->root_id));
    end(&s);
}

static void test_read__several_end_before_what_is_not_here_or_does_not_fit(void **state)
{
    struct fixture *f = *state;
    struct several s;
    begin(&s, f);
    assert_int_equal(read_all(&s, f, s.recipe->chunks[0].length), 1);
    check(&s, f, 1);
    assert_int_equal(read_all(&s, f, 10), 0);
    s.ids[2].b[7] ^= 1;
    assert_int_equal(read_all(&s, f, BYTES), 2);
    check(&s, f, 2);
    end(&s);
}

/* faults 56 */
static void test_read__several_end_before_what_has_rotted(void **state)
{
    struct fixture *f = *state;
    struct several s;
    begin(&s, f);
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    /* the second chunk lies behind the first and two heads */
    off_t at = (off_t)s.recipe->chunks[0].length + 128 + 1000;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    assert_int_equal(read_all(&s, f, BYTES), 1);
    check(&s, f, 1);
    assert_int_equal(store_rot_waiting(f->store), 1);
    end(&s);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_read__several_are_what_each_is),
        on_store(test_read__several_end_before_what_is_not_here_or_does_not_fit),
        on_store(test_read__several_end_before_what_has_rotted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
