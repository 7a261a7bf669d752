#include "tests/unit/store/fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "store/pack.h"

#define BYTES (1u << 20)

/* ---- a disk that does less than it is asked for ---- */

static struct {
    unsigned writes;
    unsigned fail_at; /* this call to write, from 1; 0: none */
    size_t at_most;   /* of bytes a call */
    bool refuses_room;
    bool is_nearly_full;
    unsigned allocated;
} disk;

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (++disk.writes == disk.fail_at) {
        errno = EIO;
        return -1;
    }
    if (disk.at_most == 0)
        return syscall(SYS_pwritev, fd, parts, count, offset, 0);
    size_t done = 0;
    for (int i = 0; i < count && done < disk.at_most; i++) {
        size_t len = parts[i].iov_len < disk.at_most - done ? parts[i].iov_len : disk.at_most - done;
        assert_int_equal(syscall(SYS_pwrite64, fd, parts[i].iov_base, len, offset + (off_t)done), len);
        done += len;
    }
    return (ssize_t)done;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    bool is_room = mode == FALLOC_FL_KEEP_SIZE;
    disk.allocated += is_room;
    if (is_room && disk.refuses_room) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

int fstatvfs(int fd, struct statvfs *ret_fs)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int status = statvfs(path, ret_fs);
    if (disk.is_nearly_full)
        ret_fs->f_bavail = (20u << 20) / ret_fs->f_frsize;
    return status;
}

static int setup(void **state)
{
    memset(&disk, 0, sizeof disk);
    return fixture_setup(state);
}

/* ---- tests ---- */

static void test_run__is_written_at_once(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = fixture_bytes(1, BYTES);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    assert_true(info.chunk_count > 6);
    assert_true(disk.writes <= 4); /* the chunks, the last of them, leaf and root */
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    free(bytes);
}

static void test_run__goes_on_after_short_writes(void **state)
{
    static const size_t limits[] = {63, 64, 65, 4096, 100000};
    struct fixture *f = *state;
    uint8_t *bytes = fixture_bytes(2, BYTES);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct store_object_info info;
        struct err err = {0};
        disk.at_most = limits[i];
        fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
        fixture_expect(f->store, &info.digest, bytes, BYTES);
        must(store_object_remove(f->store, &info.digest, &err));
        assert_int_equal(fixture_pack_bytes(f->store), 0);
    }
    free(bytes);
}

static void test_run__that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = fixture_bytes(3, BYTES);
    int status = -1;
    for (unsigned k = 1; status < 0; k++) {
        struct store_ingest *ingest;
        struct store_object_info info;
        struct err err = {0};
        must(store_ingest_new(f->store, STORE_BLOB, STORE_CHUNKING_ARCHIVE, &ingest, &err));
        disk.writes = 0;
        disk.fail_at = k;
        status = store_ingest_write(ingest, bytes, BYTES, &err);
        if (status == 0)
            status = store_ingest_finish(ingest, &info, &err);
        store_ingest_free(ingest);
        if (status < 0) {
            assert_int_equal(status, ERR_IO);
            assert_int_equal(fixture_pack_bytes(f->store), 0);
        } else {
            assert_true(k > 3);
            fixture_expect(f->store, &info.digest, bytes, BYTES);
        }
    }
    free(bytes);
}

/* Chunks that compress are copied: the compressor makes the next one where this one was. */
static void test_run__keeps_compressed_chunks_apart(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = fixture_bytes(4, BYTES);
    struct store_object_info info;
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] &= 15;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    assert_true(fixture_pack_bytes(f->store) < BYTES * 3 / 4);
    assert_true(disk.writes <= 4);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    free(bytes);
}

static void test_run__has_equal_chunks_once(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, BYTES);
    struct store_object_info info;
    memset(bytes, 'x', BYTES);
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    assert_int_equal(info.chunk_count, 4);
    assert_true(fixture_pack_bytes(f->store) < 10000);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    free(bytes);
}

static void put_and_shut(struct fixture *f, struct stat *ret_st)
{
    uint8_t *bytes = fixture_bytes(5, BYTES);
    OWNED(owned_free) char *path = file_path("%s/packs/%016x.pack", f->dir, 1);
    struct store_object_info info;
    fixture_put(f->store, STORE_BLOB, bytes, BYTES, &info);
    fixture_expect(f->store, &info.digest, bytes, BYTES);
    store_close(f->store);
    f->store = NULL;
    assert_int_equal(stat(path, ret_st), 0);
    free(bytes);
}

static void test_run__gives_back_the_room_that_it_took(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    put_and_shut(f, &st);
    assert_int_equal(disk.allocated, 1);
    assert_in_range(st.st_blocks * 512, BYTES, st.st_size + 65536);
}

static void test_run__does_without_room(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    disk.refuses_room = true;
    put_and_shut(f, &st);
    assert_int_equal(disk.allocated, 1); /* and is not asked again */
}

/* faults 50, 51: where little is free, taking it ahead would leave the index nothing to commit with. */
static void test_run__leaves_the_last_room_to_others(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    disk.is_nearly_full = true;
    put_and_shut(f, &st);
    assert_int_equal(disk.allocated, 0);
}

static void test_run__little_things_take_no_room(void **state)
{
    struct fixture *f = *state;
    struct store_object_info info;
    uint8_t *bytes = fixture_bytes(6, 10000);
    fixture_put(f->store, STORE_BLOB, bytes, 10000, &info);
    assert_int_equal(disk.allocated, 0);
    free(bytes);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(test_run__##name, setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(is_written_at_once),         CASE(goes_on_after_short_writes),
        CASE(that_fails_leaves_nothing),  CASE(keeps_compressed_chunks_apart),
        CASE(has_equal_chunks_once),      CASE(gives_back_the_room_that_it_took),
        CASE(does_without_room),          CASE(leaves_the_last_room_to_others),
        CASE(little_things_take_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
