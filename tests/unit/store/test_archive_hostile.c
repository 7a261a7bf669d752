/* What strangers put into archives (faults 63 to 73). Each case asserts the error, that nothing is left of the target,
 * and that the canary beside it is untouched. */
#include "tests/test.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "node/base/limits.h"
#include "store/archive.h"
#include "tests/unit/store/tar_builder.h"

#define TAR() BUF(64u << 20)

static struct store_archive_unpack_options options_for(bool overlay)
{
    struct store_archive_unpack_options options = store_archive_unpack_defaults();
    options.overlay = overlay;
    return options;
}

static int unpack_with(const struct scratch *scratch, const struct buf *tar,
                       const struct store_archive_unpack_options *options, struct store_archive_stats *stats,
                       struct err *err)
{
    struct feed feed = {.data = tar->data, .len = tar->len};
    return store_archive_unpack_new(feed_read, &feed, scratch->target, options, stats, err);
}

/* The archive is refused with this code and these words, and leaves nothing. */
static void assert_refused_as(struct buf *tar, bool overlay, int code, const char *words)
{
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    struct store_archive_unpack_options options = options_for(overlay);
    int status = unpack_with(&scratch, tar, &options, NULL, &err);
    if (status != code || !strstr(err.text, words))
        print_message("status %d: %s\n", status, err.text);
    assert_int_equal(status, code);
    assert_non_null(strstr(err.text, words));
    assert_false(file_exists(scratch.target));
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
    buf_release(tar);
}

static void assert_refused(struct buf *tar, const char *words)
{
    if (tar->len % 10240 || tar->len == 0)
        tar_end(tar);
    assert_refused_as(tar, false, ERR_INVALID, words);
}

/* faults 63 */
static void test_archive__names_that_lead_out(void **state)
{
    (void)state;
    const struct {
        const char *name, *words;
    } cases[] = {
        {"../canary/x", "leads upwards"}, {"/etc/x", "is absolute"},        {"a/../../canary/x", "leads upwards"},
        {"C:\\x", "is absolute"},         {"c:/x", "is absolute"},          {"a/..", "leads upwards"},
        {"..", "leads upwards"},          {"./../canary", "leads upwards"}, {"//x", "is absolute"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf tar = TAR();
        tar_file(&tar, "first", "fine");
        tar_file(&tar, cases[i].name, "bad");
        assert_refused(&tar, cases[i].words);
    }
}

/* faults 63: the name may come by pax or by GNU's long name */
static void test_archive__names_that_lead_out_by_extension(void **state)
{
    (void)state;
    struct buf pax = TAR(), gnu = TAR();
    tar_pax(&pax, "path", "a/../../canary/y", 16);
    tar_file(&pax, "harmless", "bad");
    assert_refused(&pax, "leads upwards");
    tar_long_name(&gnu, "../canary/z", 'L');
    tar_file(&gnu, "harmless", "bad");
    assert_refused(&gnu, "leads upwards");
}

/* faults 64 */
static void test_archive__through_a_symlink(void **state)
{
    (void)state;
    const char *targets[] = {"../canary", "/tmp", ".", "real"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        struct buf tar = TAR();
        tar_dir(&tar, "real/", 0755);
        tar_symlink(&tar, "d", targets[i]);
        tar_file(&tar, "d/x", "bad");
        assert_refused(&tar, "link, or no directory");
    }
    struct buf deep = TAR();
    tar_symlink(&deep, "a/b", "../../canary");
    tar_dir(&deep, "a/b/c/", 0755);
    tar_file(&deep, "a/b/c/x", "bad");
    assert_refused(&deep, "refused");
}

/* faults 64: "via earlier layer": the link is on the disk already */
static void test_archive__through_a_symlink_on_disk(void **state)
{
    (void)state;
    for (int update = 0; update < 2; update++) {
        struct scratch scratch;
        struct err err = {0};
        scratch_make(&scratch);
        assert_int_equal(mkdir(scratch.target, 0700), 0);
        OWNED(owned_free) char *link = file_path("%s/d", scratch.target);
        assert_int_equal(symlink("../canary", link), 0);
        OWNED(buf_release) struct buf tar = TAR();
        tar_file(&tar, "d/x", "bad");
        tar_end(&tar);
        struct feed feed = {.data = tar.data, .len = tar.len};
        struct store_archive_unpack_options options = options_for(false);
        options.update = update;
        OWNED(owned_fd) int fd = open(scratch.target, O_RDONLY | O_DIRECTORY);
        int status = store_archive_unpack(feed_read, &feed, fd, &options, NULL, &err);
        /* an update replaces the link, which is not the archive's, by a directory */
        assert_int_equal(status, update ? 0 : ERR_INVALID);
        assert_true(scratch_canary_is_well(&scratch));
        scratch_remove(&scratch);
    }
}

/* faults 65: the directory's mode would be set at the end, through the link */
static void test_archive__directory_turns_into_link(void **state)
{
    (void)state;
    struct buf tar = TAR(), back = TAR();
    tar_dir(&tar, "d/", 0777);
    tar_symlink(&tar, "d", "../canary");
    assert_refused(&tar, "is a directory elsewhere");
    tar_symlink(&back, "d", "../canary");
    tar_dir(&back, "d/", 0777);
    assert_refused(&back, "link, or no directory");
}

/* faults 65: the same in an update, where other things may change their kind */
static void test_archive__directory_turns_into_link_in_update(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    assert_int_equal(mkdir(scratch.target, 0700), 0);
    OWNED(buf_release) struct buf tar = TAR();
    tar_dir(&tar, "d/", 0777);
    tar_symlink(&tar, "d", "../canary");
    tar_end(&tar);
    struct feed feed = {.data = tar.data, .len = tar.len};
    struct store_archive_unpack_options options = options_for(false);
    options.update = true;
    OWNED(owned_fd) int fd = open(scratch.target, O_RDONLY | O_DIRECTORY);
    assert_int_equal(store_archive_unpack(feed_read, &feed, fd, &options, NULL, &err), ERR_INVALID);
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* faults 65: a symlink with attributes: they are nobody's, least of all its target's */
static void test_archive__symlink_with_attributes(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    struct store_archive_stats stats;
    scratch_make(&scratch);
    OWNED(buf_release) struct buf tar = TAR();
    tar_pax(&tar, "SCHILY.xattr.user.evil", "1", 1);
    tar_symlink(&tar, "l", "../canary/bird");
    tar_pax(&tar, "SCHILY.acl.access", "user::rwx,group::rwx,other::rwx", 31);
    tar_symlink(&tar, "m", "../canary/bird");
    tar_end(&tar);
    struct store_archive_unpack_options options = options_for(false);
    assert_int_equal(unpack_with(&scratch, &tar, &options, &stats, &err), 0);
    assert_true(stats.xattrs_dropped >= 1);
    OWNED(owned_free) char *bird = file_path("%s/bird", scratch.canary);
    assert_true(getxattr(bird, "user.evil", NULL, 0) < 0);
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* faults 66 */
static void test_archive__hard_links_that_lead_out(void **state)
{
    (void)state;
    const struct {
        const char *target, *words;
    } cases[] = {
        {"../canary/bird", "leads upwards"},
        {"/etc/passwd", "is absolute"},
        {"s/bird", "link, or no directory"},
        {"nowhere", "has not"},
        {"dir", "to a directory"},
        {"h", "to itself"},
        {".", "to itself"},
        {"nodir/x", "cannot open directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf tar = TAR();
        tar_dir(&tar, "dir/", 0755);
        tar_symlink(&tar, "s", "../canary");
        tar_hard_link(&tar, "h", cases[i].target);
        tar_end(&tar);
        bool missing = strcmp(cases[i].target, "nodir/x") == 0;
        assert_refused_as(&tar, false, missing ? ERR_NOTFOUND : ERR_INVALID, cases[i].words);
    }
}

/* faults 66: the link on the way is not the last part of the way */
static void test_archive__hard_link_through_a_symlink_upwards(void **state)
{
    (void)state;
    struct buf tar = TAR();
    tar_symlink(&tar, "up", "..");
    tar_hard_link(&tar, "stolen", "up/canary/bird");
    assert_refused(&tar, "link, or no directory");
}

/* faults 66: in an update, what an older state has left is no target: it goes in the end */
static void test_archive__hard_link_to_older_state(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    assert_int_equal(mkdir(scratch.target, 0700), 0);
    OWNED(owned_free) char *old = file_path("%s/old", scratch.target);
    assert_int_equal(file_write_atomic(old, "x", 1, 0600, NULL), 0);
    OWNED(buf_release) struct buf tar = TAR();
    tar_hard_link(&tar, "new", "old");
    tar_end(&tar);
    struct feed feed = {.data = tar.data, .len = tar.len};
    struct store_archive_unpack_options options = options_for(false);
    options.update = true;
    OWNED(owned_fd) int fd = open(scratch.target, O_RDONLY | O_DIRECTORY);
    assert_int_equal(store_archive_unpack(feed_read, &feed, fd, &options, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "has not"));
    scratch_remove(&scratch);
}

/* What is mounted inside the target is somebody else's, whoever names it: entry, directory or update. */
static void test_archive__mounts_are_not_entered(void **state)
{
    (void)state;
    const char *names[] = {"m/x", "m/sub/x", "other"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct scratch scratch;
        struct err err = {0};
        scratch_make(&scratch);
        char point[100];
        snprintf(point, sizeof point, "%s/m", scratch.target);
        assert_int_equal(file_make_dirs(point, 0700, NULL), 0);
        if (geteuid() != 0 || mount(scratch.canary, point, NULL, MS_BIND, NULL) < 0) {
            print_message("SKIPPED test_archive__mounts_are_not_entered: cannot mount\n");
            scratch_remove(&scratch);
            skip();
        }
        OWNED(buf_release) struct buf tar = TAR();
        tar_file(&tar, names[i], "bad");
        tar_end(&tar);
        struct feed feed = {.data = tar.data, .len = tar.len};
        struct store_archive_unpack_options options = options_for(false);
        options.update = true;
        int fd = open(scratch.target, O_RDONLY | O_DIRECTORY);
        int status = store_archive_unpack(feed_read, &feed, fd, &options, NULL, &err);
        close(fd);
        assert_int_equal(umount(point), 0);
        assert_true(status < 0);
        assert_true(scratch_canary_is_well(&scratch));
        scratch_remove(&scratch);
    }
}

/* faults 66: a hard link to a symlink is that symlink again, and writing "through" it replaces it */
static void test_archive__hard_link_to_symlink(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    OWNED(buf_release) struct buf tar = TAR();
    tar_symlink(&tar, "s", "../canary/bird");
    tar_hard_link(&tar, "h", "s");
    tar_file(&tar, "h", "written");
    tar_end(&tar);
    struct store_archive_unpack_options options = options_for(false);
    assert_int_equal(unpack_with(&scratch, &tar, &options, NULL, &err), 0);
    struct stat st;
    OWNED(owned_free) char *path = file_path("%s/h", scratch.target);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* faults 66: CVE-2016-5418 */
static void test_archive__hard_link_with_data(void **state)
{
    (void)state;
    struct buf tar = TAR();
    tar_file(&tar, "a", "original");
    tar_pax(&tar, "comment", "this makes it pax, where links may have data", 44);
    tar_put(&tar, &(struct tar_head){.name = "b", .type = '1', .link = "a", .size = 5});
    tar_data(&tar, "evil!", 5);
    assert_refused(&tar, "has data");
}

/* faults 67 */
static void test_archive__deep_and_long_paths(void **state)
{
    (void)state;
    char deep[6000] = "", part[300];
    struct buf too_deep = TAR(), too_long = TAR(), long_part = TAR(), far_out = TAR();
    for (int i = 0; i < 300; i++)
        strcat(deep, "d/");
    strcat(deep, "x");
    tar_pax(&too_deep, "path", deep, strlen(deep));
    tar_file(&too_deep, "x", "bad");
    tar_end(&too_deep);
    assert_refused_as(&too_deep, false, ERR_LIMIT, "directories deep");

    deep[0] = '\0';
    while (strlen(deep) < 4096)
        strcat(deep, "quite-a-long-component/");
    tar_pax(&too_long, "path", deep, strlen(deep));
    tar_file(&too_long, "x", "bad");
    tar_end(&too_long);
    assert_refused_as(&too_long, false, ERR_LIMIT, "longer than 4095 bytes");

    memset(part, 'p', 256);
    part[256] = '\0';
    tar_pax(&long_part, "path", part, 256);
    tar_file(&long_part, "x", "bad");
    assert_refused(&long_part, "longer than 255");

    /* libarchive#744: a link checked only while the path was short enough */
    deep[0] = '\0';
    for (int i = 0; i < 200; i++)
        strcat(deep, "12345/");
    char with_link[2000], beyond[2000];
    snprintf(with_link, sizeof with_link, "%slink", deep);
    snprintf(beyond, sizeof beyond, "%slink/bird", deep);
    struct scratch scratch;
    scratch_make(&scratch);
    tar_pax(&far_out, "path", with_link, strlen(with_link));
    tar_symlink(&far_out, "x", scratch.canary);
    tar_pax(&far_out, "path", beyond, strlen(beyond));
    tar_file(&far_out, "x", "bad");
    tar_end(&far_out);
    struct err err = {0};
    struct store_archive_unpack_options options = options_for(false);
    assert_int_equal(unpack_with(&scratch, &far_out, &options, NULL, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "link, or no directory"));
    assert_false(file_exists(scratch.target));
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
    buf_release(&far_out);
}

/* faults 67: libarchive#745: the check remembered one path and believed another */
static void test_archive__prefix_cache_is_exact(void **state)
{
    (void)state;
    struct buf tar = TAR();
    tar_file(&tar, "aaa/bbb/ccc", "fine");
    tar_file(&tar, "aaa/bbb/ddd", "fine");
    tar_symlink(&tar, "aa", "../canary");
    tar_file(&tar, "aaa/bbb/eee", "fine");
    tar_file(&tar, "aa/bbb", "bad");
    assert_refused(&tar, "link, or no directory");
    struct buf file = TAR();
    tar_file(&file, "aaa/bbb/ccc", "fine");
    tar_file(&file, "aaa", "bad");
    assert_refused(&file, "is a directory elsewhere");
}

/* faults 68 */
static void test_archive__whiteouts_that_lead_out(void **state)
{
    (void)state;
    const struct {
        const char *name, *words;
    } cases[] = {
        {"s/.wh.bird", "link, or no directory"},
        {"s/.wh..wh..opq", "link, or no directory"},
        {".wh..wh..opq", "everything below"},
        {"./.wh..wh..opq", "everything below"},
        {".wh.", "no name"},
        {"d/.wh..", "no name"},
        {"d/.wh...", "no name"},
        {"d/.wh..wh.plnk", "no name"},
        {".wh.x/y", "whiteout's name"},
        {"../.wh.canary", "leads upwards"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf tar = TAR();
        tar_symlink(&tar, "s", "../canary");
        tar_file(&tar, cases[i].name, "");
        tar_end(&tar);
        assert_refused_as(&tar, true, ERR_INVALID, cases[i].words);
    }
}

/* faults 69 */
static void test_archive__devices_and_privileges(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__devices_and_privileges: needs root\n");
        skip();
    }
    static const uint8_t capability[20] = {1, 0, 0, 2, 0, 4, 0, 0}; /* revision 2, effective, net_bind_service */
    OWNED(buf_release) struct buf tar = TAR();
    tar_put(&tar, &(struct tar_head){.name = "mem", .type = '3', .major = 1, .minor = 1, .mode = 0666});
    tar_put(&tar, &(struct tar_head){.name = "disk", .type = '4', .major = 8, .minor = 0, .mode = 0666});
    tar_put(&tar, &(struct tar_head){.name = "fifo", .type = '6', .mode = 0600});
    tar_put(&tar, &(struct tar_head){.name = "su", .mode = 06755});
    tar_pax(&tar, "SCHILY.fflags", "immutable", 9);
    tar_file(&tar, "fixed", "can be removed");
    tar_pax(&tar, "SCHILY.xattr.security.capability", capability, sizeof capability);
    tar_file(&tar, "ping", "");
    tar_pax(&tar, "SCHILY.xattr.trusted.overlay.redirect", "/etc", 4);
    tar_dir(&tar, "dir/", 0755);
    tar_end(&tar);
    for (int keep = 0; keep < 2; keep++) {
        struct scratch scratch;
        struct err err = {0};
        struct store_archive_stats stats;
        scratch_make(&scratch);
        struct store_archive_unpack_options options = options_for(false);
        options.devices = keep;
        options.privileges = keep;
        assert_int_equal(unpack_with(&scratch, &tar, &options, &stats, &err), 0);
        OWNED(owned_free) char *mem = file_path("%s/mem", scratch.target);
        OWNED(owned_free) char *su = file_path("%s/su", scratch.target);
        OWNED(owned_free) char *ping = file_path("%s/ping", scratch.target);
        OWNED(owned_free) char *dir = file_path("%s/dir", scratch.target);
        OWNED(owned_free) char *fifo = file_path("%s/fifo", scratch.target);
        struct stat st;
        assert_int_equal(lstat(su, &st), 0);
        assert_int_equal(st.st_mode & 07777, keep ? 06755 : 0755);
        assert_int_equal(stats.devices_dropped, keep ? 0 : 2);
        assert_int_equal(stats.privileges_dropped, keep ? 0 : 2);
        assert_int_equal(lstat(mem, &st) == 0, keep);
        if (keep)
            assert_true(S_ISCHR(st.st_mode) && major(st.st_rdev) == 1 && minor(st.st_rdev) == 1);
        assert_int_equal(lstat(fifo, &st), 0);
        assert_true(S_ISFIFO(st.st_mode));
        assert_int_equal(getxattr(ping, "security.capability", NULL, 0) > 0, keep);
        assert_true(getxattr(dir, "trusted.overlay.redirect", NULL, 0) < 0);
        assert_true(stats.xattrs_dropped >= 1);
        scratch_remove(&scratch);
        assert_false(file_exists(scratch.dir)); /* "immutable" was not obeyed */
    }
}

/* faults 69: a device 0:0 in a layer would be a whiteout in disguise */
static void test_archive__disguised_whiteout(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("SKIPPED test_archive__disguised_whiteout: needs root\n");
        skip();
    }
    struct scratch scratch;
    struct err err = {0};
    struct store_archive_stats stats;
    scratch_make(&scratch);
    OWNED(buf_release) struct buf tar = TAR();
    tar_put(&tar, &(struct tar_head){.name = "passwd", .type = '3', .mode = 0666});
    tar_end(&tar);
    struct store_archive_unpack_options options = options_for(true);
    options.devices = true;
    assert_int_equal(unpack_with(&scratch, &tar, &options, &stats, &err), 0);
    assert_int_equal(stats.devices_dropped, 1);
    OWNED(owned_free) char *path = file_path("%s/passwd", scratch.target);
    assert_false(file_exists(path));
    scratch_remove(&scratch);
}

/* ---- faults 70: budgets ---- */

static int unpack_limited(const struct buf *tar, uint64_t max_bytes, uint64_t max_entries, struct err *err)
{
    struct scratch scratch;
    scratch_make(&scratch);
    struct store_archive_unpack_options options = options_for(false);
    options.max_bytes = max_bytes;
    options.max_entries = max_entries;
    int status = unpack_with(&scratch, tar, &options, NULL, err);
    assert_int_equal(file_exists(scratch.target), status == 0);
    scratch_remove(&scratch);
    return status;
}

/* faults 70 */
static void test_archive__byte_and_entry_budgets(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = TAR();
    for (int i = 0; i < 11; i++)
        tar_file(&tar, "same", "0123456789");
    tar_end(&tar);
    assert_int_equal(unpack_limited(&tar, 0, 11, &err), 0);
    assert_int_equal(unpack_limited(&tar, 0, 10, &err), ERR_LIMIT);
    assert_non_null(strstr(err.text, "more than 10 entries"));
    assert_int_equal(unpack_limited(&tar, tar.len, 0, &err), 0);
    assert_int_equal(unpack_limited(&tar, tar.len - 1, 0, &err), ERR_LIMIT);
}

/* faults 70: a sparse file of 8 EiB, in two kilobytes */
static void test_archive__sparse_giant(void **state)
{
    (void)state;
    struct err err = {0};
    OWNED(buf_release) struct buf tar = TAR();
    tar_sparse(&tar, "giant", "9223372036854775807", 512);
    tar_data(&tar, "1\n9223372036854775807\n0\n", 24);
    tar_end(&tar);
    assert_int_equal(unpack_limited(&tar, 0, 0, &err), ERR_LIMIT);
    assert_non_null(strstr(err.text, "files are larger than"));
}

/* faults 70: data may not lie beyond the size, whatever the map says */
static void test_archive__sparse_map_lies(void **state)
{
    (void)state;
    struct buf tar = TAR();
    tar_sparse(&tar, "lie", "10", 516);
    tar_data(&tar, "1\n1099511627776\n4\n", 18);
    tar_data(&tar, "evil", 4);
    assert_refused(&tar, "beyond its size");
}

/* faults 70: a header of 1 GiB; a sparse map that fills memory */
static void test_archive__giant_headers(void **state)
{
    (void)state;
    struct buf pax = TAR(), map = TAR();
    tar_put(&pax, &(struct tar_head){.name = "PaxHeader/x", .type = 'x', .size = 1u << 30});
    tar_end(&pax);
    assert_refused_as(&pax, false, ERR_CORRUPT, "damaged");

    static const unsigned entries = 1600000;
    OWNED(buf_release) struct buf body = BUF(16u << 20);
    buf_addf(&body, "%u\n", entries);
    for (unsigned i = 0; i < entries; i++)
        buf_add(&body, "0\n0\n", 4);
    tar_sparse(&map, "map", "10", body.len);
    tar_data(&map, body.data, body.len);
    tar_end(&map);
    assert_refused_as(&map, false, ERR_LIMIT, "header is larger");
}

/* faults 70: gzip and zstd bombs, made with the tools that everybody has; 1:1000 and far more */
static void test_archive__compression_bombs(void **state)
{
    (void)state;
    const char *commands[] = {"head -c 300000000 /dev/zero | gzip -9", "head -c 300000000 /dev/zero | zstd -q -19"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        OWNED(buf_release) struct buf bomb = TAR();
        FILE *pipe = popen(commands[i], "r");
        assert_non_null(pipe);
        uint8_t chunk[4096];
        for (size_t got; (got = fread(chunk, 1, sizeof chunk, pipe)) > 0;)
            buf_add(&bomb, chunk, got);
        if (pclose(pipe) != 0 || bomb.len == 0) {
            print_message("SKIPPED '%s': no such tool\n", commands[i]);
            continue;
        }
        struct err err = {0};
        OWNED(buf_release) struct buf plain = BUF(1u << 20);
        struct feed feed = {.data = bomb.data, .len = bomb.len};
        assert_int_equal(store_archive_expand(feed_read, &feed, collect, &plain, 1u << 19, &err), ERR_LIMIT);
        assert_true(plain.len <= 1u << 19);

        struct scratch scratch;
        scratch_make(&scratch);
        struct store_archive_unpack_options options = options_for(false);
        options.max_ratio = 100;
        struct feed again = {.data = bomb.data, .len = bomb.len};
        int status = store_archive_unpack_new(feed_read, &again, scratch.target, &options, NULL, &err);
        assert_int_equal(status, ERR_LIMIT);
        assert_non_null(strstr(err.text, "more than 100 times"));
        assert_false(file_exists(scratch.target));
        scratch_remove(&scratch);
    }
}

/* ---- faults 71: damage ---- */

/* faults 71: cut at every length, nothing but a clean error comes, with its name */
static void test_archive__truncated_anywhere(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf tar = TAR();
    char name[200];
    memset(name, 'n', 150);
    name[150] = '\0';
    tar_long_name(&tar, name, 'L');
    tar_file(&tar, "short", "content");
    tar_long_name(&tar, name, 'K');
    tar_hard_link(&tar, "link", "short");
    tar_end(&tar);
    for (size_t len = 0; len < tar.len - 512; len += len % 512 == 0 || len % 512 == 511 ? 1 : 73) {
        struct err err = {0};
        struct buf cut = {.data = tar.data, .len = len, .max = tar.max};
        int status = unpack_limited(&cut, 0, 0, &err);
        if (status != ERR_CORRUPT && status != ERR_UNSUPPORTED)
            print_message("cut at %zu: %d %s\n", len, status, err.text);
        assert_true(status == ERR_CORRUPT || status == ERR_UNSUPPORTED);
    }
    struct err err = {0};
    assert_int_equal(unpack_limited(&tar, 0, 0, &err), 0);
}

/* faults 71 */
static void test_archive__damage(void **state)
{
    (void)state;
    struct buf checksum = TAR(), members = TAR(), garbage = TAR(), record = TAR();
    tar_file(&checksum, "a", "fine");
    tar_put(&checksum, &(struct tar_head){.name = "b", .bad_checksum = true});
    tar_end(&checksum);
    assert_refused_as(&checksum, false, ERR_CORRUPT, "damaged");

    tar_file(&members, "a", "first archive");
    tar_end(&members);
    tar_file(&members, "b", "second archive");
    tar_end(&members);
    assert_refused_as(&members, false, ERR_CORRUPT, "after the end");

    tar_file(&garbage, "a", "fine");
    tar_end(&garbage);
    buf_add(&garbage, "\0\0garbage", 9);
    assert_refused_as(&garbage, false, ERR_CORRUPT, "after the end");

    static const char broken[] = "99 path=too short\n";
    tar_put(&record, &(struct tar_head){.name = "PaxHeader/x", .type = 'x', .size = sizeof broken - 1});
    tar_data(&record, broken, sizeof broken - 1);
    tar_file(&record, "a", "fine");
    tar_end(&record);
    assert_refused_as(&record, false, ERR_CORRUPT, "damaged");
}

/* faults 71: in gzip too; zeros behind the end are padding, in both layers */
static void test_archive__damage_in_gzip(void **state)
{
    (void)state;
    OWNED(buf_release) struct buf tar = TAR();
    tar_file(&tar, "a", "fine");
    tar_end(&tar);
    char path[] = "/tmp/cmig-gzip-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(file_write_all(fd, tar.data, tar.len, path, NULL), 0);
    close(fd);
    OWNED(owned_free) char *command = file_path("gzip -c %s", path);
    OWNED(buf_release) struct buf gzip = TAR();
    FILE *pipe = popen(command, "r");
    uint8_t chunk[4096];
    for (size_t got; (got = fread(chunk, 1, sizeof chunk, pipe)) > 0;)
        buf_add(&gzip, chunk, got);
    pclose(pipe);
    unlink(path);
    struct err err = {0};
    assert_int_equal(unpack_limited(&gzip, 0, 0, &err), 0);
    for (size_t len = 4; len < gzip.len; len++) {
        struct buf cut = {.data = gzip.data, .len = len, .max = gzip.max};
        assert_int_equal(unpack_limited(&cut, 0, 0, &err), ERR_CORRUPT);
    }
    size_t whole = gzip.len;
    buf_add(&gzip, "\0\0\0\0", 4);
    assert_int_equal(unpack_limited(&gzip, 0, 0, &err), 0);
    gzip.len = whole;
    buf_add(&gzip, "garbage", 7);
    assert_int_equal(unpack_limited(&gzip, 0, 0, &err), ERR_CORRUPT);
}

/* faults 72 */
static void test_archive__other_formats(void **state)
{
    (void)state;
    const struct {
        const char *bytes;
        size_t len;
    } heads[] = {
        {"Rar!\x1a\x07\x00", 7},
        {"Rar!\x1a\x07\x01\x00", 8},
        {"7z\xbc\xaf\x27\x1c", 6},
        {"070701", 6},
        {"070707", 6},
        {"PK\x03\x04", 4},
        {"\xc7\x71", 2},
        {"!<arch>\n", 8},
        {"\xfd"
         "7zXZ\x00",
         6},
        {"BZh9", 4},
        {"MSCF", 4},
        {"xar!", 4},
        {"#mtree\n", 7},
        {"", 0},
        {"\x1f\x9d", 2},
        {"\x04\x22\x4d\x18", 4},
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        for (size_t padding = 0; padding <= 40960; padding += 40960) {
            struct buf file = TAR();
            buf_add(&file, heads[i].bytes, heads[i].len);
            for (size_t j = 0; j < padding; j += 8)
                buf_add(&file, "\x01\x00\x02\x03\x30\x00\x00\x00", 8);
            if (padding > 0)
                memcpy(file.data + 32768 + 1, "CD001", 5); /* ISO 9660 */
            assert_refused_as(&file, false, ERR_UNSUPPORTED, "unsupported format");
        }
    }
}

/* faults 73: any bytes but NUL and slash are a name; a NUL ends one; of duplicates the later wins */
static void test_archive__strange_names(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    const char *names[] = {"new\nline",
                           "\x1b[31mred",
                           "\xff\xfe not utf-8",
                           "Case",
                           "case",
                           "caf\xc3\xa9",
                           "cafe\xcc\x81",
                           "-rf",
                           "*",
                           " ",
                           "\\",
                           "a:b"};
    OWNED(buf_release) struct buf tar = TAR();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tar_pax(&tar, "path", names[i], strlen(names[i]));
        tar_file(&tar, "x", names[i]);
    }
    tar_pax(&tar, "path", "nul\0/../../canary/x", 19);
    tar_file(&tar, "x", "cut");
    tar_file(&tar, "twice", "first");
    tar_file(&tar, "twice", "second");
    tar_end(&tar);
    struct store_archive_unpack_options options = options_for(false);
    assert_int_equal(unpack_with(&scratch, &tar, &options, NULL, &err), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        OWNED(owned_free) char *path = file_path("%s/%s", scratch.target, names[i]);
        OWNED(buf_release) struct buf content = BUF(1000);
        assert_int_equal(file_read(path, &content, &err), 0);
        assert_string_equal(buf_str(&content), names[i]);
    }
    OWNED(owned_free) char *nul = file_path("%s/nul", scratch.target);
    assert_true(file_exists(nul));
    OWNED(owned_free) char *twice = file_path("%s/twice", scratch.target);
    OWNED(buf_release) struct buf content = BUF(1000);
    assert_int_equal(file_read(twice, &content, &err), 0);
    assert_string_equal(buf_str(&content), "second");
    assert_true(scratch_canary_is_well(&scratch));
    scratch_remove(&scratch);
}

/* faults 73: what is shown of a hostile name is printable */
static void test_archive__names_are_escaped_in_errors(void **state)
{
    (void)state;
    struct buf tar = TAR();
    tar_file(&tar, "../\x1b[31m\nred", "bad");
    tar_end(&tar);
    assert_refused_as(&tar, false, ERR_INVALID, "../\\x1b[31m\\x0ared");
}

/* Names and owners of no sense. */
static void test_archive__nonsense(void **state)
{
    (void)state;
    struct buf empty = TAR(), owner = TAR(), root = TAR(), link = TAR();
    tar_pax(&owner, "uid", "4294967295", 10);
    tar_file(&owner, "x", "bad");
    assert_refused(&owner, "no user or group");
    tar_file(&root, ".", "bad");
    assert_refused(&root, "place of the target");
    tar_symlink(&link, "x", "");
    assert_refused(&link, "target is empty");
    tar_put(&empty, &(struct tar_head){.name = "/"});
    assert_refused(&empty, "is absolute");
}

/* The source's error is the operation's, and its words arrive. */
static ssize_t failing_read(void *ctx, void *ret_data, size_t room, struct err *err)
{
    struct feed *feed = ctx;
    if (feed->at >= 700)
        return err_set(err, ERR_CANCELLED, "the user has gone");
    return feed_read(feed, ret_data, room < 100 ? room : 100, err);
}

static void test_archive__source_fails(void **state)
{
    (void)state;
    struct scratch scratch;
    struct err err = {0};
    scratch_make(&scratch);
    OWNED(buf_release) struct buf tar = TAR();
    tar_file(&tar, "a", "fine");
    tar_end(&tar);
    struct feed feed = {.data = tar.data, .len = tar.len};
    struct store_archive_unpack_options options = options_for(false);
    int status = store_archive_unpack_new(failing_read, &feed, scratch.target, &options, NULL, &err);
    assert_int_equal(status, ERR_CANCELLED);
    assert_non_null(strstr(err.text, "the user has gone"));
    assert_false(file_exists(scratch.target));
    scratch_remove(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archive__names_that_lead_out),
        cmocka_unit_test(test_archive__names_that_lead_out_by_extension),
        cmocka_unit_test(test_archive__through_a_symlink),
        cmocka_unit_test(test_archive__through_a_symlink_on_disk),
        cmocka_unit_test(test_archive__directory_turns_into_link),
        cmocka_unit_test(test_archive__directory_turns_into_link_in_update),
        cmocka_unit_test(test_archive__symlink_with_attributes),
        cmocka_unit_test(test_archive__hard_links_that_lead_out),
        cmocka_unit_test(test_archive__hard_link_through_a_symlink_upwards),
        cmocka_unit_test(test_archive__hard_link_to_older_state),
        cmocka_unit_test(test_archive__mounts_are_not_entered),
        cmocka_unit_test(test_archive__hard_link_to_symlink),
        cmocka_unit_test(test_archive__hard_link_with_data),
        cmocka_unit_test(test_archive__deep_and_long_paths),
        cmocka_unit_test(test_archive__prefix_cache_is_exact),
        cmocka_unit_test(test_archive__whiteouts_that_lead_out),
        cmocka_unit_test(test_archive__devices_and_privileges),
        cmocka_unit_test(test_archive__disguised_whiteout),
        cmocka_unit_test(test_archive__byte_and_entry_budgets),
        cmocka_unit_test(test_archive__sparse_giant),
        cmocka_unit_test(test_archive__sparse_map_lies),
        cmocka_unit_test(test_archive__giant_headers),
        cmocka_unit_test(test_archive__compression_bombs),
        cmocka_unit_test(test_archive__truncated_anywhere),
        cmocka_unit_test(test_archive__damage),
        cmocka_unit_test(test_archive__damage_in_gzip),
        cmocka_unit_test(test_archive__other_formats),
        cmocka_unit_test(test_archive__strange_names),
        cmocka_unit_test(test_archive__names_are_escaped_in_errors),
        cmocka_unit_test(test_archive__nonsense),
        cmocka_unit_test(test_archive__source_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
