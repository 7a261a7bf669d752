#include "store/chunk.h"

#include "fixture.h"

struct cuts {
    size_t at[4096];
    size_t count;
};

/* Hands the bytes over `step` at a time. */
static void cut_all(enum store_chunking chunking, const uint8_t *bytes, size_t len, size_t step, struct cuts *ret_cuts)
{
    struct store_chunker chunker;
    store_chunk_init(&chunker, chunking);
    ret_cuts->count = 0;
    size_t start = 0;
    size_t end = 0;
    while (start < len) {
        size_t cut = store_chunk_scan(&chunker, bytes + start, end - start);
        if (cut == 0 && end == len)
            cut = len - start;
        if (cut > 0)
            ret_cuts->at[ret_cuts->count++] = start += cut;
        else
            end = len - end < step ? len : end + step;
    }
}

static void test_chunk__cuts_do_not_depend_on_write_sizes(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 2, 3, 7, 15, 4096};
    size_t len = 1500000;
    uint8_t *bytes = fixture_bytes(1, len);
    memset(bytes + 500000, 0, 300000);
    for (enum store_chunking chunking = STORE_CHUNKING_ARCHIVE; chunking <= STORE_CHUNKING_PAGES; chunking++) {
        struct cuts whole;
        cut_all(chunking, bytes, len, len, &whole);
        assert_true(whole.count > 10);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            struct cuts cuts;
            cut_all(chunking, bytes, len, steps[i], &cuts);
            assert_int_equal(cuts.count, whole.count);
            assert_memory_equal(cuts.at, whole.at, cuts.count * sizeof *cuts.at);
        }
    }
    free(bytes);
}

static void test_chunk__archive_sizes_are_within_bounds(void **state)
{
    (void)state;
    size_t len = 64u << 20;
    uint8_t *bytes = fixture_bytes(2, len);
    struct cuts cuts;
    cut_all(STORE_CHUNKING_ARCHIVE, bytes, len, len, &cuts);
    size_t start = 0;
    for (size_t i = 0; i + 1 < cuts.count; i++) {
        assert_in_range(cuts.at[i] - start, STORE_CHUNK_MIN_BYTES, STORE_CHUNK_MAX_BYTES);
        start = cuts.at[i];
    }
    assert_in_range(len / cuts.count, 60000, 100000); /* 83 KB on data of every sort, research of the design */
    free(bytes);
}

static void test_chunk__an_insertion_moves_few_cuts(void **state)
{
    (void)state;
    size_t len = 8u << 20;
    uint8_t *bytes = fixture_bytes(3, len + 10);
    struct cuts before;
    struct cuts after;
    cut_all(STORE_CHUNKING_ARCHIVE, bytes + 10, len, len, &before); /* the same, without the first ten */
    cut_all(STORE_CHUNKING_ARCHIVE, bytes, len + 10, len, &after);
    size_t same = 0;
    for (size_t i = 0; i < before.count; i++)
        for (size_t j = 0; j < after.count; j++)
            same += after.at[j] == before.at[i] + 10;
    assert_true(same + 4 >= before.count);
    free(bytes);
}

static void test_chunk__pages_are_cut_between_pages_and_around_zeros(void **state)
{
    (void)state;
    size_t pages = 1000;
    uint8_t *bytes = fixture_bytes(4, pages * STORE_PAGE_BYTES);
    memset(bytes + 300 * STORE_PAGE_BYTES, 0, 300 * STORE_PAGE_BYTES);
    struct cuts cuts;
    cut_all(STORE_CHUNKING_PAGES, bytes, pages * STORE_PAGE_BYTES, 100000, &cuts);
    size_t start = 0;
    bool behind_zeros = false;
    size_t within = 0;
    for (size_t i = 0; i < cuts.count; i++) {
        assert_int_equal(cuts.at[i] % STORE_PAGE_BYTES, 0);
        size_t page = cuts.at[i] / STORE_PAGE_BYTES;
        if (i + 1 < cuts.count)
            assert_in_range(page - start, 1, STORE_CHUNK_MAX_PAGES);
        within += page > 300 && page < 600;
        behind_zeros |= page == 600;
        start = page;
    }
    assert_true(behind_zeros);
    assert_in_range(within, 300 / STORE_CHUNK_MAX_PAGES, 300 / STORE_CHUNK_MAX_PAGES + 1);
    free(bytes);
}

/* Cuts of a version never change: other nodes rely on finding the same. */
static void test_chunk__cuts_are_golden(void **state)
{
    (void)state;
    size_t len = 4u << 20;
    uint8_t *bytes = fixture_bytes(5, len);
    for (enum store_chunking chunking = STORE_CHUNKING_ARCHIVE; chunking <= STORE_CHUNKING_PAGES; chunking++) {
        struct cuts cuts;
        cut_all(chunking, bytes, len, len, &cuts);
        struct id digest;
        uint8_t text[8 * 4096];
        for (size_t i = 0; i < cuts.count; i++)
            for (size_t j = 0; j < 8; j++)
                text[8 * i + j] = (uint8_t)(cuts.at[i] >> (56 - 8 * j));
        crypto_sha256(text, 8 * cuts.count, &digest);
        char hex[ID_HEX_SIZE];
        assert_string_equal(id_hex(&digest, hex),
                            chunking == STORE_CHUNKING_ARCHIVE
                                ? "a5d3d845273497bb4af4cacf25e3137b0530e910d765562974b55b82d67ff767"
                                : "852e96ca10b20cb1322c9d565f3b3d9af25f123459cb79a925022133e09ba15f");
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk__cuts_do_not_depend_on_write_sizes),
        cmocka_unit_test(test_chunk__archive_sizes_are_within_bounds),
        cmocka_unit_test(test_chunk__an_insertion_moves_few_cuts),
        cmocka_unit_test(test_chunk__pages_are_cut_between_pages_and_around_zeros),
        cmocka_unit_test(test_chunk__cuts_are_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
