/* docs/store-format.md says what the code does. */
#include "fixture.h"
#include "store/chunk.h"
#include "store/open.h"
#include "store/pack.h"

static void read_spec(struct buf *spec)
{
    struct err err = {0};
    must(file_read("../docs/store-format.md", spec, &err));
}

static size_t read_example(const char *name, uint8_t *ret_bytes, size_t cap)
{
    OWNED(buf_release) struct buf spec = BUF(1u << 20);
    read_spec(&spec);
    char mark[64];
    snprintf(mark, sizeof mark, "    example %s ", name);
    const char *at = strstr(buf_str(&spec), mark);
    assert_non_null(at);
    at += strlen(mark);
    size_t digits = strspn(at, "0123456789abcdef");
    assert_in_range(digits / 2, 1, cap);
    assert_true(hex_decode(at, digits, ret_bytes, digits / 2));
    return digits / 2;
}

static void test_format__record(void **state)
{
    (void)state;
    uint8_t bytes[256];
    size_t len = read_example("record", bytes, sizeof bytes);
    struct store_record record;
    assert_true(store_pack_decode_head(bytes, &record));
    assert_int_equal(record.type, STORE_PIECE_CHUNK);
    assert_int_equal(record.stored_bytes, 3);
    assert_int_equal(len, STORE_RECORD_HEAD_BYTES + 3);
    struct id id;
    crypto_sha256("abc", 3, &id);
    assert_true(id_equal(&id, &record.id));
    uint8_t again[STORE_RECORD_HEAD_BYTES];
    store_pack_encode_head(&record, again);
    assert_memory_equal(again, bytes, sizeof again);
    for (size_t i = 0; i < sizeof again; i++) { /* no bit of a head may change unnoticed */
        bytes[i] ^= 1;
        assert_false(store_pack_decode_head(bytes, &record));
        bytes[i] ^= 1;
    }
}

static void test_format__recipe(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t wanted[256];
    uint8_t *got = malloc(STORE_ROOT_MAX_BYTES);
    size_t got_len;
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, "abc", 3, &info);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);

    size_t len = read_example("leaf", wanted, sizeof wanted);
    must(store_piece_read_raw(f->store, STORE_PIECE_LEAF, &recipe->root.leaves[0].id, got, STORE_ROOT_MAX_BYTES,
                              &got_len, &err));
    assert_int_equal(got_len, len);
    assert_memory_equal(got, wanted, len);

    len = read_example("root", wanted, sizeof wanted);
    must(store_piece_read_raw(f->store, STORE_PIECE_ROOT, &info.root, got, STORE_ROOT_MAX_BYTES, &got_len, &err));
    assert_int_equal(got_len, len);
    assert_memory_equal(got, wanted, len);
    store_recipe_free(recipe);
    free(got);
}

static void test_format__numbers(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf spec = BUF(1u << 20);
    read_spec(&spec);
    const char *text = buf_str(&spec);
    struct {
        unsigned long number;
        const char *sentence;
    } said[] = {
        {LIMIT_CHUNK_BYTES, "Raw length is at most %lu,"},
        {STORE_ROOT_MAX_BYTES, "for roots %lu."},
        {LIMIT_CHUNK_BYTES, "A chunk has 1 to %lu bytes"},
        {LIMIT_OBJECT_CHUNKS, "an object has at most %lu chunks"},
        {STORE_LEAF_MAX_CHUNKS, "if n = %lu, or"},
        {STORE_LEAF_MIN_CHUNKS, "if n >= %lu and the last four"},
        {STORE_LEAF_ENTRY_BYTES, "| 8 | %lu each |"},
        {STORE_ROOT_ENTRY_BYTES, "| 56 | %lu each |"},
        {STORE_CHUNK_MIN_BYTES, "ends if n >= %lu and"},
        {STORE_CHUNK_AVG_BYTES, "for n <= %lu, the top 17"},
        {STORE_CHUNK_MAX_BYTES, "it ends at n = %lu in any case"},
        {STORE_PAGE_BYTES, "Pages of %lu bytes"},
        {STORE_CHUNK_MAX_PAGES, "A chunk of n pages ends at n = %lu;"},
        {STORE_CHUNK_MIN_PAGES, "or if n >= %lu and its last page"},
        {STORE_PACK_BYTES >> 20, "A pack that passes %lu MiB"},
        {STORE_FORMAT_VERSION, "`meta[\"format\"]` = u32 %lu."},
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        char sentence[128];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(sentence, sizeof sentence, said[i].sentence, said[i].number);
#pragma GCC diagnostic pop
        if (!strstr(text, sentence))
            fail_msg("docs/store-format.md does not say: %s", sentence);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format__record),
        cmocka_unit_test_setup_teardown(test_format__recipe, fixture_setup, fixture_teardown),
        cmocka_unit_test(test_format__numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
