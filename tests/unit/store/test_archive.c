/* Packing and unpacking among friends: round trips, determinism, live trees, overlays, updates. */
#include "tests/test.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "node/base/limits.h"
#include "store/archive.h"
#include "tests/unit/store/tar_builder.h"

#define TAR() BUF(256u << 20)
#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* ---- small tools ---- */

/* A path beneath the scratch directory; valid for the next seven calls. */
static const char *in(const struct scratch *scratch, const char *tree, const char *name)
{
    static char paths[8][6000];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s%s%s", scratch->dir, tree, *name ? "/" : "", name);
    return path;
}

static void put(const char *path, const void *data, size_t len)
{
    OWNED(owned_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, data, len, path, NULL), 0);
}

static void set_time(const char *path, time_t sec, long nsec)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {sec, nsec}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static int try_pack(const char *tree, bool overlay, struct buf *tar, struct store_archive_stats *stats, struct err *err)
{
    OWNED(owned_fd) int fd = open(tree, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    struct store_archive_pack_options options = {.overlay = overlay};
    return store_archive_pack(fd, &options, collect, tar, stats, err);
}

static void pack(const char *tree, bool overlay, struct buf *tar, struct store_archive_stats *stats)
{
    struct err err = {0};
    int status = try_pack(tree, overlay, tar, stats, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
}

static void unpack_into(const char *tree, const struct buf *tar, const struct store_archive_unpack_options *options,
                        size_t step, struct store_archive_stats *stats)
{
    struct err err = {0};
    struct feed feed = {.data = tar->data, .len = tar->len, .step = step};
    OWNED(owned_fd) int fd = open(tree, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    int status = store_archive_unpack(feed_read, &feed, fd, options, stats, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
}

static struct store_archive_unpack_options everything(void)
{
    struct store_archive_unpack_options options = store_archive_unpack_defaults();
    options.devices = geteuid() == 0;
    return options;
}

static void unpack_new(const char *tree, const struct buf *tar, bool overlay, struct store_archive_stats *stats)
{
    struct err err = {0};
    struct feed feed = {.data = tar->data, .len = tar->len};
    struct store_archive_unpack_options options = everything();
    options.overlay = overlay;
    int status = store_archive_unpack_new(feed_read, &feed, tree, &options, stats, &err);
    if (status < 0)
        print_message("%s\n", err.text);
    assert_int_equal(status, 0);
}

static bool same_bytes(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static bool takes_user_xattrs(const char *path)
{
    return setxattr(path, "user.probe", "1", 1, 0) == 0 && removexattr(path, "user.probe") == 0;
}

/* user::rw-, user:1000:r--, group::r--, mask::r--, other::--- */
static const uint8_t acl[] = {2, 0,    0,   0,   1,   0,   6,    0, 255, 255, 255, 255, 2,   0,    4,
                              0, 0xe8, 3,   0,   0,   4,   0,    4, 0,   255, 255, 255, 255, 0x10, 0,
                              4, 0,    255, 255, 255, 255, 0x20, 0, 0,   0,   255, 255, 255, 255};

/* A tree with one of everything. */
static void make_tree(const struct scratch *scratch, const char *tree)
{
    assert_int_equal(mkdir(in(scratch, tree, ""), 0755), 0);
    assert_int_equal(mkdir(in(scratch, tree, "b-dir"), 0755), 0);
    assert_int_equal(mkdir(in(scratch, tree, "b-dir/empty"), 0711), 0);
    put(in(scratch, tree, "b-dir/file"), "content", 7);
    put(in(scratch, tree, "a"), "", 0);
    put(in(scratch, tree, "b-dir/new\nline"), "x", 1);
    put(in(scratch, tree, "b-dir/caf\xc3\xa9"), "composed", 8);
    put(in(scratch, tree, "b-dir/cafe\xcc\x81"), "decomposed", 10);
    put(in(scratch, tree, "b-dir/\xff\xfe"), "bytes", 5);
    assert_int_equal(chmod(in(scratch, tree, "b-dir/file"), geteuid() == 0 ? 04751 : 0751), 0);
    assert_int_equal(link(in(scratch, tree, "b-dir/file"), in(scratch, tree, "z-link")), 0);
    assert_int_equal(link(in(scratch, tree, "b-dir/file"), in(scratch, tree, "b-dir/link")), 0);
    assert_int_equal(symlink("../outside/\xc3\xa9", in(scratch, tree, "symlink")), 0);
    assert_int_equal(link(in(scratch, tree, "symlink"), in(scratch, tree, "symlink-again")), 0);
    assert_int_equal(mkfifo(in(scratch, tree, "fifo"), 0620), 0);
    if (geteuid() == 0) {
        assert_int_equal(mknod(in(scratch, tree, "null"), S_IFCHR | 0666, makedev(1, 3)), 0);
        assert_int_equal(mknod(in(scratch, tree, "big"), S_IFBLK | 0600, makedev(259, 300000)), 0);
        assert_int_equal(lchown(in(scratch, tree, "symlink"), 12, 34), 0);
        assert_int_equal(chown(in(scratch, tree, "a"), 3000000000u, 4000000000u), 0);
    }
    set_time(in(scratch, tree, "a"), 1234567890, 123456789);
    set_time(in(scratch, tree, "fifo"), 1, 1);
    set_time(in(scratch, tree, "symlink"), 4102444800, 999999999);
    set_time(in(scratch, tree, "b-dir/empty"), 0, 0);
    set_time(in(scratch, tree, "b-dir"), 1600000000, 5);
    set_time(in(scratch, tree, ""), 1500000000, 7);
}

/* ---- round trips ---- */

static void test_archive__round_trip(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats packed, unpacked;
    struct stat st, other;
    scratch_make(&scratch);
    make_tree(&scratch, "tree");
    OWNED(buf_release) struct buf tar = TAR(), again = TAR(), after = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, &packed);
    assert_int_equal(packed.vanished + packed.changed + packed.sockets + packed.mounts, 0);
    assert_int_equal(packed.hard_links, 2);
    unpack_new(in(&scratch, "copy", ""), &tar, false, &unpacked);
    assert_int_equal(unpacked.entries, packed.entries);
    assert_int_equal(unpacked.data_bytes, packed.data_bytes);

    assert_int_equal(lstat(in(&scratch, "copy", "a"), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 1234567890);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
    assert_int_equal(lstat(in(&scratch, "copy", "b-dir/file"), &st), 0);
    assert_int_equal(lstat(in(&scratch, "copy", "z-link"), &other), 0);
    assert_int_equal(st.st_ino, other.st_ino);
    assert_int_equal(st.st_nlink, 3);
    assert_int_equal(st.st_mode & 07777, geteuid() == 0 ? 04751 : 0751);
    assert_int_equal(lstat(in(&scratch, "copy", "symlink"), &st), 0);
    assert_int_equal(st.st_mtim.tv_nsec, 999999999);
    char target[100] = "";
    assert_true(readlink(in(&scratch, "copy", "symlink"), target, sizeof target - 1) > 0);
    assert_string_equal(target, "../outside/\xc3\xa9");
    assert_int_equal(lstat(in(&scratch, "copy", "b-dir"), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 1600000000);
    assert_int_equal(lstat(in(&scratch, "copy", ""), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 1500000000);
    if (geteuid() == 0) {
        assert_int_equal(lstat(in(&scratch, "copy", "big"), &st), 0);
        assert_true(S_ISBLK(st.st_mode) && st.st_rdev == makedev(259, 300000));
        assert_int_equal(lstat(in(&scratch, "copy", "a"), &st), 0);
        assert_true(st.st_uid == 3000000000u && st.st_gid == 4000000000u);
    }
    /* determinism: twice the same, and the same again from the copy */
    pack(in(&scratch, "tree", ""), false, &again, NULL);
    assert_true(same_bytes(&tar, &again));
    pack(in(&scratch, "copy", ""), false, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    scratch_remove(&scratch);
}

struct seen {
    char names[1000];
    unsigned count;
    unsigned stop_at;
};

static int see(void *ctx, const struct store_archive_entry *entry)
{
    struct seen *seen = ctx;
    snprintf(seen->names + strlen(seen->names), sizeof seen->names - strlen(seen->names), "%s(%llu) ", entry->path,
             (unsigned long long)entry->size_bytes);
    return ++seen->count == seen->stop_at;
}

/* The order of names is that of their bytes, directory by directory. */
static void test_archive__order(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    const char *names[] = {"b", "a.b", "B", "\xc3\xa9", "a/x", "Z", "a/.y"};
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "tree", "a"), 0755), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        put(in(&scratch, "tree", names[i]), "", 0);
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    struct feed feed = {.data = tar.data, .len = tar.len};
    struct seen seen = {0};
    assert_int_equal(store_archive_scan(feed_read, &feed, see, &seen, &err), 0);
    assert_string_equal(seen.names, ".(0) B(0) Z(0) a(0) a/.y(0) a/x(0) a.b(0) b(0) \xc3\xa9(0) ");
    scratch_remove(&scratch);
}

/* Nothing of the machine is in an archive: these are its bytes, on every node. */
static void test_archive__golden_bytes(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    put(in(&scratch, "tree", "f"), "content", 7);
    assert_int_equal(chmod(in(&scratch, "tree", ""), 0755), 0);
    assert_int_equal(chmod(in(&scratch, "tree", "f"), 0644), 0);
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__golden_bytes: needs root, for owner 0\n");
        scratch_remove(&scratch);
        skip();
    }
    set_time(in(&scratch, "tree", "f"), 1700000000, 0);
    set_time(in(&scratch, "tree", ""), 1700000000, 0);
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    assert_int_equal(tar.len, 512 + 512 + 512 + 1024);
    assert_string_equal((char *)tar.data, "./");
    assert_string_equal((char *)tar.data + 100, "000755 ");
    assert_string_equal((char *)tar.data + 512, "f");
    assert_memory_equal(tar.data + 512 + 136, "14524770400", 11);
    assert_memory_equal(tar.data + 512 + 257, "ustar\00000", 8);
    assert_int_equal(tar.data[512 + 265], 0); /* no user name */
    assert_memory_equal(tar.data + 1024, "content\0", 8);
    scratch_remove(&scratch);
}

/* Streams come in any pieces. */
static void test_archive__any_step(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    make_tree(&scratch, "tree");
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    const size_t steps[] = {1, 2, 3, 7, 15, 511, 513, 4096};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        OWNED(buf_release) struct buf after = TAR();
        struct store_archive_unpack_options options = everything();
        assert_int_equal(mkdir(in(&scratch, "copy", ""), 0700), 0);
        unpack_into(in(&scratch, "copy", ""), &tar, &options, steps[i], NULL);
        pack(in(&scratch, "copy", ""), false, &after, NULL);
        assert_true(same_bytes(&tar, &after));
        assert_int_equal(file_remove_tree(in(&scratch, "copy", ""), NULL), 0);
    }
    scratch_remove(&scratch);
}

static void test_archive__attributes_and_acls(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    scratch_make(&scratch);
    if (geteuid() != 0 || !takes_user_xattrs(scratch.dir)) {
        print_message("SKIPPED test_archive__attributes_and_acls: needs root and user.* attributes\n");
        scratch_remove(&scratch);
        skip();
    }
    static const uint8_t capability[20] = {1, 0, 0, 2, 0, 4, 0, 0};
    static const char binary[] = "a\0b\nc=\xff 17 x=y\n";
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "tree", "dir"), 0755), 0);
    put(in(&scratch, "tree", "dir/f"), "x", 1);
    put(in(&scratch, "tree", "dir/plain"), "x", 1);
    put(in(&scratch, "tree", "ping"), "x", 1);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir/f"), "user.zz", "last", 4, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir/f"), "user.aa", binary, sizeof binary, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir/f"), "user.empty", "", 0, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir/f"), "user.odd =%\xc3\xa9", "1", 1, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir/f"), ACL_ACCESS, acl, sizeof acl, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir"), ACL_DEFAULT, acl, sizeof acl, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "dir"), "user.dir", "d", 1, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "ping"), "security.capability", capability, 20, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "ping"), "trusted.other", "no", 2, 0), 0);
    OWNED(buf_release) struct buf tar = TAR(), after = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    unpack_new(in(&scratch, "copy", ""), &tar, false, &stats);
    assert_int_equal(stats.xattrs_dropped, 0);
    uint8_t value[200];
    assert_int_equal(getxattr(in(&scratch, "copy", "dir/f"), "user.aa", value, sizeof value), sizeof binary);
    assert_memory_equal(value, binary, sizeof binary);
    assert_int_equal(getxattr(in(&scratch, "copy", "dir/f"), "user.empty", value, sizeof value), 0);
    assert_int_equal(getxattr(in(&scratch, "copy", "dir/f"), "user.odd =%\xc3\xa9", value, sizeof value), 1);
    assert_int_equal(getxattr(in(&scratch, "copy", "dir/f"), ACL_ACCESS, value, sizeof value), sizeof acl);
    assert_memory_equal(value, acl, sizeof acl);
    assert_int_equal(getxattr(in(&scratch, "copy", "dir"), ACL_DEFAULT, value, sizeof value), sizeof acl);
    /* the directory's default did not reach what was made inside it */
    assert_true(getxattr(in(&scratch, "copy", "dir/plain"), ACL_ACCESS, value, sizeof value) < 0);
    assert_int_equal(getxattr(in(&scratch, "copy", "ping"), "security.capability", value, sizeof value), 20);
    assert_true(getxattr(in(&scratch, "copy", "ping"), "trusted.other", value, sizeof value) < 0);
    pack(in(&scratch, "copy", ""), false, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    scratch_remove(&scratch);
}

/* ACLs as GNU tar and star write them */
static void test_archive__acl_as_text(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__acl_as_text: needs root\n");
        scratch_remove(&scratch);
        skip();
    }
    OWNED(buf_release) struct buf tar = TAR();
    const char text[] = "user::rw-,user:1000:r--,group::r--,mask::r--,other::---";
    tar_pax(&tar, "SCHILY.acl.access", text, strlen(text));
    tar_file(&tar, "f", "x");
    tar_end(&tar);
    unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
    uint8_t value[200];
    assert_int_equal(getxattr(in(&scratch, "copy", "f"), ACL_ACCESS, value, sizeof value), sizeof acl);
    assert_memory_equal(value, acl, sizeof acl);
    scratch_remove(&scratch);
}

/* Holes come from the content: a dense file and a sparse one of the same bytes pack alike, and small. */
static void test_archive__sparse(void **state)
{
    (void)state;
    struct scratch scratch;
    struct stat st;
    scratch_make(&scratch);
    enum { SIZE = 24 << 20, AT = (8 << 20) + 1000 };
    OWNED(owned_free) uint8_t *bytes = calloc(1, SIZE);
    memset(bytes + AT, 'x', 5000);
    memset(bytes + (16 << 20), 'y', 10);
    assert_int_equal(mkdir(in(&scratch, "dense", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "sparse", ""), 0755), 0);
    put(in(&scratch, "dense", "f"), bytes, SIZE);
    put(in(&scratch, "sparse", "f"), "", 0);
    assert_int_equal(truncate(in(&scratch, "sparse", "f"), SIZE), 0);
    OWNED(owned_fd) int fd = open(in(&scratch, "sparse", "f"), O_WRONLY);
    assert_int_equal(file_pwrite_all(fd, bytes + AT, 5000, AT, "f", NULL), 0);
    assert_int_equal(file_pwrite_all(fd, bytes + (16 << 20), 10, 16 << 20, "f", NULL), 0);
    for (int i = 0; i < 2; i++) {
        const char *tree = i ? "dense" : "sparse";
        put(in(&scratch, tree, "empty-giant"), "", 0);
        assert_int_equal(truncate(in(&scratch, tree, "empty-giant"), (1ll << 32) + 1), 0);
        put(in(&scratch, tree, "small-zeros"), bytes, 65535);
        const char *names[] = {"f", "empty-giant", "small-zeros", ""};
        for (size_t j = 0; j < 4; j++)
            set_time(in(&scratch, tree, names[j]), 1700000000, 0);
    }
    OWNED(buf_release) struct buf dense = TAR(), sparse = TAR(), after = TAR();
    struct store_archive_stats stats;
    pack(in(&scratch, "dense", ""), false, &dense, &stats);
    pack(in(&scratch, "sparse", ""), false, &sparse, NULL);
    assert_true(same_bytes(&dense, &sparse));
    assert_true(dense.len < 200000);
    assert_int_equal(stats.changed, 0);
    unpack_new(in(&scratch, "copy", ""), &dense, false, NULL);
    assert_int_equal(stat(in(&scratch, "copy", "f"), &st), 0);
    assert_int_equal(st.st_size, SIZE);
    assert_true(st.st_blocks * 512 < 1 << 20);
    OWNED(buf_release) struct buf content = BUF(SIZE);
    assert_int_equal(file_read(in(&scratch, "copy", "f"), &content, NULL), 0);
    assert_memory_equal(content.data, bytes, SIZE);
    assert_int_equal(stat(in(&scratch, "copy", "empty-giant"), &st), 0);
    assert_int_equal(st.st_size, (1ll << 32) + 1);
    pack(in(&scratch, "copy", ""), false, &after, NULL);
    assert_true(same_bytes(&dense, &after));
    scratch_remove(&scratch);
}

/* More holes than a map may have: the rest is data, and the content is right all the same. */
static void test_archive__many_holes(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    enum { COUNT = LIMIT_ARCHIVE_HOLES + 3, STEP = 73728 };
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    OWNED(owned_fd) int fd = open(in(&scratch, "tree", "f"), O_WRONLY | O_CREAT, 0644);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(pwrite(fd, "x", 1, (off_t)i * STEP), 1);
    OWNED(buf_release) struct buf tar = TAR(), after = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
    pack(in(&scratch, "copy", ""), false, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    OWNED(owned_fd) int copy = open(in(&scratch, "copy", "f"), O_RDONLY);
    for (unsigned i = 0; i < COUNT; i += 1000) {
        char byte = 0;
        assert_int_equal(pread(copy, &byte, 1, (off_t)i * STEP), 1);
        assert_int_equal(byte, 'x');
    }
    scratch_remove(&scratch);
}

static void test_archive__deep_tree(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    char path[5000];
    snprintf(path, sizeof path, "%s", in(&scratch, "tree", ""));
    assert_int_equal(mkdir(path, 0755), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(path + strlen(path), 30, "/directory%d", i);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    strcat(path, "/file");
    put(path, "deep", 4);
    OWNED(buf_release) struct buf tar = TAR(), after = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
    pack(in(&scratch, "copy", ""), false, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    scratch_remove(&scratch);
}

/* Directories that nobody may enter, made before what is in them. */
static void test_archive__closed_directories(void **state)
{
    (void)state;
    struct scratch scratch;
    struct stat st;
    scratch_make(&scratch);
    OWNED(buf_release) struct buf tar = TAR();
    tar_put(&tar, &(struct tar_head){.name = "d/", .type = '5', .mode = 01000});
    tar_put(&tar, &(struct tar_head){.name = "d/e/", .type = '5', .mode = 0500});
    tar_file(&tar, "d/e/f", "x");
    tar_dir(&tar, "implied/by/d/", 0700);
    tar_end(&tar);
    unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
    assert_int_equal(stat(in(&scratch, "copy", "d"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 01000);
    assert_int_equal(st.st_mtim.tv_sec, 1700000000);
    assert_int_equal(stat(in(&scratch, "copy", "implied/by"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(chmod(in(&scratch, "copy", "d"), 0700), 0);
    assert_int_equal(chmod(in(&scratch, "copy", "d/e"), 0700), 0);
    scratch_remove(&scratch);
}

/* ---- live trees, sockets, mounts ---- */

struct meddler {
    struct buf *tar;
    const char *path;
    int act; /* 1: shrink, 2: grow */
    bool done;
};

/* Changes the file while it is being packed: when the first bytes of it come out. */
static int meddle(void *ctx, const void *data, size_t len, struct err *err)
{
    struct meddler *meddler = ctx;
    if (!meddler->done && meddler->tar->len > 100000) {
        meddler->done = true;
        assert_int_equal(truncate(meddler->path, meddler->act == 1 ? 300000 : 9000000), 0);
    }
    return collect(meddler->tar, data, len, err);
}

static void test_archive__file_changes_while_read(void **state)
{
    (void)state;
    for (int act = 1; act <= 2; act++) {
        struct scratch scratch;
        struct err err = {0};
        struct store_archive_stats stats;
        scratch_make(&scratch);
        enum { SIZE = 3000000 };
        OWNED(owned_free) uint8_t *bytes = malloc(SIZE);
        memset(bytes, 'x', SIZE);
        assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
        put(in(&scratch, "tree", "f"), bytes, SIZE);
        put(in(&scratch, "tree", "g"), "after", 5);
        OWNED(buf_release) struct buf tar = TAR();
        struct meddler meddler = {.tar = &tar, .path = in(&scratch, "tree", "f"), .act = act};
        OWNED(owned_fd) int fd = open(in(&scratch, "tree", ""), O_RDONLY | O_DIRECTORY);
        assert_int_equal(store_archive_pack(fd, NULL, meddle, &meddler, &stats, &err), 0);
        assert_true(meddler.done);
        assert_int_equal(stats.changed, 1);
        unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
        struct stat st;
        assert_int_equal(stat(in(&scratch, "copy", "f"), &st), 0);
        assert_int_equal(st.st_size, SIZE);
        assert_true(file_exists(in(&scratch, "copy", "g")));
        scratch_remove(&scratch);
    }
}

struct remover {
    struct buf *tar;
    const char *path;
};

static int remove_while_packing(void *ctx, const void *data, size_t len, struct err *err)
{
    struct remover *remover = ctx;
    unlink(remover->path);
    return collect(remover->tar, data, len, err);
}

static void test_archive__file_vanishes(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    struct store_archive_stats stats;
    scratch_make(&scratch);
    enum { SIZE = 300000 };
    OWNED(owned_free) uint8_t *bytes = malloc(SIZE);
    memset(bytes, 'x', SIZE);
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    put(in(&scratch, "tree", "a"), bytes, SIZE);
    put(in(&scratch, "tree", "b"), "soon gone", 9);
    OWNED(buf_release) struct buf tar = TAR();
    struct remover remover = {&tar, in(&scratch, "tree", "b")};
    OWNED(owned_fd) int fd = open(in(&scratch, "tree", ""), O_RDONLY | O_DIRECTORY);
    assert_int_equal(store_archive_pack(fd, NULL, remove_while_packing, &remover, &stats, &err), 0);
    assert_int_equal(stats.vanished, 1);
    assert_int_equal(stats.entries, 2);
    unpack_new(in(&scratch, "copy", ""), &tar, false, NULL);
    scratch_remove(&scratch);
}

static void test_archive__sockets_are_left_out(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    scratch_make(&scratch);
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    OWNED(owned_fd) int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path, sizeof name.sun_path, "%.100s", in(&scratch, "tree", "s"));
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, &stats);
    assert_int_equal(stats.sockets, 1);
    assert_int_equal(stats.entries, 1);
    scratch_remove(&scratch);
}

/* Neither another file system nor a bind mount of the same one is entered; nor is a link to a directory. */
static void test_archive__mounts_are_not_entered(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    scratch_make(&scratch);
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "tree", "bind"), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "tree", "tmp"), 0755), 0);
    put(in(&scratch, "tree", "file"), "below", 5);
    assert_int_equal(symlink("../canary", in(&scratch, "tree", "link")), 0);
    if (geteuid() != 0 || mount(scratch.canary, in(&scratch, "tree", "bind"), NULL, MS_BIND, NULL) < 0) {
        print_message("SKIPPED test_archive__mounts_are_not_entered: cannot mount\n");
        scratch_remove(&scratch);
        skip();
    }
    assert_int_equal(mount("tmpfs", in(&scratch, "tree", "tmp"), "tmpfs", 0, "size=64k"), 0);
    put(in(&scratch, "tree", "tmp/secret"), "x", 1);
    char bird[100];
    snprintf(bird, sizeof bird, "%s/bird", scratch.canary);
    assert_int_equal(mount(bird, in(&scratch, "tree", "file"), NULL, MS_BIND, NULL), 0);
    OWNED(buf_release) struct buf tar = TAR();
    struct err err = {0};
    int status = try_pack(in(&scratch, "tree", ""), false, &tar, &stats, &err);
    assert_int_equal(umount(in(&scratch, "tree", "file")), 0);
    assert_int_equal(umount(in(&scratch, "tree", "tmp")), 0);
    assert_int_equal(umount(in(&scratch, "tree", "bind")), 0);
    assert_int_equal(status, 0);
    assert_int_equal(stats.mounts, 3);
    assert_int_equal(stats.entries, 4); /* root, two mount points, the link */
    assert_null(memmem(tar.data, tar.len, CANARY_TEXT, strlen(CANARY_TEXT)));
    scratch_remove(&scratch);
}

/* ---- overlays ---- */

static void test_archive__overlay_both_ways(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    struct stat st;
    scratch_make(&scratch);
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__overlay_both_ways: needs root\n");
        scratch_remove(&scratch);
        skip();
    }
    assert_int_equal(mkdir(in(&scratch, "upper", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "upper", "d"), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "upper", "opaque"), 0755), 0);
    assert_int_equal(mknod(in(&scratch, "upper", "gone"), S_IFCHR, 0), 0);
    assert_int_equal(mknod(in(&scratch, "upper", "d/gone too"), S_IFCHR, 0), 0);
    put(in(&scratch, "upper", "opaque/new"), "n", 1);
    put(in(&scratch, "upper", "d/.wh.own-name"), "x", 1);
    assert_int_equal(setxattr(in(&scratch, "upper", "opaque"), "trusted.overlay.opaque", "y", 1, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "upper", "d"), "trusted.overlay.origin", "z", 1, 0), 0);
    OWNED(buf_release) struct buf tar = TAR(), after = TAR();
    pack(in(&scratch, "upper", ""), true, &tar, &stats);
    assert_int_equal(stats.whiteouts, 3);
    assert_int_equal(stats.unnameable, 1);
    assert_non_null(memmem(tar.data, tar.len, "d/.wh.gone too", 15));
    assert_non_null(memmem(tar.data, tar.len, "opaque/.wh..wh..opq", 20));
    unpack_new(in(&scratch, "copy", ""), &tar, true, &stats);
    assert_int_equal(stats.whiteouts, 3);
    assert_int_equal(lstat(in(&scratch, "copy", "d/gone too"), &st), 0);
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == 0);
    char value = 0;
    assert_int_equal(getxattr(in(&scratch, "copy", "opaque"), "trusted.overlay.opaque", &value, 1), 1);
    assert_int_equal(value, 'y');
    pack(in(&scratch, "copy", ""), true, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    /* without the option they are names like others */
    unpack_new(in(&scratch, "plain", ""), &tar, false, NULL);
    assert_true(file_exists(in(&scratch, "plain", "d/.wh.gone too")));
    scratch_remove(&scratch);
}

/* A layer may hide a name and have it again, in any order of its entries. */
static void test_archive__whiteout_and_successor(void **state)
{
    (void)state;
    struct scratch scratch;
    struct stat st;
    scratch_make(&scratch);
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__whiteout_and_successor: needs root\n");
        scratch_remove(&scratch);
        skip();
    }
    OWNED(buf_release) struct buf tar = TAR();
    tar_file(&tar, ".wh.f", "");
    tar_file(&tar, "f", "new");
    tar_file(&tar, "g", "new");
    tar_file(&tar, ".wh.g", "");
    tar_file(&tar, ".wh.d", "");
    tar_file(&tar, "d/inside", "new");
    tar_file(&tar, "e/inside", "new");
    tar_file(&tar, ".wh.e", "");
    tar_end(&tar);
    unpack_new(in(&scratch, "copy", ""), &tar, true, NULL);
    assert_int_equal(lstat(in(&scratch, "copy", "f"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(lstat(in(&scratch, "copy", "g"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_true(getxattr(in(&scratch, "copy", "d"), "trusted.overlay.opaque", NULL, 0) == 1);
    assert_true(getxattr(in(&scratch, "copy", "e"), "trusted.overlay.opaque", NULL, 0) == 1);
    scratch_remove(&scratch);
}

/* What no layer can express is said, not packed wrongly. */
static void test_archive__overlay_redirects_are_refused(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__overlay_redirects_are_refused: needs root\n");
        scratch_remove(&scratch);
        skip();
    }
    assert_int_equal(mkdir(in(&scratch, "upper", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "upper", "moved"), 0755), 0);
    assert_int_equal(setxattr(in(&scratch, "upper", "moved"), "trusted.overlay.redirect", "old", 3, 0), 0);
    OWNED(buf_release) struct buf tar = TAR();
    assert_int_equal(try_pack(in(&scratch, "upper", ""), true, &tar, NULL, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'moved'"));
    scratch_remove(&scratch);
}

/* ---- update in place ---- */

static void assert_update_makes_equal(const struct scratch *scratch, const char *tree, const struct buf *tar,
                                      struct store_archive_stats *stats)
{
    struct store_archive_unpack_options options = everything();
    options.update = true;
    unpack_into(in(scratch, tree, ""), tar, &options, 0, stats);
    OWNED(buf_release) struct buf after = TAR();
    pack(in(scratch, tree, ""), false, &after, NULL);
    assert_true(same_bytes(tar, &after));
}

static void test_archive__update(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    struct stat before, after;
    scratch_make(&scratch);
    make_tree(&scratch, "tree");
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);

    assert_int_equal(mkdir(in(&scratch, "copy", ""), 0700), 0);
    assert_update_makes_equal(&scratch, "copy", &tar, &stats);
    assert_int_equal(stat(in(&scratch, "copy", "a"), &before), 0);
    assert_update_makes_equal(&scratch, "copy", &tar, &stats);
    assert_int_equal(stat(in(&scratch, "copy", "a"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_true(stats.kept >= 4);
    assert_int_equal(stats.removed, 0);

    /* every kind of difference at once */
    put(in(&scratch, "copy", "extra"), "x", 1);
    assert_int_equal(mkdir(in(&scratch, "copy", "extra-dir"), 0755), 0);
    put(in(&scratch, "copy", "extra-dir/file"), "x", 1);
    put(in(&scratch, "copy", ".cmig-0123456789abcdef"), "left by a kill", 14);
    put(in(&scratch, "copy", "b-dir/caf\xc3\xa9"), "COMPOSED", 8);
    assert_int_equal(chmod(in(&scratch, "copy", "b-dir/\xff\xfe"), 0600), 0);
    set_time(in(&scratch, "copy", "b-dir/\xff\xfe"), 1, 0);
    assert_int_equal(unlink(in(&scratch, "copy", "z-link")), 0);
    put(in(&scratch, "copy", "z-link"), "no longer linked", 16);
    assert_int_equal(unlink(in(&scratch, "copy", "symlink")), 0);
    assert_int_equal(mkdir(in(&scratch, "copy", "symlink"), 0755), 0);
    put(in(&scratch, "copy", "symlink/file"), "x", 1);
    assert_int_equal(file_remove_tree(in(&scratch, "copy", "b-dir/empty"), NULL), 0);
    assert_int_equal(symlink("../../canary", in(&scratch, "copy", "b-dir/empty")), 0);
    assert_int_equal(unlink(in(&scratch, "copy", "fifo")), 0);
    put(in(&scratch, "copy", "fifo"), "x", 1);
    assert_update_makes_equal(&scratch, "copy", &tar, &stats);
    assert_int_equal(stats.removed, 3);
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* A file with the right size and time keeps its content: that is the promise, and what makes it cheap. */
static void test_archive__update_trusts_size_and_time(void **state)
{
    (void)state;
    struct scratch scratch;
    struct store_archive_stats stats;
    scratch_make(&scratch);
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    put(in(&scratch, "tree", "f"), "one", 3);
    set_time(in(&scratch, "tree", "f"), 1700000000, 1);
    OWNED(buf_release) struct buf tar = TAR(), content = BUF(100);
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    assert_int_equal(mkdir(in(&scratch, "copy", ""), 0700), 0);
    put(in(&scratch, "copy", "f"), "two", 3);
    set_time(in(&scratch, "copy", "f"), 1700000000, 1);
    struct store_archive_unpack_options options = everything();
    options.update = true;
    unpack_into(in(&scratch, "copy", ""), &tar, &options, 0, &stats);
    assert_int_equal(stats.kept, 1);
    assert_int_equal(file_read(in(&scratch, "copy", "f"), &content, NULL), 0);
    assert_string_equal(buf_str(&content), "two");
    scratch_remove(&scratch);
}

/* Two names of one file become two files, and the mode of one is not the mode of the other. */
static void test_archive__update_parts_hard_links(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    const char *names[] = {"f", "g"};
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    for (size_t i = 0; i < 2; i++) {
        put(in(&scratch, "tree", names[i]), "same", 4);
        assert_int_equal(chmod(in(&scratch, "tree", names[i]), i ? 0644 : 0600), 0);
        set_time(in(&scratch, "tree", names[i]), 1700000000, 1);
    }
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    assert_int_equal(mkdir(in(&scratch, "copy", ""), 0700), 0);
    put(in(&scratch, "copy", "f"), "same", 4);
    set_time(in(&scratch, "copy", "f"), 1700000000, 1);
    assert_int_equal(link(in(&scratch, "copy", "f"), in(&scratch, "copy", "g")), 0);
    assert_update_makes_equal(&scratch, "copy", &tar, NULL);
    scratch_remove(&scratch);
}

/* Attributes of kept files follow too, and those that the archive lacks go. */
static void test_archive__update_attributes(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    if (!takes_user_xattrs(scratch.dir)) {
        print_message("SKIPPED test_archive__update_attributes: no user.* attributes here\n");
        scratch_remove(&scratch);
        skip();
    }
    assert_int_equal(mkdir(in(&scratch, "tree", ""), 0755), 0);
    assert_int_equal(mkdir(in(&scratch, "tree", "d"), 0755), 0);
    put(in(&scratch, "tree", "f"), "one", 3);
    assert_int_equal(setxattr(in(&scratch, "tree", "f"), "user.keep", "1", 1, 0), 0);
    assert_int_equal(setxattr(in(&scratch, "tree", "d"), "user.keep", "1", 1, 0), 0);
    OWNED(buf_release) struct buf tar = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    assert_int_equal(mkdir(in(&scratch, "copy", ""), 0700), 0);
    assert_update_makes_equal(&scratch, "copy", &tar, NULL);
    const char *names[] = {"f", "d"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(setxattr(in(&scratch, "copy", names[i]), "user.extra", "1", 1, 0), 0);
        assert_int_equal(setxattr(in(&scratch, "copy", names[i]), "user.keep", "changed", 7, 0), 0);
        assert_int_equal(chmod(in(&scratch, "copy", names[i]), 0711), 0);
    }
    assert_update_makes_equal(&scratch, "copy", &tar, NULL);
    scratch_remove(&scratch);
}

/* ---- the rest of the header ---- */

static void test_archive__writer_and_scan(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = TAR(), twin = TAR();
    for (int i = 0; i < 2; i++) {
        struct store_archive_writer *writer;
        assert_int_equal(store_archive_writer_new(collect, i ? &twin : &tar, &writer, &err), 0);
        assert_int_equal(store_archive_writer_add_dir(writer, "blobs", &err), 0);
        assert_int_equal(store_archive_writer_add_file(writer, "blobs/one", 6, &err), 0);
        assert_int_equal(store_archive_writer_add_data(writer, "con", 3, &err), 0);
        assert_int_equal(store_archive_writer_add_data(writer, "ent", 3, &err), 0);
        assert_int_equal(store_archive_writer_add_file(writer, "two", 0, &err), 0);
        assert_int_equal(store_archive_writer_finish(writer, &err), 0);
        store_archive_writer_free(writer);
    }
    assert_true(same_bytes(&tar, &twin));
    struct feed feed = {.data = tar.data, .len = tar.len};
    struct seen seen = {0};
    assert_int_equal(store_archive_scan(feed_read, &feed, see, &seen, &err), 0);
    assert_string_equal(seen.names, "blobs(0) blobs/one(6) two(0) ");
    feed.at = 0;
    struct seen early = {.stop_at = 2};
    assert_int_equal(store_archive_scan(feed_read, &feed, see, &early, &err), 1);
    assert_int_equal(early.count, 2);
}

/* An abandoned writer writes no end mark: what there is of the archive is recognisably cut. */
static void test_archive__abandoned_writer(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = TAR();
    struct store_archive_writer *writer;
    assert_int_equal(store_archive_writer_new(collect, &tar, &writer, &err), 0);
    assert_int_equal(store_archive_writer_add_file(writer, "one", 0, &err), 0);
    store_archive_writer_free(writer);
    assert_true(tar.len <= 512);
}

static int failing_write(void *ctx, const void *data, size_t len, struct err *err)
{
    unsigned *left = ctx;
    (void)data;
    (void)len;
    return (*left)-- ? 0 : err_set(err, ERR_NOSPACE, "the disk is full");
}

static void test_archive__sink_fails(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    make_tree(&scratch, "tree");
    OWNED(owned_free) uint8_t *bytes = malloc(1u << 20);
    memset(bytes, 'x', 1u << 20);
    put(in(&scratch, "tree", "large"), bytes, 1u << 20);
    OWNED(owned_fd) int fd = open(in(&scratch, "tree", ""), O_RDONLY | O_DIRECTORY);
    for (unsigned k = 0;; k++) {
        struct err err = {0};
        unsigned left = k;
        int status = store_archive_pack(fd, NULL, failing_write, &left, NULL, &err);
        if (status == 0)
            break;
        assert_int_equal(status, ERR_NOSPACE);
        assert_non_null(strstr(err.text, "the disk is full"));
        assert_true(k < 100);
    }
    scratch_remove(&scratch);
}

static void test_archive__unpack_new_refuses_what_is_there(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    struct store_archive_unpack_options options = everything();
    struct feed feed = {0};
    assert_int_equal(store_archive_unpack_new(feed_read, &feed, scratch.canary, &options, NULL, &err), ERR_EXISTS);
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* Differential: what GNU tar makes of our archives and we of its, compared by our packing. */
static void test_archive__agrees_with_gnu_tar(void **state)
{
    (void)state;
    struct scratch scratch;
    scratch_make(&scratch);
    make_tree(&scratch, "tree");
    OWNED(buf_release) struct buf tar = TAR(), theirs = TAR(), after = TAR(), back = TAR();
    pack(in(&scratch, "tree", ""), false, &tar, NULL);
    put(in(&scratch, "ours.tar", ""), tar.data, tar.len);
    OWNED(owned_free)
    char *command = file_path("cd %s && mkdir gnu && tar --xattrs --acls -xpf ours.tar -C gnu 2>tar.log && "
                              "tar --format=posix --sort=name -C tree -cf theirs.tar . 2>>tar.log",
                              scratch.dir);
    if (system(command) != 0) {
        print_message("SKIPPED test_archive__agrees_with_gnu_tar: no GNU tar\n");
        scratch_remove(&scratch);
        skip();
    }
    pack(in(&scratch, "gnu", ""), false, &after, NULL);
    assert_true(same_bytes(&tar, &after));
    assert_int_equal(file_read(in(&scratch, "theirs.tar", ""), &theirs, NULL), 0);
    unpack_new(in(&scratch, "copy", ""), &theirs, false, NULL);
    pack(in(&scratch, "copy", ""), false, &back, NULL);
    assert_true(same_bytes(&tar, &back));
    scratch_remove(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archive__round_trip),
        cmocka_unit_test(test_archive__order),
        cmocka_unit_test(test_archive__golden_bytes),
        cmocka_unit_test(test_archive__any_step),
        cmocka_unit_test(test_archive__attributes_and_acls),
        cmocka_unit_test(test_archive__acl_as_text),
        cmocka_unit_test(test_archive__sparse),
        cmocka_unit_test(test_archive__many_holes),
        cmocka_unit_test(test_archive__deep_tree),
        cmocka_unit_test(test_archive__closed_directories),
        cmocka_unit_test(test_archive__file_changes_while_read),
        cmocka_unit_test(test_archive__file_vanishes),
        cmocka_unit_test(test_archive__sockets_are_left_out),
        cmocka_unit_test(test_archive__mounts_are_not_entered),
        cmocka_unit_test(test_archive__overlay_both_ways),
        cmocka_unit_test(test_archive__whiteout_and_successor),
        cmocka_unit_test(test_archive__overlay_redirects_are_refused),
        cmocka_unit_test(test_archive__update),
        cmocka_unit_test(test_archive__update_trusts_size_and_time),
        cmocka_unit_test(test_archive__update_parts_hard_links),
        cmocka_unit_test(test_archive__update_attributes),
        cmocka_unit_test(test_archive__writer_and_scan),
        cmocka_unit_test(test_archive__abandoned_writer),
        cmocka_unit_test(test_archive__sink_fails),
        cmocka_unit_test(test_archive__unpack_new_refuses_what_is_there),
        cmocka_unit_test(test_archive__agrees_with_gnu_tar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
