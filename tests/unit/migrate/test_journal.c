#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/migrate/state.h"

struct place {
    char dir[64];
    struct store *store;
};

static void place_open(struct place *place)
{
    const struct store_options options = {.dir = place->dir, .clock = clock_system()};
    assert_int_equal(store_open(&options, &place->store, NULL), 0);
}

static int place_setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    *state = place;
    strcpy(place->dir, "/tmp/cmig-journal-XXXXXX");
    if (crypto_init(NULL) < 0 || !mkdtemp(place->dir))
        return -1;
    place_open(place);
    return 0;
}

static int place_teardown(void **state)
{
    struct place *place = *state;
    store_close(place->store);
    int status = file_remove_tree(place->dir, NULL);
    free(place);
    return status;
}

static struct journal_row sample(enum journal_side side, enum journal_state state, uint8_t number)
{
    struct journal_row row = {.side = side, .state = state, .epoch = number};
    row.id.b[0] = number;
    row.container.b[15] = number;
    memset(&row.peer, number, sizeof row.peer);
    return row;
}

static void assert_same(const struct journal_row *a, const struct journal_row *b)
{
    assert_int_equal(a->side, b->side);
    assert_int_equal(a->state, b->state);
    assert_memory_equal(&a->id, &b->id, sizeof a->id);
    assert_memory_equal(&a->container, &b->container, sizeof a->container);
    assert_memory_equal(&a->peer, &b->peer, sizeof a->peer);
    assert_int_equal(a->epoch, b->epoch);
}

static void test_journal__rows_come_back_after_a_restart(void **state)
{
    struct place *place = *state;
    static const enum journal_state states[] = {JOURNAL_COPYING, JOURNAL_STOPPED, JOURNAL_PREPARED, JOURNAL_COMMITTED,
                                                JOURNAL_RUNNING};
    for (uint8_t i = 0; i < 5; i++) {
        struct journal_row row = sample(i % 2 ? JOURNAL_SOURCE : JOURNAL_TARGET, states[i], (uint8_t)(i + 1));
        assert_int_equal(journal_write(place->store, &row, NULL), 0);
    }
    store_close(place->store);
    place_open(place);
    for (uint8_t i = 0; i < 5; i++) {
        struct journal_row row = sample(i % 2 ? JOURNAL_SOURCE : JOURNAL_TARGET, states[i], (uint8_t)(i + 1)), back;
        assert_int_equal(journal_read(place->store, row.side, &row.id, &back, NULL), 1);
        assert_same(&row, &back);
    }
    OWNED(owned_free) struct journal_row *rows = NULL;
    size_t count = 0;
    assert_int_equal(journal_all(place->store, &rows, &count, NULL), 0);
    assert_int_equal(count, 5);
}

static void test_journal__a_migration_has_one_row_on_each_side(void **state)
{
    struct place *place = *state;
    struct journal_row row = sample(JOURNAL_SOURCE, JOURNAL_COPYING, 1), back;
    struct journal_row other = sample(JOURNAL_TARGET, JOURNAL_PREPARED, 1);
    assert_int_equal(journal_write(place->store, &row, NULL), 0);
    assert_int_equal(journal_write(place->store, &other, NULL), 0);
    row.state = JOURNAL_COMMITTED;
    assert_int_equal(journal_write(place->store, &row, NULL), 0);
    assert_int_equal(journal_read(place->store, JOURNAL_SOURCE, &row.id, &back, NULL), 1);
    assert_same(&row, &back);
    assert_int_equal(journal_remove(place->store, JOURNAL_SOURCE, &row.id, NULL), 0);
    assert_int_equal(journal_remove(place->store, JOURNAL_SOURCE, &row.id, NULL), 0);
    assert_int_equal(journal_read(place->store, JOURNAL_SOURCE, &row.id, &back, NULL), 0);
    assert_int_equal(journal_read(place->store, JOURNAL_TARGET, &row.id, &back, NULL), 1);
    assert_same(&other, &back);
}

/* A row that cannot be read must neither be taken for a decision nor keep the others, or the node, from going on. */
static void test_journal__malformed_rows_decide_nothing(void **state)
{
    struct place *place = *state;
    static const char *const bad[] = {
        "",
        "x",
        "{}",
        "[]",
        "{\"state\":\"committed\"}",
        "{\"container\":\"01234567-89ab-cdef-0123-456789abcdef\",\"epoch\":1,\"peer\":\"00\",\"state\":\"committed\"}",
        "{\"container\":\"no\",\"epoch\":1,\"peer\":\"00\",\"state\":\"committed\"}",
    };
    struct journal_row good = sample(JOURNAL_SOURCE, JOURNAL_COMMITTED, 99), back;
    assert_int_equal(journal_write(place->store, &good, NULL), 0);
    for (uint8_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint8_t key[1 + GUID_BYTES] = {JOURNAL_SOURCE, (uint8_t)(i + 1)};
        struct guid id = {{(uint8_t)(i + 1)}};
        assert_int_equal(store_table_put(place->store, "migrate", key, sizeof key, bad[i], strlen(bad[i]), NULL), 0);
        assert_int_equal(journal_read(place->store, JOURNAL_SOURCE, &id, &back, NULL), ERR_CORRUPT);
    }
    uint8_t strange[1 + GUID_BYTES] = {'x'};
    assert_int_equal(store_table_put(place->store, "migrate", strange, sizeof strange, "{}", 2, NULL), 0);
    assert_int_equal(store_table_put(place->store, "migrate", strange, 3, "{}", 2, NULL), 0);
    OWNED(owned_free) struct journal_row *rows = NULL;
    size_t count = 0;
    assert_int_equal(journal_all(place->store, &rows, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_same(&rows[0], &good);
}

#define PLACE_TEST(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(test_journal__rows_come_back_after_a_restart),
        PLACE_TEST(test_journal__a_migration_has_one_row_on_each_side),
        PLACE_TEST(test_journal__malformed_rows_decide_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
