#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fixture.h"

static int syncs_until_failure = -1;

/* In front of libc's: the disk fails when a test says so. */
int fdatasync(int fd)
{
    if (syncs_until_failure > 0 && --syncs_until_failure == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static int count_packs(const struct fixture *f)
{
    OWNED(owned_free) char *path = file_path("%s/packs", f->dir);
    DIR *dir = opendir(path);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strstr(entry->d_name, ".pack") != NULL;
    closedir(dir);
    return count;
}

static void test_packs__rotate_by_size_and_go_when_empty(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    f->options.pack_bytes = 500000;
    fixture_reopen(f);
    struct id digests[4];
    uint8_t *bytes[4];
    for (uint64_t i = 0; i < 4; i++) {
        bytes[i] = fixture_bytes(i, 600000);
        struct store_object_info info;
        fixture_put(f->store, STORE_BLOB, bytes[i], 600000, &info);
        digests[i] = info.digest;
    }
    assert_in_range(count_packs(f), 4, 6);
    uint64_t all = fixture_pack_bytes(f->store);
    fixture_reopen(f);
    assert_int_equal(fixture_pack_bytes(f->store), all);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_object_remove(f->store, &digests[i], &err), 1);
    assert_in_range(count_packs(f), 1, 3);
    uint64_t used = fixture_pack_bytes(f->store);
    fixture_reopen(f);
    assert_int_equal(fixture_pack_bytes(f->store), used);
    fixture_expect(f->store, &digests[3], bytes[3], 600000);
    assert_int_equal(store_object_remove(f->store, &digests[3], &err), 1);
    fixture_reopen(f);
    assert_int_equal(count_packs(f), 0);
    for (int i = 0; i < 4; i++)
        free(bytes[i]);
}

static void test_packs__freed_bytes_go_back_to_the_disk(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(1, 4000000);
    struct store_object_info first;
    struct store_object_info second;
    fixture_put(f->store, STORE_BLOB, bytes, 2000000, &first);
    fixture_put(f->store, STORE_BLOB, bytes + 2000000, 2000000, &second);
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    struct stat before;
    struct stat after;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(store_object_remove(f->store, &first.digest, &err), 1);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_blocks * 512 + 1900000 < before.st_blocks * 512);
    fixture_expect(f->store, &second.digest, bytes + 2000000, 2000000);
    free(bytes);
}

/* faults 55 */
static void test_packs__a_failed_sync_is_never_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(2, 600000);
    struct store_object_info kept;
    fixture_put(f->store, STORE_BLOB, bytes, 300000, &kept);

    struct store_ingest *other; /* has records in the pack that is about to fail */
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &other, &err));
    must(store_ingest_write(other, bytes, 500000, &err));
    struct store_ingest *ingest;
    must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
    must(store_ingest_write(ingest, bytes, 600000, &err));
    syncs_until_failure = 1;
    assert_int_equal(store_ingest_finish(ingest, NULL, &err), ERR_IO);
    assert_int_equal(store_ingest_finish(ingest, NULL, &err), ERR_CONFLICT);
    store_ingest_free(ingest);
    struct id digest;
    crypto_sha256(bytes, 600000, &digest);
    assert_int_equal(store_object_stat(f->store, &digest, NULL, &err), 0);
    /* The kernel holds the failed pages for clean now: the other's sync would succeed, and may not. */
    assert_int_equal(store_ingest_finish(other, NULL, &err), ERR_IO);
    store_ingest_free(other);

    /* What was durable stays, and a new pack takes what comes. */
    fixture_expect(f->store, &kept.digest, bytes, 300000);
    fixture_put(f->store, STORE_BLOB, bytes, 600000, NULL);
    assert_int_equal(count_packs(f), 2);
    fixture_reopen(f);
    fixture_expect(f->store, &digest, bytes, 600000);
    fixture_expect(f->store, &kept.digest, bytes, 300000);
    free(bytes);
}

static void test_packs__an_assembly_loses_what_a_failed_sync_lost(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint8_t *bytes = fixture_bytes(3, 400000);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, 400000, &info);
    struct store_recipe *recipe = fixture_recipe(f->store, &info.digest);
    assert_int_equal(store_object_remove(f->store, &info.digest, &err), 1);
    struct store_assembly *assembly;
    must(store_assembly_new(f->store, &info.digest, STORE_BLOB, recipe, &assembly, &err));
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < recipe->root.chunk_count; i++) {
            assert_false(store_assembly_has(assembly, i));
            must(
                store_assembly_add(assembly, i, STORE_RAW, bytes + recipe->offsets[i], recipe->chunks[i].length, &err));
        }
        if (round == 0) {
            syncs_until_failure = 1;
            assert_int_equal(store_assembly_sync(assembly, &err), ERR_IO);
        }
    }
    must(store_assembly_finish(assembly, NULL, &err));
    store_assembly_free(assembly);
    fixture_expect(f->store, &info.digest, bytes, 400000);
    store_recipe_free(recipe);
    free(bytes);
}

#define on_store(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_store(test_packs__rotate_by_size_and_go_when_empty),
        on_store(test_packs__freed_bytes_go_back_to_the_disk),
        on_store(test_packs__a_failed_sync_is_never_acknowledged),
        on_store(test_packs__an_assembly_loses_what_a_failed_sync_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
