#include "fixture.h"

static void set(struct fixture *f, const char *name, uint64_t epoch, uint64_t counter, const char *value)
{
    struct err err = {0};
    struct store_ref ref = {.kind = 3,
                            .name = name,
                            .version = {epoch, counter},
                            .digest.b = {(uint8_t)epoch, (uint8_t)counter},
                            .value = value,
                            .value_len = strlen(value)};
    must(store_ref_set(f->store, &ref, &err));
}

static void test_names__the_latest_version_is_the_highest(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    set(f, "vol", 1, 300, "b");
    set(f, "vol", 2, 1, "c");
    set(f, "vol", 1, 2, "a");
    set(f, "vol2", 9, 9, "other");
    set(f, "vo", 9, 9, "other");
    fixture_reopen(f);
    struct buf value = BUF(100);
    struct store_ref ref;
    assert_int_equal(store_ref_latest(f->store, 3, "vol", &ref, &value, &err), 1);
    assert_int_equal(ref.version.epoch, 2);
    assert_int_equal(ref.version.counter, 1);
    assert_int_equal(ref.digest.b[0], 2);
    assert_string_equal(buf_str(&value), "c");
    buf_clear(&value);
    assert_int_equal(store_ref_get(f->store, 3, "vol", (struct store_version){1, 2}, &ref, &value, &err), 1);
    assert_string_equal(buf_str(&value), "a");
    assert_int_equal(store_ref_get(f->store, 3, "vol", (struct store_version){1, 3}, &ref, NULL, &err), 0);
    assert_int_equal(store_ref_latest(f->store, 3, "v", &ref, NULL, &err), 0);
    assert_int_equal(store_ref_latest(f->store, 4, "vol", &ref, NULL, &err), 0);
    assert_int_equal(store_ref_remove(f->store, 3, "vol", (struct store_version){2, 1}, &err), 1);
    assert_int_equal(store_ref_remove(f->store, 3, "vol", (struct store_version){2, 1}, &err), 0);
    assert_int_equal(store_ref_latest(f->store, 3, "vol", &ref, NULL, &err), 1);
    assert_int_equal(ref.version.counter, 300);
    buf_release(&value);
}

struct seen {
    char text[256];
    struct store *store;
};

static int note(const struct store_ref *ref, void *ctx)
{
    struct seen *seen = ctx;
    struct err err = {0};
    size_t len = strlen(seen->text);
    snprintf(seen->text + len, sizeof seen->text - len, "%s:%d.%d=%.*s ", ref->name, (int)ref->version.epoch,
             (int)ref->version.counter, (int)ref->value_len, (const char *)ref->value);
    must(store_ref_remove(seen->store, ref->kind, ref->name, ref->version, &err)); /* callbacks may change things */
    return 0;
}

static void test_names__walks_are_in_order_and_of_one_name(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    set(f, "b", 1, 256, "y");
    set(f, "b", 1, 2, "x");
    set(f, "a", 7, 7, "");
    set(f, "bb", 1, 1, "z");
    struct seen seen = {.store = f->store};
    must(store_ref_each(f->store, 3, "b", note, &seen, &err));
    assert_string_equal(seen.text, "b:1.2=x b:1.256=y ");
    seen.text[0] = '\0';
    must(store_ref_each(f->store, 3, NULL, note, &seen, &err));
    assert_string_equal(seen.text, "a:7.7= bb:1.1=z ");
}

static void test_names__bad_names_and_values_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    struct store_ref ref = {.kind = 1, .name = name};
    assert_int_equal(store_ref_set(f->store, &ref, &err), ERR_INVALID);
    assert_int_equal(store_pin(f->store, &ref.digest, name, &err), ERR_INVALID);
    assert_int_equal(store_pin(f->store, &ref.digest, "", &err), ERR_INVALID);
    name[255] = '\0';
    must(store_ref_set(f->store, &ref, &err));
    must(store_pin(f->store, &ref.digest, name, &err));
    ref.name = "";
    assert_int_equal(store_ref_set(f->store, &ref, &err), ERR_INVALID);
    static const uint8_t large[STORE_REF_VALUE_MAX_BYTES + 1];
    ref = (struct store_ref){.name = "n", .value = large, .value_len = sizeof large, .keep = true};
    assert_int_equal(store_ref_set(f->store, &ref, &err), ERR_LIMIT);
    ref.value_len--;
    must(store_ref_set(f->store, &ref, &err));
}

static void test_names__pins_are_counted_by_owner(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct id digest = {.b = {1}};
    struct id other = {.b = {1, 1}};
    assert_int_equal(store_pinned(f->store, &digest, &err), 0);
    must(store_pin(f->store, &digest, "a", &err));
    must(store_pin(f->store, &digest, "a", &err));
    must(store_pin(f->store, &digest, "ab", &err));
    must(store_unpin(f->store, &digest, "a", &err));
    must(store_unpin(f->store, &digest, "a", &err));
    fixture_reopen(f);
    assert_int_equal(store_pinned(f->store, &digest, &err), 1);
    assert_int_equal(store_pinned(f->store, &other, &err), 0);
    must(store_unpin(f->store, &digest, "ab", &err));
    assert_int_equal(store_pinned(f->store, &digest, &err), 0);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_names__the_latest_version_is_the_highest),
        on_store(test_names__walks_are_in_order_and_of_one_name),
        on_store(test_names__bad_names_and_values_are_refused),
        on_store(test_names__pins_are_counted_by_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
