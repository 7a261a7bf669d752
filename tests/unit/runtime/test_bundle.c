#include "tests/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/file.h"
#include "node/base/scope.h"
#include "node/runtime/bundle.h"

#define LAYERS 60 /* their paths are more than one page of mount options */

struct ground {
    char dir[64];
    char *layers_dir, *containers_dir; /* owned */
    struct runtime_bundle bundle;
    struct image_layer layers[LAYERS];
    struct image image;
};

static void put(const char *dir, const char *name, const char *text)
{
    OWNED(owned_free) char *path = file_path("%s/%s", dir, name);
    struct err err;
    assert_int_equal(file_write_atomic(path, text, strlen(text), 0644, &err), 0);
}

static void assert_text(const char *dir, const char *name, const char *expected)
{
    OWNED(owned_free) char *path = file_path("%s/%s", dir, name);
    OWNED(buf_release) struct buf text = BUF(64);
    struct err err;
    assert_int_equal(file_read(path, &text, &err), 0);
    assert_string_equal(buf_str(&text), expected);
}

/* Each layer has a file of its own and one, "top", that all have. */
static int setup(void **state)
{
    struct ground *ground = calloc(1, sizeof *ground);
    const struct guid id = {{5}};
    struct err err;
    *state = ground;
    strcpy(ground->dir, "/tmp/cmig-bundle-XXXXXX");
    if (!mkdtemp(ground->dir))
        return -1;
    ground->layers_dir = file_path("%s/layers", ground->dir);
    ground->containers_dir = file_path("%s/containers", ground->dir);
    ground->image = (struct image){.name = ground->dir, .layers = ground->layers, .layer_count = LAYERS};
    for (size_t i = 0; i < LAYERS; i++) {
        char hex[ID_HEX_SIZE], text[32];
        ground->layers[i].diff_id.b[0] = (uint8_t)(i + 1);
        OWNED(owned_free) char *layer = file_path("%s/%s", ground->layers_dir, id_hex(&ground->layers[i].diff_id, hex));
        if (file_make_dirs(layer, 0755, &err) < 0)
            return -1;
        snprintf(text, sizeof text, "layer-%zu", i);
        put(layer, text, text);
        put(layer, "top", text);
    }
    return runtime_bundle_init(&ground->bundle, ground->containers_dir, &id, &err) < 0 ||
                   runtime_bundle_make(&ground->bundle, geteuid(), getegid(), &err) < 0
               ? -1
               : 0;
}

static int teardown(void **state)
{
    struct ground *ground = *state;
    struct err err;
    runtime_bundle_unmount(&ground->bundle);
    int status = file_remove_tree(ground->dir, &err);
    runtime_bundle_release(&ground->bundle);
    free(ground->layers_dir);
    free(ground->containers_dir);
    free(ground);
    return status;
}

/* False, with the reason, where nothing can be mounted. */
static bool mount_or_say(struct ground *ground)
{
    struct err err = {0};
    if (geteuid() != 0) {
        print_message("skipped: needs root\n");
        return false;
    }
    int status = runtime_bundle_mount(&ground->bundle, &ground->image, ground->layers_dir, &err);
    if (status == ERR_UNSUPPORTED) {
        print_message("skipped: %s\n", err.text);
        return false;
    }
    if (status < 0)
        fail_msg("%s", err.text);
    return true;
}

static void test_bundle__the_last_layer_is_the_uppermost(void **state)
{
    struct ground *ground = *state;
    if (!mount_or_say(ground))
        skip();
    assert_text(ground->bundle.rootfs, "top", "layer-59");
    assert_text(ground->bundle.rootfs, "layer-0", "layer-0");
    put(ground->bundle.rootfs, "top", "mine");
    assert_text(ground->bundle.upper, "top", "mine");
    char hex[ID_HEX_SIZE];
    OWNED(owned_free) char *last = file_path("%s/%s", ground->layers_dir, id_hex(&ground->layers[59].diff_id, hex));
    assert_text(last, "top", "layer-59");
}

/* Gotcha 8: what came from another node meanwhile is what the container sees. */
static void test_bundle__a_replaced_upper_is_seen_after_mounting_again(void **state)
{
    struct ground *ground = *state;
    if (!mount_or_say(ground))
        skip();
    assert_text(ground->bundle.rootfs, "top", "layer-59");
    struct err err;
    assert_int_equal(file_remove_tree(ground->bundle.rw, &err), 0);
    assert_int_equal(file_make_dirs(ground->bundle.upper, 0755, &err), 0);
    put(ground->bundle.upper, "top", "from elsewhere");
    put(ground->bundle.rw, "log", "");
    assert_true(mount_or_say(ground));
    assert_text(ground->bundle.rootfs, "top", "from elsewhere");
    runtime_bundle_unmount(&ground->bundle);
    runtime_bundle_unmount(&ground->bundle); /* harmless */
    OWNED(owned_free) char *top = file_path("%s/top", ground->bundle.rootfs);
    assert_false(file_exists(top)); /* there was one mount, not two */
}

/* faults 75: what came as the writable part cannot lead out of it. */
static void test_bundle__links_are_no_writable_part(void **state)
{
    struct ground *ground = *state;
    struct err err = {0};
    assert_int_equal(unlink(ground->bundle.log), 0);
    assert_int_equal(symlink("/etc/passwd", ground->bundle.log), 0);
    assert_int_equal(runtime_bundle_mount(&ground->bundle, &ground->image, ground->layers_dir, &err), ERR_INVALID);
    assert_int_equal(unlink(ground->bundle.log), 0);
    assert_int_equal(runtime_bundle_mount(&ground->bundle, &ground->image, ground->layers_dir, &err), ERR_NOTFOUND);
    put(ground->bundle.rw, "log", "");
    assert_int_equal(rmdir(ground->bundle.upper), 0);
    assert_int_equal(symlink("/etc", ground->bundle.upper), 0);
    assert_int_equal(runtime_bundle_mount(&ground->bundle, &ground->image, ground->layers_dir, &err), ERR_INVALID);
}

/* faults 83: nobody else gets into it, whatever the umask is. */
static void test_bundle__is_private_inside_out(void **state)
{
    struct ground *ground = *state;
    struct stat st;
    const char *const closed[] = {ground->bundle.home, ground->bundle.rw, ground->bundle.work, ground->bundle.bundle};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        assert_int_equal(stat(closed[i], &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
    }
    assert_int_equal(stat(ground->bundle.upper, &st), 0); /* is the container's own root directory */
    assert_int_equal(st.st_mode & 07777, 0755);
    struct err err;
    assert_int_equal(runtime_bundle_remove(&ground->bundle, &err), 0);
    assert_false(file_exists(ground->bundle.home));
}

#define GROUND_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GROUND_TEST(test_bundle__the_last_layer_is_the_uppermost),
        GROUND_TEST(test_bundle__a_replaced_upper_is_seen_after_mounting_again),
        GROUND_TEST(test_bundle__links_are_no_writable_part),
        GROUND_TEST(test_bundle__is_private_inside_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
